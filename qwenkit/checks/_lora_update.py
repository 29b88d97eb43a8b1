"""Exercises 13.1 and 13.3, what A and B add: the right answers, and the wrong ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from qwenkit.checks._judge import Mistake

Scale = Callable[[float, Tensor, Tensor], float]  # of alpha, A (r, I) and B (O, r)


def right_scale(alpha: float, a: Tensor, b: Tensor) -> float:
    """Return alpha / rank."""
    return alpha / len(a)


# --- 13.1 ---


def forward_of(scale: Scale) -> Callable[..., Tensor]:
    """Return a LoRA whose update is multiplied by `scale(alpha, a, b)`."""

    def forward(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        return x @ weight.T + scale(alpha, a, b) * (x @ a.T @ b.T)

    return forward


_SCALE_MISTAKES: tuple[tuple[str, str, Scale], ...] = (
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
FORWARD_MISTAKES = [
    *(Mistake(name, hint, forward_of(scale)) for name, hint, scale in _SCALE_MISTAKES),
    Mistake("update alone", "that is what A and B add. The frozen weight's output is needed too.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ a.T @ b.T)),
    Mistake("weight alone", "that is the frozen weight's output. What do A and B add to it?",
        lambda x, w, a, b, alpha: x @ w.T),
    Mistake("everything scaled", "the scale is only for the update; here the frozen weight's "
        "output is scaled as well.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ w.T + x @ a.T @ b.T)),
    Mistake("not transposed", "a weight is (O, I): one row per output. x @ weight uses its columns "
        "instead, which raises no error if the weight is square.",
        lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ a.T @ b.T)),
    Mistake("not transposed", "weight, A and B have one row per output, so the product with each "
        "uses its transpose.",
        lambda x, w, a, b, alpha: x @ w + alpha / len(a) * (x @ a @ b)),
    Mistake("A and B not transposed", "A is (r, I) and B is (O, r), one row per output, as the "
        "weight is. The product with each uses its transpose.",
        lambda x, w, a, b, alpha: x @ w.T + alpha / len(a) * (x @ a @ b)),
    Mistake("B before A", "x meets B first. A comes first: it takes I values to r, and B takes r "
        "values to O.",
        lambda x, w, a, b, alpha: x @ w.T + alpha / len(a) * (x @ b.T @ a.T)),
    Mistake("x instead of the output", "the update is added to x. Add it to the frozen weight's "
        "output.",
        lambda x, w, a, b, alpha: x + alpha / len(a) * (x @ a.T @ b.T)),
    Mistake("multiplied", "the two branches are multiplied. Add them.",
        lambda x, w, a, b, alpha: alpha / len(a) * (x @ w.T) * (x @ a.T @ b.T)),
    Mistake("the merged weight", "that is the merged weight, without x. Return its output for x.",
        lambda x, w, a, b, alpha: w + alpha / len(a) * (b @ a)),
    Mistake("one after the other", "A gets the frozen weight's output. Both branches start from "
        "the same x, in parallel.",
        lambda x, w, a, b, alpha: x @ w.T + alpha / len(a) * (x @ w.T @ a.T @ b.T)),
    Mistake("minus", "the update is subtracted; it must be added.",
        lambda x, w, a, b, alpha: x @ w.T - alpha / len(a) * (x @ a.T @ b.T)),
]  # fmt: skip

# --- 13.3 ---


def merged_by(scale: Scale, plus: float = 1.0) -> Callable[..., Tensor]:
    """Return a merge: `plus` times the weight, and the update times `scale(alpha, a, b)`."""

    def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
        update = scale(alpha, a, b) * (b @ a)
        return (plus * weight.float() + update).to(weight.dtype)

    return merged


def _swapped(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return (weight.float() + alpha / len(a) * (a @ b)).to(weight.dtype)


MERGE_MISTAKES = [
    *(Mistake(name, hint, merged_by(scale)) for name, hint, scale in _SCALE_MISTAKES),
    Mistake("float32 comes back", "the values are right, but a weight in bfloat16 comes back in "
        "float32, and would take twice the memory. The merged weight must have the dtype of the "
        "old one.",
        lambda w, a, b, alpha: w.float() + alpha / len(a) * (b @ a)),
    Mistake("A and B rounded", "A and B are rounded to bfloat16 before they are multiplied, which "
        "loses small differences. Multiply in float32, and round the result.",
        lambda w, a, b, alpha:
            w + (alpha / len(a) * (b.to(w.dtype) @ a.to(w.dtype))).to(w.dtype)),
    Mistake("A and B swapped", "A times B is not B times A, and has the wrong shape unless all "
        "sizes are equal. x meets A first: in which order are they in the product?",
        _swapped),
    Mistake("element by element", "* multiplies element by element. The update is a matrix "
        "product.",
        lambda w, a, b, alpha: w + alpha / len(a) * (b * a)),
    Mistake("weight transposed", "the weight is transposed. It is (O, I), and so is the update.",
        lambda w, a, b, alpha: (w.T.float() + alpha / len(a) * (b @ a)).to(w.dtype)),
    Mistake("everything scaled", "the scale is only for the update; here the old weight is scaled "
        "as well.",
        lambda w, a, b, alpha: (alpha / len(a) * (w.float() + b @ a)).to(w.dtype)),
    Mistake("weight alone", "that is the old weight. What do A and B add to it?",
        lambda w, a, b, alpha: w.clone()),
    Mistake("multiplied", "weight and update are multiplied. Add them.",
        lambda w, a, b, alpha: (w.float() * (alpha / len(a) * (b @ a))).to(w.dtype)),
    Mistake("update alone", "that is the update. The merged weight is the old weight plus the "
        "update.",
        merged_by(right_scale, plus=0.0)),
    Mistake("update transposed", "the update is transposed, which raises no error if the weight is "
        "square. x meets A first: in which order are A and B in the product?",
        lambda w, a, b, alpha: (w.float() + alpha / len(a) * (a.T @ b.T)).to(w.dtype)),
    Mistake("merged twice", "the update is in the weight twice.",
        merged_by(lambda alpha, a, b: 2 * alpha / len(a))),
    Mistake("minus", "the update is subtracted, as in unmerging; it must be added.",
        merged_by(lambda alpha, a, b: -alpha / len(a))),
]  # fmt: skip
