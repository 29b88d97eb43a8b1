"""What notebook 17 and its checks compute by hand is what PyTorch and the package do."""

import random

import pytest
import torch

import qwenkit as qk
from qwenkit.checks._precision_int4 import Int4
from qwenkit.checks._samples import HALF_B, SEVEN_B
from qwenkit.checks.precision import _grouped, _nearest_even
from qwenkit.fast import dequantize, quantize_groups, quantize_rows


def test_the_rounding_of_the_exercise_is_that_of_torch():
    rng = random.Random(0)
    bits = [rng.getrandbits(32) for _ in range(20_000)]
    bits += [rng.getrandbits(16) << 16 | 0x8000 for _ in range(2_000)]  # in the middle
    bits = [one for one in bits if (one >> 23) & 0xFF != 0xFF]  # neither infinite nor not a number
    signed = torch.tensor(bits).to(torch.int32)  # as two's complement
    wanted = signed.view(torch.float32).bfloat16().view(torch.int16)
    assert [_nearest_even(one) for one in bits] == [one & 0xFFFF for one in wanted.tolist()]


@pytest.mark.parametrize("group", [8, 32])
def test_the_int8_of_the_exercise_is_that_of_the_package(group):
    """With scales that bfloat16 has: the package rounds them, the exercise does not."""
    steps = torch.randint(-127, 128, (5, 32), generator=torch.Generator().manual_seed(0))
    steps[:, ::group] = -127
    weight = (steps + 0.3 * (steps.abs() < 127)) * 2.0**-6
    small, scale = _grouped()(weight, group)
    stored, stored_scale = quantize_rows(weight, group)
    assert torch.equal(small, stored)
    assert torch.equal(scale, stored_scale.float())
    assert torch.equal(small.int(), steps.int())


@pytest.mark.parametrize("group", [8, 16])
def test_the_int4_of_the_exercise_is_that_of_the_package(group):
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(0, 16, (6, 32), generator=generator).unflatten(1, (-1, group))
    steps[..., 0], steps[..., 3] = 0, 15
    zero = torch.randint(0, 16, steps.shape[:2], generator=generator)
    weight = ((steps - zero[..., None]) * 2.0**-5).flatten(1)
    made, (packed, scale, point) = Int4(weight, group), quantize_groups(weight, group)
    assert torch.equal(made.packed, packed)
    assert torch.equal(made.scale, scale.float())
    assert torch.equal(made.zero, point)
    assert torch.equal(made.zero.long(), zero)
    assert torch.equal(made.restore(), dequantize(packed, scale, point))
    assert torch.equal(made.restore(), weight)


def test_the_bits_per_weight_of_the_text_are_those_of_the_forecast():
    """4 bits, and 16 + 8 per group of 64; a tied embedding has 8, and 16 per row.

    Norms and biases, in bfloat16, are less than a thousandth.
    """
    assert 4 + (16 + 8) / 64 == 4.375
    by_hand = SEVEN_B.num_parameters * 4.375 / 8
    assert qk.forecast(SEVEN_B, "int4").weights == pytest.approx(by_hand, rel=1e-3)
    table = HALF_B.vocab_size * HALF_B.hidden_size
    by_hand = table + 2 * HALF_B.vocab_size + (HALF_B.num_parameters - table) * 4.375 / 8
    assert qk.forecast(HALF_B, "int4").weights == pytest.approx(by_hand, rel=1e-3)
