"""YaRN's settings: how RoPE is scaled for contexts longer than the trained one."""

from __future__ import annotations

from dataclasses import dataclass

from qwenkit.config._rules import make_floats, wrong, wrong_float, wrong_int

_LEAST, _MOST = 1e-30, 1e30  # of each number


@dataclass(frozen=True)
class YarnScaling:
    """YaRN's settings for contexts longer than the trained one (Peng et al. 2023, section 3).

    Attributes:
        factor: how many times longer than the trained context.
        original_max_position_embeddings: the trained context, in tokens.
        attention_factor: multiplies cos and sin; None: 0.1 ln(factor) + 1.
        beta_fast: pairs that rotate at least this often over the trained context keep their
            frequency.
        beta_slow: the frequency of pairs that rotate at most this often is divided by `factor`.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        """Make the numbers floats: torch has no integers beyond 64 bits."""
        make_floats(self, "factor", "attention_factor", "beta_fast", "beta_slow")

    def problems(self) -> list[str]:
        """List what is wrong with these values; empty when nothing is."""
        numbers = ["factor", "beta_fast", "beta_slow"]
        numbers += [] if self.attention_factor is None else ["attention_factor"]
        found = [wrong_float(f"rope_scaling.{name}", getattr(self, name)) for name in numbers]
        if not any(found):  # beyond these, YaRN takes a logarithm of 0 or infinity
            rule = f"between {_LEAST:g} and {_MOST:g}"
            extreme = [name for name in numbers if not _LEAST <= getattr(self, name) <= _MOST]
            found += [wrong(f"rope_scaling.{n}", getattr(self, n), rule) for n in extreme]
        trained = "original_max_position_embeddings"
        found.append(wrong_int(f"rope_scaling.{trained}", getattr(self, trained)))
        comparable = not any(found)
        if comparable and self.factor < 1:
            rule = "at least 1 (it lengthens the context)"
            found.append(wrong("rope_scaling.factor", self.factor, rule))
        if comparable and self.beta_fast <= self.beta_slow:
            rule = f"larger than beta_slow ({self.beta_slow})"
            found.append(wrong("rope_scaling.beta_fast", self.beta_fast, rule))
        return [problem for problem in found if problem]
