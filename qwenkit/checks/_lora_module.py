"""Exercise 13.2, a LoRA module: built, looked at, and run, right and with common mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from qwenkit.checks._judge import Mistake
from qwenkit.checks._same import same
from qwenkit.checks._samples import normal

Scale = Callable[[float, Tensor, Tensor], float]  # of alpha, A (r, I) and B (O, r)
Forward = Callable[[nn.Linear, Tensor, Tensor, Tensor, float], Tensor]  # base, x, A, B, scale


def right_scale(alpha: float, a: Tensor, b: Tensor) -> float:
    """Return alpha / rank."""
    return alpha / len(a)


def right_forward(base: nn.Linear, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return the frozen layer's output plus the scaled update, in the output's dtype."""
    y: Tensor = base(x)
    return (y + scale * (x.float() @ a.T @ b.T)).to(y.dtype)


class LoRAModule(nn.Module):
    """A LoRA module; the arguments after alpha are what can go wrong in it.

    Args:
        base: the linear layer.
        rank: rows of A, columns of B.
        alpha: the strength.
        scale: of the update.
        run: the forward.
        starts: how A and B begin, "random" or "zero".
        frozen: whether the base is.
        trained: whether A and B are parameters.
        dtype: of A and B; None: the base's.
        stored: what is done with A and B before they are stored.
    """

    A: Tensor
    B: Tensor

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        scale: Scale = right_scale,
        run: Forward = right_forward,
        starts: tuple[str, str] = ("random", "zero"),
        frozen: bool = True,
        trained: bool = True,
        dtype: torch.dtype | None = torch.float32,
        stored: Callable[[Tensor], Tensor] = lambda one: one,
    ) -> None:
        super().__init__()
        self.base, self.alpha, self.scale, self.run = base, alpha, scale, run
        self.base.requires_grad_(not frozen)
        dtype = base.weight.dtype if dtype is None else dtype
        shapes = {"A": (rank, base.in_features), "B": (base.out_features, rank)}
        for (name, shape), start in zip(shapes.items(), starts, strict=True):
            value = stored((normal(*shape) if start == "random" else torch.zeros(shape)).to(dtype))
            setattr(self, name, nn.Parameter(value) if trained else value)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for x, (..., I) -> (..., O)."""
        a, b = self.A, self.B
        return self.run(self.base, x, a, b, self.scale(self.alpha, a, b))


def module(**changes: Any) -> Callable[..., Any]:
    """Return what exercise 13.2 measures of a LoRA module with one thing changed."""
    return measured(lambda base, rank, alpha: LoRAModule(base, rank, alpha, **changes))


def measured(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's class into a function of sizes; it returns what the module is and does.

    That is: whether it begins as the base, what is trained, how A and B start, and the output for
    an A and a B that are given to it.
    """

    @wraps(kind, updated=())
    def run(x: Tensor, out: int, rank: int, alpha: float, bias: bool, dtype: torch.dtype) -> Any:
        base = nn.Linear(x.shape[-1], out, bias)
        for seed, one in enumerate(base.parameters(), start=1):
            one.data = normal(*one.shape, seed=seed)
        built = kind(base.to(dtype), rank, alpha)
        if not isinstance(built, nn.Module):
            return built
        first = built(x.to(dtype))
        a, b = (_tensor(getattr(built, name, None)) for name in ("A", "B"))
        if a is None or b is None:
            nothing = first is None or first is ...
            return first if nothing and a is b else (first, "the module has no A, or no B")
        start = f"A {_start(a)}, B {_start(b)}"
        if a.shape != (rank, x.shape[-1]) or b.shape != (out, rank):
            return first, f"A is {tuple(a.shape)}, B is {tuple(b.shape)}"
        with torch.no_grad():
            a.copy_(normal(*a.shape, seed=5))
            b.copy_(normal(*b.shape, seed=6))
        second = built(x.to(dtype))
        if first is None or second is None:
            return "forward returns None"
        with torch.no_grad():
            unchanged = same(first.detach(), base(x.to(dtype)), 1e-5)
        begins = "begins as the base" if unchanged else "does not begin as the base"
        return begins, _trained(built, second), start, second.detach()

    return run


