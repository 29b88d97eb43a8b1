"""GPTQ: round a weight's columns one by one, and let the later ones make up for each error.

What counts is not how near each weight stays, but how near the layer's output x Wᵀ does (Frantar et
al. 2022, "GPTQ"). Where two inputs rise and fall together, what one weight lost by rounding another
weight can still add. How much each of the later columns has to change follows from H = Xᵀ X of the
inputs X: for a quadratic error the best update is exact (Hassibi and Stork 1993, "Optimal Brain
Surgeon").
"""

import torch
from jaxtyping import BFloat16, Float, UInt8
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.fast.int4 import GROUP, check_group, pack, steps_of, to_steps

DAMPING = 0.01  # of the mean of H's diagonal, added to it: inputs that were never seen may occur


@torch.no_grad()
def gptq(
    weight: Float[Tensor, "O I"],
    x: Float[Tensor, "N I"],
    group: int = GROUP,
    damping: float = DAMPING,
) -> tuple[UInt8[Tensor, "O I2"], BFloat16[Tensor, "O G"], UInt8[Tensor, "O G"]]:
    """Quantize a weight to int4 so that its products with x stay near (algorithm 1 of the paper).

    Each group gets its scale and zero point when its first column is reached, from the weights as
    they have become by then. All is computed in float32 on the CPU.

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
    device, left = weight.device, weight.detach().cpu().float().clone()  # (O, I)
    factor = inverse_factor(x.cpu().float(), damping)  # (I, I)
    steps, scales, zeros = torch.empty_like(left), [], []
    for start in range(0, left.shape[1], group):
        end = start + group
        columns = left[:, start:end]  # (O, group), a view: updates are made in place
        scale, zero = steps_of(columns)  # 2 × (O)
        errors = torch.empty_like(columns)
        for i in range(group):
            row = factor[start + i, start:end]  # (group)
            step = to_steps(columns[:, i], scale, zero)  # (O)
            errors[:, i] = (columns[:, i] - (step - zero) * scale) / row[i]
            columns[:, i + 1 :] -= errors[:, i, None] * row[i + 1 :]
            steps[:, start + i] = step
        left[:, end:] -= errors @ factor[start:end, end:]  # the other groups, once per group
        scales.append(scale)
        zeros.append(zero)
    packed = pack(steps.view(len(left), -1, group))  # (O, I/2)
    scale, zero = torch.stack(scales, 1).bfloat16(), torch.stack(zeros, 1).to(torch.uint8)
    return packed.to(device), scale.to(device), zero.to(device)


def inverse_factor(x: Float[Tensor, "N I"], damping: float = DAMPING) -> Float[Tensor, "I I"]:
    """Return the upper triangular U with UᵀU = H⁻¹, where H = Xᵀ X, damped.

    Row i of U tells what an error of column i asks of the later columns, once all before it are
    fixed. H = R Rᵀ with an upper triangular R makes U = R⁻¹: Cholesky's algorithm, which starts
    from the last row and column instead of the first. So H itself is never inverted.

    Raises:
        InputError: values of x that are not finite.
    """
    hessian = x.t() @ x  # (I, I)
    mean = hessian.diagonal().mean()
    if not mean.isfinite():
        raise InputError("the activations are not finite; take another text to calibrate on")
    hessian /= mean.clamp(min=torch.finfo(torch.float32).tiny)  # so that float32 has room
    hessian.diagonal().add_(damping)
    lower, failed = torch.linalg.cholesky_ex(hessian.flip(0, 1))
    if failed:  # float32 could not tell the smallest directions from 0
        return inverse_factor(x, 10 * damping)
    upper = lower.flip(0, 1)  # R (I, I)
    factor: Tensor = torch.linalg.solve_triangular(upper, torch.eye(len(upper)), upper=True)
    return factor
