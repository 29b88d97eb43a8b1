"""Looking inside a forward pass, and changing it there.

A `Trace` is passed down the model explicitly: `model(input_ids, trace=trace)`. At each of the
points in `POINTS` the model calls `tap(trace, name, value)`: it records the value if it was asked
for, returns an edited one if an edit is registered, and does nothing if there is no trace.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qwenkit.errors import TraceError

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """A point where a forward pass can be read and edited.

    Attributes:
        name: short name; within a layer the full one is `layers.N.` + name.
        shape: in the letters B batch, T query length, S key length, C hidden, H heads,
            KV kv heads, D head_dim, F intermediate, V vocabulary.
        meaning: what the value is.
        in_layer: whether every layer has one.
    """

    name: str
    shape: str
    meaning: str
    in_layer: bool = True


POINTS: tuple[Point, ...] = (
    Point("embed", "B T C", "token embeddings, the start of the residual stream", False),
    Point("resid_pre", "B T C", "residual stream as it enters the layer"),
    Point("attn_norm", "B T C", "what attention reads: RMSNorm of resid_pre"),
    Point("attn.q", "B H T D", "queries before RoPE"),
    Point("attn.k", "B KV T D", "keys before RoPE, kv heads not yet repeated"),
    Point("attn.v", "B KV T D", "values, kv heads not yet repeated"),
    Point("attn.q_rot", "B H T D", "queries rotated by RoPE"),
    Point("attn.k_rot", "B KV T D", "keys rotated by RoPE, as the cache stores them"),
    Point("attn.scores", "B H T S", "query·key / sqrt(D), before the mask"),
    Point("attn.pattern", "B H T S", "softmax of the masked scores: the attention weights"),
    Point("attn.z", "B H T D", "each head's weighted sum of values"),
    Point("attn.out", "B T C", "what attention adds to the residual stream"),
    Point("resid_mid", "B T C", "residual stream between attention and MLP"),
    Point("mlp_norm", "B T C", "what the MLP reads: RMSNorm of resid_mid"),
    Point("mlp.gate", "B T F", "the gate before SiLU"),
    Point("mlp.up", "B T F", "the values that the gate scales"),
    Point("mlp.act", "B T F", "SiLU(gate) × up: how strongly each unit fires"),
    Point("mlp.out", "B T C", "what the MLP adds to the residual stream"),
    Point("resid_post", "B T C", "residual stream as it leaves the layer"),
    Point("final_norm", "B T C", "RMSNorm of the last residual stream", False),
    Point("logits", "B T V", "score of every token of the vocabulary as the next one", False),
)
_POINT = {point.name: point for point in POINTS}


class Trace:
    """What to record in a forward pass, and what to change in it.

    Each forward pass replaces what the one before recorded. Read it with a full name,
    `trace["embed"]` or `trace["layers.3.attn.pattern"]`. The value recorded is the edited one.

    Args:
        keep: names to record: short ("attn.pattern": in every layer) or full
            ("layers.3.attn.pattern"); None: every point.
        layers: layers in which short names are recorded; None: all.
        edits: name (short or full) -> function of the value that returns its replacement, of the
            same shape, dtype and device. A full name overrides a short one.

    Raises:
        TraceError: a name that is not a trace point.

    >>> import torch
    >>> tap(Trace(edits={"embed": lambda value: 3 * value}), "embed", torch.ones(2))
    tensor([3., 3.])
    """

    def __init__(
        self,
        keep: Iterable[str] | None = None,
        layers: Iterable[int] | None = None,
        edits: Mapping[str, Edit] | None = None,
    ) -> None:
        if isinstance(keep, str):
            keep = (keep,)
        self.keep = frozenset(_POINT if keep is None else keep)
        self.layers = None if layers is None else frozenset(layers)
        self.edits = dict(edits or {})
        self._values: dict[str, Tensor] = {}
        for name in (*self.keep, *self.edits):
            _split(name)  # refuses an unknown name

    def begin(self, num_layers: int) -> None:
        """Forget the last forward pass; the model calls it at the start of each.

        Raises:
            TraceError: the trace names a layer that the model does not have.
        """
        self._values.clear()
        named = {_split(name)[0] for name in (*self.keep, *self.edits)} | (self.layers or set())
        for number in sorted(number for number in named if number is not None):
            if not 0 <= number < num_layers:
                raise TraceError(
                    f"the trace names layer {number}; this model has layers 0 to {num_layers - 1}"
                )

    def at_layer(self, number: int) -> TraceAt:
        """Return this trace as layer `number` sees it: short names become full ones."""
        return TraceAt(self, number)

    def wants(self, name: str, layer: int | None = None) -> bool:
        """Tell whether a point is recorded or edited; a fused kernel then cannot be used."""
        return self._keeps(name, layer) or self._edit(name, layer) is not None

    def tap(self, name: str, value: Tensor, layer: int | None = None) -> Tensor:
        """Edit and record a value at a point; return the value to go on with."""
        full = name if layer is None else f"layers.{layer}.{name}"
        edit = self._edit(name, layer)
        if edit is not None:
            value = _edited(full, edit, value)
        if self._keeps(name, layer):
            self._values[full] = value
        return value

    def _keeps(self, name: str, layer: int | None) -> bool:
        if layer is None:
            return name in self.keep
        in_range = self.layers is None or layer in self.layers
        return (name in self.keep and in_range) or f"layers.{layer}.{name}" in self.keep

    def _edit(self, name: str, layer: int | None) -> Edit | None:
        full = self.edits.get(f"layers.{layer}.{name}") if layer is not None else None
        return full or self.edits.get(name)

    def __getitem__(self, name: str) -> Tensor:
        """Return the value recorded at a point in the last forward pass."""
        if name in self._values:
            value = self._values[name]
            if value.is_inference() and not torch.is_inference_mode_enabled():
                value = self._values[name] = value.clone()  # an ordinary tensor, to go on with
            return value
        layer, short = _split(name)
        if layer is None and _POINT[short].in_layer:
            raise TraceError(f"{name!r} exists in every layer; write 'layers.N.{name}'")
        if not self._values:
            raise TraceError(
                f"{name!r} is not recorded yet; run model(input_ids, trace=trace) first"
            )
        raise TraceError(f"{name!r} was not recorded; add it to keep= and run the model again")

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """Bytes that the recorded values hold; a tensor that two points share counts once.

        A layer's `resid_pre` is the tensor that the layer before recorded as `resid_post`.
        """
        storages = (value.untyped_storage() for value in self._values.values())
        return sum({one.data_ptr(): one.nbytes() for one in storages}.values())

    def __repr__(self) -> str:
        return f"Trace({len(self._values)} values, {self.nbytes:,} bytes)"


@dataclass(frozen=True)
class TraceAt:
    """A trace as one layer sees it."""

    trace: Trace
    layer: int

    def wants(self, name: str) -> bool:
        """Tell whether this layer's point is recorded or edited."""
        return self.trace.wants(name, self.layer)

    def tap(self, name: str, value: Tensor) -> Tensor:
        """Edit and record a value at this layer's point."""
        return self.trace.tap(name, value, self.layer)


