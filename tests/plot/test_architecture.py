"""The drawing of the whole model: its numbers, its colors, and no text that overlaps."""

import matplotlib as mpl
import numpy as np
import pytest
from fixtures_toy import published, small_config
from matplotlib.colors import to_hex, to_rgb

from qwenkit import plot
from qwenkit.config import QwenConfig
from qwenkit.plot._architecture import PARTS
from qwenkit.plot._pen import COLORS, GRAY
from qwenkit.plot.style import KEY, QUERY, TEXT, VALUE

TOY = QwenConfig(1088, 64, 176, 2, 4, 2, tie_word_embeddings=True)
SMALL, LARGE = published("0.5B"), published("7B")
SIZES = {"toy": TOY, "0.5B": SMALL, "7B": LARGE, "32B": published("32B")}
CONFIGS = pytest.mark.parametrize("config", SIZES.values(), ids=SIZES.keys())
TEXT_COLORS = {text for _, _, text in COLORS.values()}


def written(ax):
    return {text.get_text() for text in ax.texts if text.get_text()}


def of_part(ax, part):
    return [text for text in ax.texts if text.get_gid() == part]


def painted(ax):
    """Draw some axes; return their own extent, and that of each text."""
    renderer = ax.figure.canvas.get_renderer()
    ax.figure.draw(renderer)
    texts = [(text, text.get_window_extent(renderer)) for text in ax.texts if text.get_text()]
    return ax.get_window_extent(renderer), texts, renderer


@pytest.mark.parametrize("lit", [None, *PARTS])
def test_each_part_is_lit_and_the_rest_is_gray(lit):
    ax = plot.architecture(LARGE, lit)
    lit_parts = {text.get_gid() for text in ax.texts} if lit is None else PARTS[lit][0]
    for text in ax.texts:
        part = text.get_gid()
        if part in (None, "sizes", "layer"):  # arrows, the legend and the frame's title
            continue
        color = to_hex(text.get_color())
        assert (color in TEXT_COLORS) == (part in lit_parts), text.get_text()
        assert (color == GRAY[2]) == (part not in lit_parts), text.get_text()


def test_every_part_that_can_be_lit_is_drawn_and_a_tied_head_is_not_in_the_checkpoint():
    drawn = {text.get_gid() for text in plot.architecture(TOY).texts}
    assert set().union(*(parts for parts, _ in PARTS.values())) <= drawn
    for config, expected in ((SMALL, GRAY[2]), (LARGE, COLORS["tokens"][2])):
        head = of_part(plot.architecture(config, "checkpoint"), "head")
        assert {to_hex(text.get_color()) for text in head} == {expected}


@pytest.mark.parametrize(("config", "expected"), [
    (SMALL,
     {"151,936 × 896", "896 → 128 + bias", "896 → 896 + bias", "896 → 4,864", "4,864 → 896",
      "decoder layer × 24", "14 query heads", "share 2 kv heads", "softmax(q·k / √64) · v",
      "embed_tokens again", "(B, T, 151,936)", "residual stream (B, T, 896)"}),
    (LARGE,
     {"152,064 × 3,584", "3,584 → 512 + bias", "3,584 → 18,944", "lm_head",
      "own head, 3,584 → 152,064", "Qwen2 model · 7,615,616,512 parameters"}),
    (small_config(head_dim=6), {"4 → 12 + bias", "4 → 6 + bias", "12 → 4"}),
])  # fmt: skip
def test_the_numbers_of_the_config_are_in_it(config, expected):
    assert expected <= written(plot.architecture(config))


@pytest.mark.parametrize("lit", [None, "attention", "mlp"])
def test_queries_keys_and_values_have_their_colors_where_they_are_lit(lit):
    patches = plot.architecture(TOY, lit).patches
    found = {to_hex(color) for one in patches for color in (one.get_edgecolor(),)}
    assert ({QUERY, KEY} <= found) == (lit != "mlp")
    bars = {to_hex(one.get_facecolor()) for one in patches if one.get_linewidth() == 0}
    assert bars == ({KEY, VALUE} if lit != "mlp" else {GRAY[1]})


def test_what_is_not_lit_can_be_read():
    fill, line, text = (np.array(to_rgb(color)) for color in GRAY)
    assert fill.min() - text.max() > 0.6
    assert fill.min() - line.max() > 0.35


def test_lora_is_named_where_it_is_added_and_only_when_lit_and_global_settings_stay():
    before = mpl.rcParams.copy()
    ax = plot.architecture(TOY, "lora")
    assert [len([t for t in of_part(ax, p) if "LoRA" in t.get_text()]) for p in "qkv"] == [1, 0, 1]
    assert not any("LoRA" in word for word in written(plot.architecture(TOY)))
    assert mpl.rcParams == before


@CONFIGS
@pytest.mark.parametrize("lit", [None, "lora"])
def test_no_texts_overlap_are_cut_off_or_too_small(config, lit):
    frame, texts, _ = painted(plot.architecture(config, lit))
    for number, (text, box) in enumerate(texts):
        assert text.get_fontsize() >= TEXT
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, text.get_text()
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, text.get_text()
        # a line's box leaves room for accents: a pixel or two of air is shared
        for other, its in texts[number + 1 :]:
            apart = box.padded(-1.5).overlaps(its.padded(-1.5))
            assert not apart, (text.get_text(), other.get_text())


@CONFIGS
def test_texts_stay_inside_their_boxes(config):
    ax = plot.architecture(config)
    _, texts, renderer = painted(ax)
    boxes = [patch.get_window_extent(renderer) for patch in ax.patches]
    for text, box in texts:
        center = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        around = [b for b in boxes if b.contains(*center)]
        if around:
            smallest = min(around, key=lambda b: b.width * b.height)
            assert smallest.x0 <= box.x0 <= box.x1 <= smallest.x1, text.get_text()


def test_the_alt_text_says_the_sizes_and_what_is_lit():
    alt = plot.architecture_alt(SMALL, "gqa")
    for part in ("151,936 × 896", "24 decoder layers", "14 query heads on 2 kv heads", "tied"):
        assert part in alt
    assert alt.endswith("In color: keys, values and the query heads that share them.")
    assert "lm_head" in plot.architecture_alt(LARGE)
    assert len({plot.architecture_alt(TOY, lit) for lit in PARTS}) == len(PARTS)
