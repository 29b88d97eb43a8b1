"""GPTQ: round a weight's columns one by one, and let the later ones make up for each error.

What counts is not how near each weight stays, but how near the layer's output x Wᵀ does (Frantar et
al. 2022, "GPTQ"). Where two inputs rise and fall together, what one weight lost by rounding another
weight can still add. How much each of the later columns has to add follows from H = Xᵀ X of the
inputs X: for a quadratic error the best update is exact (Hassibi and Stork 1993, "Optimal Brain
Surgeon").
"""

import torch
from jaxtyping import BFloat16, Float, UInt8
from torch import Tensor

from qwenkit.config import GROUP
from qwenkit.errors import InputError
from qwenkit.fast.int4 import check_group, pack, steps_of, to_steps

DAMPING = 0.1  # of the mean of H's diagonal, added to it: other texts have other inputs


@torch.no_grad()
def gptq(
    weight: Float[Tensor, "O I"],
    x: Float[Tensor, "N I"],
    group: int = GROUP,
    damping: float = DAMPING,
) -> tuple[UInt8[Tensor, "O I2"], BFloat16[Tensor, "O G"], UInt8[Tensor, "O G"]]:
    """Quantize a weight to int4 so that its products with x stay near.

    Each group gets its scale and zero point when its first column is reached, from the weights as
    they should be by then. All is computed in float32 on the CPU.

    Args:
        weight: (O, I) in any float dtype.
        x: (N, I), what the weight was multiplied by on some text.
        group: as of `quantize_groups`.
        damping: added to H's diagonal, relative to its mean.

    Returns:
        What `quantize_groups` returns; with a diagonal H, the very same.

    Raises:
        InputError: groups that do not fill the rows, or values of x that are not finite.
    """
    check_group(weight.shape[1], group)
    device, weight = weight.device, weight.detach().cpu().float()  # (O, I)
    pull = pulls(x.cpu().float(), damping)  # (I, I)
    errors, steps = torch.zeros_like(weight), torch.empty_like(weight)
    scales, zeros = [], []
    for start in range(0, weight.shape[1], group):
        own = slice(start, start + group)
        missing = pull[own, :start] @ errors[:, :start].t()  # (group, O)
        # What the group's columns would be if none of them were rounded.
        ideal = torch.linalg.solve_triangular(pull[own, own], missing, upper=False)  # (group, O)
        scale, zero = steps_of(weight[:, own] + ideal.t())  # 2 × (O)
        for i in range(start, start + group):
            wanted = weight[:, i] + missing[i - start]  # (O)
            wanted += errors[:, start:i] @ pull[i, start:i]
            steps[:, i] = to_steps(wanted, scale, zero)
            errors[:, i] = weight[:, i] - (steps[:, i] - zero) * scale
        scales.append(scale)
        zeros.append(zero)
    packed = pack(steps.view(len(steps), -1, group))  # (O, I/2)
    scale, zero = torch.stack(scales, 1).bfloat16(), torch.stack(zeros, 1).to(torch.uint8)
    return packed.to(device), scale.to(device), zero.to(device)


def pulls(x: Float[Tensor, "N I"], damping: float = DAMPING) -> Float[Tensor, "I I"]:
    """Return what column i should add for each error of an earlier column j, a triangle with 1s.

    The errors e of a row (what each weight lost) cost e H eᵀ. With H = Lᵀ L and a lower triangular
    L that is the sum over i of (L_ii e_i + the sum over j < i of L_ij e_j)². Rounded in order,
    column i can make its own term 0: it adds L_ij / L_ii times each earlier e_j. These are the
    updates of algorithm 1 of the paper, without H⁻¹ (Chen et al. 2025, "The Geometry of LLM
    Quantization").

    Args:
        x: (N, I), what the weight is multiplied by.
        damping: added to H's diagonal, relative to its mean.

    Raises:
        InputError: values of x that are not finite.
    """
    hessian = x.t() @ x  # (I, I)
    mean = hessian.diagonal().mean()
    if not mean.isfinite():
        raise InputError("the activations are not finite; take another text to calibrate on")
    hessian /= mean.clamp(min=torch.finfo(torch.float32).tiny)  # so that float32 has room
    failed = torch.tensor(1)
    while failed:  # float32 may not tell the smallest directions from 0: then more damping
        damped = hessian + damping * torch.eye(len(hessian))
        # H = Lᵀ L is Cholesky's algorithm from the last row and column instead of the first.
        flipped, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
        damping = max(10 * damping, 1e-6)
    lower: Tensor = flipped.flip(0, 1).t()  # L (I, I)
    return lower / lower.diagonal()[:, None]
