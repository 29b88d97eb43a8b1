"""RoPE: rotate queries and keys by an angle that grows with their position.

Dimension i and dimension i + D/2 of a head form a pair, a point in a plane. At position p, pair i
is rotated by p × theta^(-2i/D): the first pairs rotate fast, the last ones hardly at all. The dot
product of a rotated query and a rotated key depends on the distance of their positions alone.

Source: Su et al. 2021, "RoFormer", section 3.2; the pairing by halves is that of GPT-NeoX.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qwenkit.config import LinearScaling, QwenConfig, RopeScaling, YarnScaling


def inverse_frequencies(config: QwenConfig) -> Float[Tensor, " half"]:
    """Return the angle, in radians per position, by which each pair rotates: float32, on the CPU.

    Args:
        config: gives head_dim, rope_theta and, for long contexts, rope_scaling.
    """
    pair = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu")  # 2i
    frequencies = 1.0 / config.rope_theta ** (pair / config.head_dim)
    if isinstance(config.rope_scaling, YarnScaling):
        return _yarn(frequencies, config.rope_scaling, config.rope_theta)
    if isinstance(config.rope_scaling, LinearScaling):
        return frequencies / config.rope_scaling.factor
    return frequencies


def _yarn(
    frequencies: Float[Tensor, " half"], scaling: YarnScaling, theta: float
) -> Float[Tensor, " half"]:
    """Slow down the slow pairs, keep the fast ones, interpolate between (YaRN, section 3.2)."""
    head_dim = 2 * frequencies.numel()

    def pair_that_rotates(times: float) -> float:
        """Which pair makes `times` rotations over the trained context (solved for i)."""
        context = scaling.original_max_position_embeddings
        return head_dim * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_rotates(scaling.beta_fast), pair_that_rotates(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = (last - first) or 0.001  # an empty ramp is a step, not a division by zero
    pair = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    slowed = ((pair - first) / width).clamp(0, 1)  # 0: keep the frequency, 1: divide it by factor
    return frequencies / scaling.factor * slowed + frequencies * (1 - slowed)


def attention_factor(scaling: RopeScaling | None) -> float:
    """Return the factor of cos and sin: 1 but for YaRN (section 3.4, equation 22)."""
    if not isinstance(scaling, YarnScaling):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    growth = 0.1 * math.log(scaling.factor)
    if scaling.mscale is None or scaling.mscale_all_dim is None:
        return growth + 1.0
    return (growth * scaling.mscale + 1.0) / (growth * scaling.mscale_all_dim + 1.0)


class RotaryEmbedding(nn.Module):
    """The cos and sin tables that `apply_rope` rotates queries and keys with.

    It has no parameter and no buffer: `model.to(torch.bfloat16)` must not round the frequencies,
    nor `torch.device("meta")` swallow them.
    """

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = attention_factor(config.rope_scaling)
        self._frequencies = inverse_frequencies(config)

    def frequencies(self, device: torch.device) -> Float[Tensor, " half"]:
        """Return the pairs' frequencies on `device`, moved there once."""
        if self._frequencies.device != device:
            self._frequencies = inverse_frequencies(self.config).to(device)
        return self._frequencies

    def forward(
        self, positions: Int[Tensor, "B T"], dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
        """Return cos and sin for each position and dimension.

        Args:
            positions: the position of each token in its text, counted from 0.
            dtype: of the result; the angles themselves are always computed in float32.
        """
        frequencies = self.frequencies(positions.device)
        angles = positions[..., None].float() * frequencies  # (B, T, D/2)
        angles = torch.cat([angles, angles], dim=-1)  # (B, T, D): the same for both of a pair
        return (angles.cos() * self.factor).to(dtype), (angles.sin() * self.factor).to(dtype)


def apply_rope(
    x: Float[Tensor, "B H T D"], cos: Float[Tensor, "#B T D"], sin: Float[Tensor, "#B T D"]
) -> Float[Tensor, "B H T D"]:
    """Rotate each pair (x[i], x[i + D/2]) of every head by its position's angle.

    (a, b) becomes (a cos - b sin, b cos + a sin), the rotation of the plane.
    """
    cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, D): the same angles for every head
    a, b = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
    return x * cos + torch.cat([-b, a], dim=-1) * sin
