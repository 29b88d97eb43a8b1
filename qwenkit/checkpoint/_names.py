"""Mapping the tensor names in a file to those that the config expects.

Tools add to a tensor's name: `torch.compile` puts `_orig_mod.` before it, parallel training
`module.`, PEFT `base_model.model.`; a base model that was saved alone lacks `model.`. Where one
prefix explains all names, they are read without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from qwenkit.checkpoint._header import TensorInfo

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# RoPE's tables follow from the config; a causal mask is constant.
_ROPE = re.compile(r"(^|\.)rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)")
_MASK = re.compile(r"(^|\.)(self_)?attn\.(bias|masked_bias)")


def without_wrappers(name: str) -> str:
    """Return a name without the parts that `torch.compile` and parallel training add.

    >>> without_wrappers("_orig_mod.model.layers.0._orig_mod.mlp.up_proj.weight")
    'model.layers.0.mlp.up_proj.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def expected_names(names: Iterable[str]) -> dict[str, str]:
    """Return name in the file -> name in the model; unchanged if no single prefix explains all.

    >>> expected_names(["embed_tokens.weight", "norm.weight", "lm_head.weight"])["norm.weight"]
    'model.norm.weight'
    """
    plain = {name: without_wrappers(name) for name in names}
    ending = EMBEDDING.removeprefix("model.")
    before = {
        one.removesuffix(ending) for one in plain.values() if f".{one}".endswith(f".{ending}")
    }
    if EMBEDDING in plain.values() or len(before) != 1:
        return plain
    prefix = before.pop()  # of the base model; the head is outside of it
    outer = prefix.removesuffix("model.")
    found = {}
    for name, one in plain.items():
        if one.startswith(f"{outer}lm_head."):
            found[name] = one.removeprefix(outer)
        elif one.startswith(prefix):
            found[name] = f"model.{one.removeprefix(prefix)}"
    return found if found.keys() == plain.keys() else plain


def can_be_derived(name: str, info: TensorInfo | None = None, *, tied: bool) -> bool:
    """Tell whether a tensor follows from the rest, so that it may be present or absent.

    Args:
        name: in the model.
        info: its entry in the header; None: only an index names it.
        tied: whether the head shares the embedding's weight.
    """
    if _ROPE.search(name):
        return True
    mask = _MASK.search(name) is not None
    if mask and info is not None:  # (1, 1, T, T), or one number; a bias would have one dimension
        mask = len(info.shape) in (0, 4)
    return mask or (tied and name.startswith("lm_head.weight"))