def tap(trace: Trace | TraceAt | None, name: str, value: Tensor) -> Tensor:
    """Edit and record `value` where `trace` asks for it; without a trace return it unchanged."""
    return value if trace is None else trace.tap(name, value)


def _edited(name: str, edit: Edit, value: Tensor) -> Tensor:
    new = edit(value.clone())  # an edit may write into it, and other points may hold this tensor
    if not isinstance(new, Tensor):
        raise TraceError(
            f"the edit at {name} returned {type(new).__name__}; it must return a tensor "
            f"of shape {tuple(value.shape)} (did it forget its return?)"
        )
    for what, got, need in (
        ("shape", tuple(new.shape), tuple(value.shape)),
        ("dtype", new.dtype, value.dtype),
        ("device", new.device, value.device),
    ):
        if got != need:
            raise TraceError(f"the edit at {name} returned {what} {got}; it must keep {need}")
    return new


def _split(name: str) -> tuple[int | None, str]:
    """Split a name into layer (None where it has none) and short name, or refuse it."""
    layer, short = None, name
    parts = name.split(".", 2)
    if parts[0] == "layers" and len(parts) == 3 and parts[1].isdecimal():
        layer, short = int(parts[1]), parts[2]
    if short in _POINT and (layer is None or _POINT[short].in_layer):
        return layer, short
    near = " or ".join(map(repr, difflib.get_close_matches(short, _POINT, n=2)))
    hint = f"did you mean {near}?" if near else f"the points are {', '.join(_POINT)}"
    raise TraceError(f"{name!r} is not a trace point; {hint}")
