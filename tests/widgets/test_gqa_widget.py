"""GQAExplorer: which heads share is what the model repeats, and the bytes are the config's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_toy import published, small_config

import qwenkit as qk
from qwenkit.model import repeat_kv
from qwenkit.pretrained import EMBEDDED
from qwenkit.widgets.gqa import LARGEST, OWN, PRESETS, GQAExplorer, GQAView, divisors


@pytest.mark.parametrize("name", ["tiny-coder", "0.5B", "1.5B", "3B", "7B", "14B", "32B"])
def test_presets_are_the_published_models_and_the_smallest_of_them_comes_first(name):
    config = qk.QwenConfig.from_file(EMBEDDED) if name == "tiny-coder" else published(name)
    view = GQAExplorer(config).view
    assert view.preset() == name
    assert view.token_bytes() == config.kv_bytes_per_token()
    assert view.tokens == config.max_position_embeddings == PRESETS[name][1]
    first = GQAExplorer().view
    assert (first.preset(), first.token_bytes()) == ("0.5B", 12_288)


def test_another_config_becomes_a_preset_of_its_own():
    config = small_config(
        num_attention_heads=96, num_key_value_heads=3, head_dim=6, num_hidden_layers=2,
        max_position_embeddings=500, dtype="float32",
    )  # fmt: skip
    view = GQAExplorer(config).view
    assert view.preset() == "your config"
    assert view.state() == {
        "heads": 96, "kv_heads": 3, "head_dim": 6, "layers": 2, "tokens": 500, "value_bytes": 4,
        "head": 0,
    }  # fmt: skip
    assert view.token_bytes() == config.kv_bytes_per_token()
    assert view.most()["heads"] == 96  # beyond the usual end of the slider
    assert view.most()["layers"] == LARGEST["layers"]
    assert "your config" not in GQAExplorer().view.presets
    view = GQAExplorer(replace(published("7B"), max_position_embeddings=1_010_000)).view
    assert (view.tokens, view.preset()) == (1_010_000, "your config")


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 6), (6, 3), (6, 2), (6, 1), (1, 1)])
def test_a_query_head_uses_the_kv_head_that_the_model_gives_it(heads, kv_heads):
    view = GQAView()
    view.choose(heads=heads, kv_heads=kv_heads)
    numbers = torch.arange(float(kv_heads))[None, :, None, None]
    given = repeat_kv(numbers, heads // kv_heads).flatten().tolist()
    assert view.matrix().shape == (heads, kv_heads)
    assert view.matrix().argmax(axis=1).tolist() == given
    for head in range(heads):
        view.choose(head=head)
        assert view.kv_head() == given[head]
        assert view.group() == [i for i in range(heads) if given[i] == given[head]]


def test_bytes_are_compared_with_mha_and_mqa_and_texts_name_the_kind_and_the_group():
    view = GQAView(head=13)
    view.choose(layers=25)
    assert view.preset() == OWN
    view.choose(heads=4)
    assert view.head == 3
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    view.choose(heads=8, kv_heads=2, head_dim=4, layers=3, tokens=10, value_bytes=1)
    assert view.compared() == {"MHA": 8, "chosen": 2, "MQA": 1}
    assert [view.token_bytes(kept) for kept in (8, 2, 1)] == [192, 48, 24]
    words = "MHA (8 kv heads) 1.92 kB, chosen (2 kv heads) 480 B, MQA (1 kv head) 240 B"
    assert words in view.alt()
    for kv_heads, title, alt in (
        (8, "8 query heads, 8 kv heads (MHA)", "each query head has a kv head of its own"),
        (2, "8 query heads, 2 kv heads (GQA)", "q5, uses k1 and v1, as do all from q4 to q7"),
        (1, "8 query heads, 1 kv head (MQA)", "8 query heads share each kv head"),
    ):
        view.choose(kv_heads=kv_heads, head=5)
        assert view.title().startswith(title)
        assert alt in view.alt()


@pytest.mark.parametrize("kv_heads", [1, 5, 40])
def test_the_snapshot_draws_every_line_and_the_bytes(kv_heads):
    widget = GQAExplorer()
    widget.choose(heads=40, kv_heads=kv_heads, head=39)
    above, below = widget.snapshot().axes
    ends = np.array([line.get_xdata() for line in above.get_lines()])
    want = (widget.view.matrix().argmax(axis=1) + 0.5) * (40 // kv_heads)
    np.testing.assert_allclose(ends[:, 1], want)
    thick = [line.get_linewidth() for line in above.get_lines()]
    assert thick == [1.5] * 39 + [3.5]
    widths = [bar.get_width() for bar in below.patches]
    view = widget.view
    assert widths == [view.token_bytes(kept) * view.tokens for kept in (40, kv_heads, 1)]


def test_the_page_holds_its_state(tmp_path):
    config = replace(qk.QwenConfig.from_file(EMBEDDED), num_hidden_layers=7)
    widget = GQAExplorer(config)
    widget.state = widget.state | {"kv_heads": 4}
    assert widget.view.kv_heads == 4
    assert '"kv_heads": 4' in widget.to_html(tmp_path / "page.html").read_text()
    assert repr(widget).startswith("GQAExplorer: 8 query heads, 4 kv heads (GQA)")
