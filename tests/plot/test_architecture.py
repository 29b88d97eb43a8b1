"""The drawing of the whole model: its numbers, its colours, and no words in each other's way."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from fixtures_toy import small_config
from matplotlib.colors import to_hex

from qwenkit import plot
from qwenkit.config import QwenConfig
from qwenkit.errors import InputError
from qwenkit.plot.architecture import PARTS
from qwenkit.plot.pen import COLOURS, GREY

TOY = QwenConfig(1088, 64, 176, 2, 4, 2, tie_word_embeddings=True)
SMALL = QwenConfig(151_936, 896, 4864, 24, 14, 2, tie_word_embeddings=True)
LARGE = QwenConfig(152_064, 3584, 18_944, 28, 28, 4)
CONFIGS = {
    "toy": TOY,
    "0.5B": SMALL,
    "7B": LARGE,
    "32B": QwenConfig(152_064, 5120, 27_648, 64, 40, 8),
}
TEXT_COLOURS = {text for _, _, text in COLOURS.values()}


def words(ax):
    return {text.get_text() for text in ax.texts if text.get_text()}


def of_part(ax, part):
    return [text for text in ax.texts if text.get_gid() == part]


@pytest.mark.parametrize("lit", [None, *PARTS])
def test_each_part_is_lit_and_the_rest_is_grey(lit):
    ax = plot.architecture(LARGE, lit)
    lit_parts = {text.get_gid() for text in ax.texts} if lit is None else PARTS[lit]
    for text in ax.texts:
        part = text.get_gid()
        if part in (None, "sizes", "layer"):  # arrows, the legend and the frame's title
            continue
        colour = to_hex(text.get_color())
        assert (colour in TEXT_COLOURS) == (part in lit_parts), text.get_text()
        assert (colour == GREY[2]) == (part not in lit_parts), text.get_text()


def test_a_tied_head_is_not_lit_as_part_of_the_checkpoint():
    for config, expected in ((SMALL, GREY[2]), (LARGE, COLOURS["tokens"][2])):
        head = of_part(plot.architecture(config, "checkpoint"), "head")
        assert {to_hex(text.get_color()) for text in head} == {expected}


def test_every_part_that_can_be_lit_is_drawn():
    drawn = {text.get_gid() for text in plot.architecture(TOY).texts}
    assert set().union(*PARTS.values()) <= drawn


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            SMALL,
            {"151,936 × 896", "896 → 128 + bias", "896 → 896 + bias", "896 → 4,864", "4,864 → 896",
             "decoder layer × 24", "14 query heads", "share 2 kv heads", "softmax(q·k / √64) · v",
             "embed_tokens again", "(B, T, 151,936)", "residual stream (B, T, 896)"},
        ),
        (
            LARGE,
            {"152,064 × 3,584", "3,584 → 512 + bias", "3,584 → 18,944", "lm_head",
             "own head, 3,584 → 152,064", "Qwen2 model · 7,615,616,512 parameters"},
        ),
    ],
)  # fmt: skip
def test_the_numbers_of_the_config_stand_in_it(config, expected):
    assert expected <= words(plot.architecture(config))


def test_an_explicit_head_dim_widens_the_projections():
    ax = plot.architecture(small_config(head_dim=6))
    assert {"4 → 12 + bias", "4 → 6 + bias", "12 → 4"} <= words(ax)


def test_lora_is_named_where_it_is_added_and_only_when_lit():
    ax = plot.architecture(TOY, "lora")
    assert [len([t for t in of_part(ax, p) if "LoRA" in t.get_text()]) for p in "qkv"] == [1, 0, 1]
    assert not any("LoRA" in word for word in words(plot.architecture(TOY)))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lit", [None, "lora"])
def test_no_words_overlap_are_cut_off_or_too_small(name, lit):
    ax = plot.architecture(CONFIGS[name], lit)
    renderer = ax.figure.canvas.get_renderer()
    ax.figure.draw(renderer)
    frame = ax.get_window_extent(renderer)
    texts = [text for text in ax.texts if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    for number, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        assert text.get_fontsize() >= 8
        assert frame.x0 <= box.x0, text.get_text()
        assert box.x1 <= frame.x1, text.get_text()
        assert frame.y0 <= box.y0, text.get_text()
        assert box.y1 <= frame.y1, text.get_text()
        # a line's box leaves room for accents: a pixel or two of air is shared
        others = zip(texts[number + 1 :], boxes[number + 1 :], strict=True)
        for other, its in others:
            apart = box.padded(-1.5).overlaps(its.padded(-1.5))
            assert not apart, (text.get_text(), other.get_text())


@pytest.mark.parametrize("name", CONFIGS)
def test_words_stay_inside_their_boxes(name):
    ax = plot.architecture(CONFIGS[name])
    renderer = ax.figure.canvas.get_renderer()
    ax.figure.draw(renderer)
    boxes = [patch.get_window_extent(renderer) for patch in ax.patches]
    for text in ax.texts:
        box = text.get_window_extent(renderer)
        centre = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        around = [b for b in boxes if b.contains(*centre)]
        if text.get_text() and around:
            smallest = min(around, key=lambda b: b.width * b.height)
            assert smallest.x0 <= box.x0, text.get_text()
            assert box.x1 <= smallest.x1, text.get_text()


def test_it_draws_into_the_axes_it_is_given_and_returns_them():
    _, ax = plt.subplots()
    assert plot.architecture(TOY, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_global_settings_stay_as_they_are():
    before = mpl.rcParams.copy()
    plot.architecture(TOY, "mlp")
    assert mpl.rcParams == before


@pytest.mark.parametrize("function", [plot.architecture, plot.architecture_alt])
def test_an_unknown_part_is_refused_and_the_known_ones_listed(function):
    with pytest.raises(InputError, match=r"lit is 'atention'.*checkpoint, tokens, .*, lora"):
        function(TOY, "atention")
    assert plt.get_fignums() == []


def test_the_alt_text_says_the_sizes_and_what_is_lit():
    alt = plot.architecture_alt(SMALL, "gqa")
    for part in ("151,936 × 896", "24 decoder layers", "14 query heads on 2 kv heads", "tied"):
        assert part in alt
    assert alt.endswith("In colour: keys, values and the query heads that share them.")
    assert "lm_head" in plot.architecture_alt(LARGE)
    assert len({plot.architecture_alt(TOY, lit) for lit in PARTS}) == len(PARTS)