def _tensor(value: Any) -> Tensor | None:
    """Return A or B, which may be a tensor, a parameter, or a linear layer without bias."""
    value = value.weight if isinstance(value, nn.Linear) else value
    return value if isinstance(value, Tensor) else None


def _start(value: Tensor) -> str:
    return "random" if value.any() else "zero"


def _trained(built: nn.Module, output: Tensor) -> str:
    """Return the names and dtypes of the parameters that a step would change."""
    found = [(name, one) for name, one in built.named_parameters() if one.requires_grad]
    if not found:
        return "no parameter needs a gradient"
    if not output.requires_grad:
        return "no gradient reaches A and B"
    given = torch.autograd.grad(output.float().sum(), [one for _, one in found], allow_unused=True)
    names = [
        f"{name.removesuffix('.weight') if name[0] in 'AB' else name} {one.dtype}"
        for (name, one), gradient in zip(found, given, strict=True)
        if gradient is not None
    ]
    return f"trained: {', '.join(sorted(names))}".replace("torch.", "")


def _float32_back(base: nn.Linear, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    y: Tensor = base(x)
    return y.float() + scale * (x.float() @ a.T @ b.T)


def _plus(update: Callable[..., Tensor], frozen: Callable[..., Tensor] | None = None) -> Forward:
    """Return a forward: the frozen layer's output (or another) plus an update."""

    def run(base: nn.Linear, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        y: Tensor = base(x)
        wide = x.float()
        first = y if frozen is None else frozen(base, x, y, scale)
        return (first + update(wide, a, b, scale, y)).to(y.dtype)

    return run


def _update(x: Tensor, a: Tensor, b: Tensor, scale: float, *_: Tensor) -> Tensor:
    return scale * (x @ a.T @ b.T)


SCALE_MISTAKES: tuple[tuple[str, str, Scale], ...] = (
    ("scale forgotten", "the update is added without a scale. How much it counts depends on alpha "
        "and the rank.",
        lambda alpha, a, b: 1.0),
    ("not divided by the rank", "the update is multiplied by alpha. Then twice the rank would mean "
        "about twice the update: by what must alpha be divided?",
        lambda alpha, a, b: alpha),
    ("divided upside down", "the update is multiplied by rank / alpha, so a larger alpha makes it "
        "weaker.",
        lambda alpha, a, b: len(a) / alpha),
    ("only divided", "the update is divided by the rank, but where is alpha?",
        lambda alpha, a, b: 1 / len(a)),
    ("root of the rank", "alpha / √rank is another method (rsLoRA). Plain LoRA divides by the rank "
        "itself.",
        lambda alpha, a, b: alpha / len(a) ** 0.5),
    ("times the rank", "the update is multiplied by alpha and the rank. Divide by the rank.",
        lambda alpha, a, b: alpha * len(a)),
    ("rounded down", "// rounds the scale down: with alpha 5 and rank 2 it is 2, not 2.5. Use /.",
        lambda alpha, a, b: alpha // len(a)),
    ("divided by O", "you divide alpha by the number of outputs. The rank is the number of rows of "
        "A, or of columns of B.",
        lambda alpha, a, b: alpha / len(b)),
    ("divided by I", "you divide alpha by the number of inputs. The rank is the number of rows of "
        "A, or of columns of B.",
        lambda alpha, a, b: alpha / a.shape[1]),
    ("scaled twice", "the scale is applied twice, once to each factor.",
        lambda alpha, a, b: (alpha / len(a)) ** 2),
)  # fmt: skip
MODULE_MISTAKES = [
    *(Mistake(name, hint, module(scale=scale)) for name, hint, scale in SCALE_MISTAKES),
    Mistake("both at zero", "A and B both start at zero. Then both gradients are zero, and stay "
        "zero. Which of the two must be random?",
        module(starts=("zero", "zero"))),
    Mistake("both random", "A and B both start at random, so the new layer does not begin as the "
        "old one. Which of the two must be zero?",
        module(starts=("random", "random"))),
    Mistake("A at zero", "A starts at zero and B at random. It would train, but LoRA does it the "
        "other way around, and so do all its files.",
        module(starts=("zero", "random"))),
    Mistake("base not frozen", "the base's own weight would be trained, too. Which attribute of a "
        "parameter says that it needs no gradient?",
        module(frozen=False)),
    Mistake("not parameters", "A and B are plain tensors: the module does not list them among its "
        "parameters, so no optimizer would find them.",
        module(trained=False)),
    Mistake("dtype of the base", "A and B have the dtype of the base. In bfloat16 a small training "
        "step is rounded away: keep A and B in float32.",
        module(dtype=None, run=lambda base, x, a, b, s: base(x) + s * (x @ a.T @ b.T))),
    Mistake("float32 comes back", "with a base in bfloat16 the output is float32. The next layer "
        "expects the dtype of the base's output.",
        module(run=_float32_back)),
    Mistake("stored transposed", "A is (rank, I) and B is (O, rank): one row per output, as in "
        "every linear layer.",
        module(stored=lambda one: one.T.contiguous(),
            run=lambda base, x, a, b, s: (base(x) + s * (x.float() @ a @ b)).to(x.dtype))),
    Mistake("no gradient", "no gradient reaches A and B. What in your forward cuts the graph?",
        module(run=lambda base, x, a, b, s: right_forward(base, x, a.detach(), b.detach(), s))),
    Mistake("nothing returned", "forward returns None. End it with `return` and the output.",
        module(run=lambda base, x, a, b, s: None)),
    Mistake("bias forgotten", "the base's bias is lost. What does the base itself return for x?",
        module(run=_plus(_update, lambda base, x, y, s: x @ base.weight.T))),
    Mistake("update alone", "that is what A and B add. The frozen layer's output is needed too.",
        module(run=_plus(_update, lambda base, x, y, s: 0 * y))),
    Mistake("base alone", "that is the frozen layer's output. What do A and B add to it?",
        module(run=_plus(lambda x, a, b, s, y: 0 * _update(x, a, b, s)))),
    Mistake("everything scaled", "the scale is only for the update; here the frozen layer's output "
        "is scaled as well.",
        module(run=_plus(_update, lambda base, x, y, s: s * y))),
    Mistake("x instead of the output", "the update is added to x. Add it to the frozen layer's "
        "output.",
        module(run=_plus(_update, lambda base, x, y, s: x))),
    Mistake("multiplied", "the two branches are multiplied. Add them.",
        module(run=lambda base, x, a, b, s:
            (base(x) * (s * (x.float() @ a.T @ b.T))).to(x.dtype))),
    Mistake("one after the other", "A gets the frozen layer's output. Both branches start from the "
        "same x, in parallel.",
        module(run=_plus(lambda x, a, b, s, y: _update(y.float(), a, b, s)))),
    Mistake("minus", "the update is subtracted; it must be added.",
        module(run=_plus(lambda x, a, b, s, y: -_update(x, a, b, s)))),
    Mistake("A and B not transposed", "A is (r, I) and B is (O, r), one row per output, as the "
        "weight is. The product with each uses its transpose.",
        module(run=_plus(lambda x, a, b, s, y: s * (x @ a @ b)))),
    Mistake("A and B swapped", "x meets B first. A comes first: it takes I values to r, and B "
        "takes r values to O.",
        module(run=_plus(lambda x, a, b, s, y: s * (x @ b.T @ a.T)))),
]  # fmt: skip
