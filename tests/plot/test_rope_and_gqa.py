"""Pictures of RoPE and of shared kv heads draw the numbers of the model's own functions."""

import numpy as np
import pytest
import torch
from reference import pair

from qwenkit import plot
from qwenkit.errors import InputError
from qwenkit.model import apply_rope, inverse_frequencies, repeat_kv

CONFIG = pair()[1].config


def test_the_tables_are_drawn_as_they_are():
    cos, sin = pair()[1].model.rotary_emb(torch.arange(20)[None])
    figure = plot.rope_tables(cos[0], sin[0])
    drawn = [ax.get_images()[0].get_array() for ax in figure.axes[:2]]
    assert np.array_equal(drawn[0], cos[0].numpy())
    assert np.array_equal(drawn[1], sin[0].numpy())
    assert "20 positions and 8 dimensions" in plot.rope_tables_alt(cos[0])
    with pytest.raises(InputError, match=r"both must be \(T, D\)"):
        plot.rope_tables(cos[0], sin[0, :5])


def test_wavelengths_are_full_turns():
    frequencies = inverse_frequencies(CONFIG)
    ax = plot.rope_wavelengths(frequencies, context=100)
    lengths = ax.get_lines()[0].get_ydata()
    # After that many positions every pair is where it began.
    np.testing.assert_allclose(np.cos(lengths * frequencies.numpy()), 1, atol=1e-5)
    words = plot.rope_wavelengths_alt(frequencies, 100)
    slow = sum(length > 100 for length in lengths)
    assert f"{slow} of them make no full turn within 100 positions" in words


def test_a_pair_is_turned_as_the_model_turns_it():
    frequency = 0.7
    vector = torch.tensor([0.6, -0.8])
    ax = plot.rope_pair(vector, frequency, range(5))
    ends = [(line.get_xdata()[1], line.get_ydata()[1]) for line in ax.get_lines()]
    angle = torch.arange(5.0) * frequency
    cos, sin = (f(angle)[None, :, None].expand(1, 5, 2) for f in (torch.cos, torch.sin))
    want = apply_rope(vector.expand(1, 1, 5, 2), cos, sin)[0, 0]
    np.testing.assert_allclose(ends, want, atol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3", "4"]
    assert "40.1 degrees" in plot.rope_pair_alt(frequency)


def test_the_lines_join_each_query_head_to_the_kv_head_that_it_reads():
    ax = plot.gqa_sharing(6, 2)
    lines = [line.get_xdata() for line in ax.get_lines()]
    places = {text.get_text(): text.get_position() for text in ax.texts}
    for head, (start, end) in enumerate(lines):
        assert places[f"q{head}"] == (start, 1)
        assert places[f"k{head // 3}, v{head // 3}"] == (end, 0)
    assert "q0 to q2 read k0 and v0, q3 to q5 read k1 and v1" in plot.gqa_sharing_alt(6, 2)
    assert "a kv head of its own" in plot.gqa_sharing_alt(4, 4)


def test_repetition_draws_what_repeat_kv_gives():
    k = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    figure = plot.kv_repetition(k[0], 3)
    below = [ax.get_images()[0].get_array() for ax in figure.axes[6:]]
    assert np.array_equal(np.stack(below), repeat_kv(k, 3)[0].numpy())
    above = [ax for ax in figure.axes[:6] if ax.get_images()]
    assert [ax.get_title() for ax in above] == ["k0", "k1"]
    assert "a cache 3 times smaller" in plot.kv_repetition_alt(k[0], 3)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 4), (2, 4), (4, 0)])
def test_heads_that_do_not_divide_are_refused(heads, kv_heads):
    with pytest.raises(InputError, match="the first must be a multiple of the last"):
        plot.gqa_sharing(heads, kv_heads)
