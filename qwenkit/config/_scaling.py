"""How RoPE is scaled for contexts longer than the trained one: linear, dynamic or YaRN."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from qwenkit.config._rules import make_floats, wrong, wrong_float, wrong_int

_LEAST, _MOST = 1e-30, 1e30  # of each number


@dataclass(frozen=True)
class _Scaling:
    """What the three have in common."""

    rope_type: ClassVar[str]
    _floats: ClassVar[tuple[str, ...]] = ("factor",)
    factor: float

    def __post_init__(self) -> None:
        """Make the numbers floats: torch has no integers beyond 64 bits."""
        make_floats(self, *self._floats)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `rope_scaling` in config.json."""
        given = {n: value for n, value in asdict(self).items() if value is not None}
        return {"rope_type": self.rope_type, **given}

    def problems(self) -> list[str]:
        """List what is wrong with these values; empty when nothing is."""
        return self._wrong_numbers() or self._wrong_relations()

    def _wrong_numbers(self) -> list[str]:
        """Beyond these limits a logarithm or a quotient would be 0 or infinite."""
        optional = {one.name for one in fields(self) if one.default is None}
        values = {name: getattr(self, name) for name in self._floats}
        given = {n: value for n, value in values.items() if value is not None or n not in optional}
        found = [wrong_float(f"rope_scaling.{name}", value) for name, value in given.items()]
        if not any(found):
            rule = f"between {_LEAST:g} and {_MOST:g}"
            extreme = [name for name, value in given.items() if not _LEAST <= value <= _MOST]
            found += [wrong(f"rope_scaling.{name}", given[name], rule) for name in extreme]
        return [problem for problem in found if problem]

    def _wrong_relations(self) -> list[str]:
        """List what is wrong once every number is one."""
        if self.factor >= 1:
            return []
        return [wrong("rope_scaling.factor", self.factor, "at least 1 (it lengthens the context)")]


@dataclass(frozen=True)
class LinearScaling(_Scaling):
    """Linear scaling: every position is divided by a factor.

    Attributes:
        factor: how many times longer than the trained context.
    """

    rope_type: ClassVar[str] = "linear"


@dataclass(frozen=True)
class DynamicScaling(_Scaling):
    """Dynamic scaling: plain RoPE up to `max_position_embeddings`, and for those texts alone here.

    Beyond, every further token changes the angles of all, those in a cache too.

    Attributes:
        factor: how many times longer than the trained context.
    """

    rope_type: ClassVar[str] = "dynamic"


@dataclass(frozen=True)
class YarnScaling(_Scaling):
    """YaRN's settings for contexts longer than the trained one (Peng et al. 2023, section 3).

    Attributes:
        factor: how many times longer than the trained context.
        original_max_position_embeddings: the trained context, in tokens.
        attention_factor: multiplies cos and sin; None: 0.1 ln(factor) + 1, or from the `mscale`s.
        beta_fast: pairs that rotate at least this often over the trained context keep their
            frequency.
        beta_slow: the frequency of pairs that rotate at most this often is divided by `factor`.
        mscale: with `mscale_all_dim`, as DeepSeek has it, the factor of cos and sin is the quotient
            of 0.1 mscale ln(factor) + 1 and 0.1 mscale_all_dim ln(factor) + 1.
        mscale_all_dim: see `mscale`.
        truncate: where the ramp starts and ends is rounded to whole pairs.
    """

    rope_type: ClassVar[str] = "yarn"
    _floats: ClassVar[tuple[str, ...]] = (
        "factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim",
    )  # fmt: skip
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `rope_scaling` in config.json."""
        data = super().to_dict()
        if self.truncate:  # the usual; older readers do not know the key
            del data["truncate"]
        return data

    def _wrong_numbers(self) -> list[str]:
        trained = "original_max_position_embeddings"
        found = [
            *super()._wrong_numbers(),
            wrong_int(f"rope_scaling.{trained}", getattr(self, trained)),
        ]
        if type(self.truncate) is not bool:
            found.append(wrong("rope_scaling.truncate", self.truncate, "true or false"))
        return [problem for problem in found if problem]

    def _wrong_relations(self) -> list[str]:
        found = super()._wrong_relations()
        if self.beta_fast <= self.beta_slow:
            rule = f"larger than beta_slow ({self.beta_slow})"
            found.append(wrong("rope_scaling.beta_fast", self.beta_fast, rule))
        return found


RopeScaling = LinearScaling | DynamicScaling | YarnScaling
