"""What does not fit is refused with a clear error; what is given as axes is drawn on."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import TOKENS, causal, names
from fixtures_toy import small_config

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.model import causal_mask

ONE, MANY = np.ones, {str(i): [1] for i in range(33)}
CONFIG = small_config()


@pytest.mark.parametrize(("function", "arguments", "settings", "words"), [
    (plot.attention, (ONE((2, 3, 3)), TOKENS), {}, "it must be"),
    (plot.attention, (causal(6), TOKENS[:5]), {}, "6 × 6 and there are 5 tokens"),
    (plot.attention, (ONE((4, 3)), TOKENS[:3]), {}, "no more rows"),
    (plot.attention, (ONE((0, 3)), TOKENS[:3]), {}, "pattern has shape"),
    (plot.attention, (np.full((2, 2), np.nan), TOKENS[:2]), {}, "holds NaN"),
    (plot.attention_heads, (causal(3),), {}, "it must be"),
    (plot.attention_heads_alt, (causal(3),), {}, "it must be"),
    (plot.attention_heads, (causal(3)[None],), {"names": ["a", "b"]}, "1 heads and 2 names"),
    (plot.mask, (ONE((4, 3)),), {}, "4 × 3; it must have a column for"),
    (plot.mask, (causal_mask(6), TOKENS[:5]), {}, "there are 5 tokens"),
    (plot.mask, ([[0.5]],), {}, "other values than true and false"),
    (plot.mask, ([True, False],), {}, r"it must be \(T, S\)"),
    (plot.qk_distance, ([],), {}, r"shape \(0,\)"),
    (plot.qk_distance, (ONE((2, 3, 3)),), {}, r"\(S\) or \(T, S\)"),
    (plot.qk_distance, (ONE((4, 3)),), {}, "a key for each query"),
    (plot.qk_distance, ([1, -np.inf],), {}, "holds NaN or infinity"),
    (plot.rope_tables, (ONE((9, 4)), ONE((5, 4))), {}, r"both must be \(T, D\)"),
    (plot.gqa_sharing, (6, 4), {}, "the first must be a multiple of the last"),
    (plot.gqa_sharing, (2, 4), {}, "the first must be a multiple of the last"),
    (plot.gqa_sharing, (4, 0), {}, "the first must be a multiple of the last"),
    (plot.kv_repetition, (ONE((2, 3)), 2), {}, r"k has shape \(2, 3\); it must be \(KV, S, D\)"),
    (plot.sampling, ({}, names), {}, "the stages have no logits"),
    (plot.sampling, ({"a": [1.0], "b": [1.0, 2]}, names), {}, r"the stages have \[1, 2\] logits"),
    (plot.sampling, ({"a": [-np.inf]}, names), {}, "a has -inf as its largest"),
    (plot.sampling, ({"a": [1.0]}, names), {"most": 0}, "most is 0"),
    (plot.sampling, ({"a": [np.nan]}, names), {}, "a holds NaN"),
    (plot.cache_growth, ({},), {}, "configs is empty"),
    (plot.cache_growth, (CONFIG,), {"tokens": 0}, "tokens is 0"),
    (plot.cache_growth, (CONFIG,), {"dtype": "int4"}, "dtype is 'int4'; it must be one"),
    (plot.lora_spectra, (ONE((2, 2, 2)), [1.0]), {},
     r"update has shape \(2, 2, 2\); it must be \(out, in\) or \(N\)"),
    (plot.residual_norms, ([[1.0, 2.0]],), {}, "a row for each layer"),
    (plot.residual_norms, ([1.0, 2.0],), {}, "stream has shape"),
    (plot.residual_norms, ([[1.0, 2], [2, 3]],), {"mlp": [[1.0, 2], [2, 3]]},
     r"what the MLP adds have shape \(2, 2\).* it must be \(1, 2\)"),
    (plot.logit_lens, ([[0.5, 0.5]], [["a"]], ["x", "y"]), {}, "a guess for each probability"),
    (plot.logit_lens, ([[0.5]], [["a"]], ["x", "y"]), {}, "and 2 tokens"),
    (plot.logit_lens, ([[-3.0]], [["a"]], ["x"]), {},
     "go from -3 to -3; they must be between 0 and 1"),
    (plot.training_curve, ({},), {}, "one loss for each step"),
    (plot.training_curve, ({"step": [], "loss": []},), {}, "one loss for each step"),
    (plot.training_curve, ({"step": [1.0], "loss": []},), {}, "one loss for each step"),
    (plot.value_histograms, ({},), {}, "there are 0 tensors; draw from 1 to 32"),
    (plot.value_histograms, (MANY,), {}, "there are 33"),
    (plot.value_histograms, ({"w": [np.nan]},), {}, "w holds NaN or infinity"),
    (plot.value_histograms, ({"w": []},), {}, r"w has shape \(0,\)"),
    (plot.outlier_channels, ({},), {}, "activations is empty"),
    (plot.outlier_channels, ({"a": ONE((2, 3)), "b": ONE((2, 4))},), {},
     r"widths differ \(a 3, b 4\); draw them in separate figures"),
    (plot.outlier_channels, ({"a": ONE((1, 2, 3))},), {}, r"must be \(N, C\)"),
    (plot.show, (None, ""), {}, "it must be a text"), (plot.show, (None, " "), {}, "be a text"),
    (plot.show, (None, None), {}, "it must be a text"),
    (plot.architecture, (CONFIG, "atention"), {},
     "lit is 'atention'.*checkpoint, tokens, .*, lora"),
    (plot.architecture_alt, (CONFIG, "atention"), {},
     "lit is 'atention'.*checkpoint, tokens, .*, lora"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(function, arguments, settings, words):
    with pytest.raises(InputError, match=words):
        function(*arguments, **settings)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("function", "arguments"), [
    (plot.architecture, (CONFIG,)), (plot.attention, (causal(6), TOKENS)),
    (plot.cache_growth, (CONFIG,)), (plot.gqa_sharing, (4, 2)),
    (plot.logit_lens, ([[0.5]], [["a"]], ["x"])),
    (plot.lora_spectra, ([1.0], [2.0])), (plot.mask, (causal_mask(4),)),
    (plot.outlier_channels, ({"x": np.ones((4, 6))},)), (plot.qk_distance, ([1.0, 2],)),
    (plot.residual_norms, ([[1.0, 2], [2, 3]],)), (plot.rope_pair, ((1, 0), 0.5)),
    (plot.rope_wavelengths, ([1.0, 0.1],)),
    (plot.training_curve, ({"step": [1.0], "loss": [2.0]},)),
])  # fmt: skip
def test_what_is_given_as_axes_is_drawn_on(function, arguments):
    _, ax = plt.subplots()
    assert function(*arguments, ax=ax) is ax
    assert len(plt.get_fignums()) == 1
