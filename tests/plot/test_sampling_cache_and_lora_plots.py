"""What sampling keeps, what the cache takes, and what LoRA adds: drawn from the package's own."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fixtures_toy import small_config

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.generate.sampling import Sampling
from qwenkit.plot.cache import size

CONFIG = small_config(
    hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3,
    max_position_embeddings=100,
)  # fmt: skip


# --- sampling ---


def stages(size=50, **settings):
    """Return a model's logits and what each setting makes of them."""
    logits = torch.randn(size) * 3
    rules = Sampling(**settings)
    return {"logits": logits, **rules.transforms(logits, torch.tensor([], dtype=torch.int64))}


def names(numbers):
    return [f"<{number}>" for number in numbers]


def test_each_stage_shows_the_probabilities_that_sampling_draws_from():
    drawn = stages(temperature=0.7, top_k=8, top_p=0.9)
    figure = plot.sampling(drawn, names, most=10)
    order = drawn["logits"].argsort(descending=True)[:10]
    assert len(figure.axes) == 4
    for ax, logits in zip(figure.axes, drawn.values(), strict=True):
        bars = [bar.get_width() for bar in ax.patches]
        np.testing.assert_allclose(bars, logits.softmax(-1)[order], atol=1e-6)
    written = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert written == names(order.tolist())


def test_what_is_dropped_is_crossed_out():
    drawn = stages(temperature=1.0, top_k=3)
    figure = plot.sampling(drawn, names, most=5)
    before, after = figure.axes
    assert before.get_lines()[0].get_ydata().tolist() == []
    assert after.get_lines()[0].get_ydata().tolist() == [3, 4]
    assert after.get_title() == "top_k\n3 of 50 tokens"
    assert before.get_title() == "logits\nall 50 tokens"
    share = 1 - drawn["logits"].softmax(-1).topk(5).values.sum().item()
    assert before.get_xlabel() == f"probability\n45 others: {share:.1%}"
    assert after.get_xlabel() == "probability\nno others"


def test_the_alt_text_counts_what_is_kept():
    drawn = stages(temperature=0.5, top_k=4)
    words = plot.sampling_alt(drawn, names)
    best = drawn["logits"].argmax().item()
    share = (drawn["logits"] / 0.5).topk(4).values.softmax(-1)[0].item()
    assert f'top_k: 4 of 50 tokens, the likeliest is "<{best}>" ({share:.0%})' in words
    assert "temperature: all 50 tokens" in words


def test_a_token_that_is_kept_with_almost_no_probability_is_not_called_dropped():
    words = plot.sampling_alt({"cold": [0.0, -2000.0, -np.inf]}, names)
    assert "cold: 2 of 3 tokens" in words


# --- cache ---


def test_one_config_is_drawn_beside_its_extremes():
    ax = plot.cache_growth(CONFIG, tokens=50, dtype="float32")
    ends = {
        line.get_label().partition(":")[0]: (line.get_xdata()[1], line.get_ydata()[1])
        for line in ax.get_lines()
    }
    # keys and values × 3 layers × kv heads × 4 numbers a head × 4 bytes × 50 tokens
    assert ends == {"MHA": (50, 19_200), "GQA": (50, 9_600), "MQA": (50, 4_800)}
    words = plot.cache_growth_alt(CONFIG, tokens=50, dtype="float32")
    assert "MHA 384 bytes a token, 19.2 kB" in words
    assert "The steepest rises 4 times as fast as the flattest." in words


def test_several_configs_reach_to_the_longest_context_each_in_its_dtype():
    long = replace(CONFIG, max_position_embeddings=1000, dtype="float32")
    ax = plot.cache_growth({"a": CONFIG, "b": long}, references={"memory": 5e4})
    one, other, line = ax.get_lines()
    assert list(one.get_xdata()) == list(other.get_xdata()) == [0, 1000]
    assert one.get_ydata()[1] == 1000 * CONFIG.kv_bytes_per_token("bfloat16")
    assert other.get_ydata()[1] == 1000 * CONFIG.kv_bytes_per_token("float32")
    assert list(line.get_ydata()) == [5e4, 5e4]
    assert [text.get_text() for text in ax.texts] == ["memory"]


def test_it_draws_on_given_axes():
    _, ax = plt.subplots()
    assert plot.cache_growth(CONFIG, ax=ax) is ax
    assert plot.lora_spectra([1.0], [2.0], ax=ax) is ax


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_600, "1 MB"),
        (12_288_000, "12.3 MB"),
        (2e10, "20 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_bytes_are_written_in_decimal_units(count, words):
    assert size(count) == words


# --- LoRA ---


def test_the_spectra_are_those_of_the_matrices():
    update = torch.randn(12, 2) @ torch.randn(2, 9)
    weight = torch.randn(12, 9)
    ax = plot.lora_spectra(update, weight)
    old, new, _ = ax.get_lines()
    np.testing.assert_allclose(old.get_ydata(), torch.linalg.svdvals(weight), rtol=1e-4)
    np.testing.assert_allclose(new.get_ydata(), torch.linalg.svdvals(update)[:2], rtol=1e-4)
    assert list(new.get_xdata()) == [1, 2]
    assert new.get_label() == "update, of rank 2"


def test_singular_values_may_be_given_themselves():
    words = plot.lora_spectra_alt([0.3, 0.4, 0.0], [3.0, 4.0])
    assert "The update has 2, from 0.4 to 0.3, then none" in words
    assert "the weight has 2, from 4 to 3" in words
    assert "the update is 10.0% as large as the weight" in words


def test_a_fresh_update_is_zero():
    ax = plot.lora_spectra(torch.zeros(4, 3), torch.eye(4, 3))
    assert ax.get_lines()[1].get_ydata().tolist() == []
    words = plot.lora_spectra_alt(torch.zeros(4, 3), torch.eye(4, 3))
    assert words == "The update is 0; the weight's largest singular value is 1."


BAD = {
    "no stages": (lambda: plot.sampling({}, names), "the stages have no logits"),
    "other lengths": (
        lambda: plot.sampling({"a": [1.0], "b": [1.0, 2]}, names),
        r"the stages have \[1, 2\] logits",
    ),
    "all dropped": (lambda: plot.sampling({"a": [-np.inf]}, names), "a has -inf as its largest"),
    "none drawn": (lambda: plot.sampling({"a": [1.0]}, names, most=0), "most is 0"),
    "nan": (lambda: plot.sampling({"a": [np.nan]}, names), "a holds NaN"),
    "no configs": (lambda: plot.cache_growth({}), "configs is empty"),
    "no tokens": (lambda: plot.cache_growth(CONFIG, tokens=0), "tokens is 0"),
    "int4": (lambda: plot.cache_growth(CONFIG, dtype="int4"), "dtype is 'int4'; it must be one"),
    "three dimensions": (
        lambda: plot.lora_spectra(np.ones((2, 2, 2)), [1.0]),
        r"update has shape \(2, 2, 2\); it must be \(out, in\) or \(N\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()
