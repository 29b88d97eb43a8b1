"""A family of small programs: a table of names, wordings and bodies with slots.

A slot is `$` and letters, as `$n` or `$total`: a parameter, a choice (a constant of the program),
the program's own name (`$self`), or a local variable. `[a|b]` in a wording stands for either.
"""

import re
import textwrap
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from qwenkit.programs.slots import KINDS

# How a line of the table becomes sentences: "?" a condition, "=" a thing, "#" a quantity.
FRAMES = {
    "?": {
        "whether": "[Return|Return|Returns] whether {}.",
        "check": "[Check|Check|Test|Determine|Find out] [if|whether] {}.",
        "true": "[Return True|Returns True|True] if {}[|, otherwise False|, else False].",
    },
    "=": {"return": "[Return|Return|Returns] {}.", "get": "[Get|Find] {}."},
    "#": {
        "return": "[Return|Return|Returns] {}.",
        "compute": "[Compute|Calculate|Find|Work out] {}.",
    },
}


class Parameter(NamedTuple):
    """A parameter of a function: its slot, its kind (a key of `KINDS`), its default or ""."""

    slot: str
    kind: str
    default: str


class Phrasing(NamedTuple):
    """A wording of a docstring."""

    id: str
    text: str
    held_out: bool


@dataclass(frozen=True)
class Family:
    """A kind of task; see `family`."""

    name: str
    names: Sequence[str]
    parameters: Sequence[Parameter]
    returns: str
    lines: Sequence[str]
    bodies: Sequence[str]
    reference: Callable[..., Any]
    inputs: Callable[..., tuple[Any, ...]] | None = None
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    raises: tuple[type[Exception], ...] = ()
    kind: str = "function"
    held_out: bool = False
    weight: float = 1.0

    @cached_property
    def phrasings(self) -> tuple[Phrasing, ...]:
        """Return every wording; those of about a fifth of the lines are held out, never the first.

        Which they are depends on the family's name and the line alone.
        """
        marks = [zlib.crc32(f"{self.name}: {line}".encode()) for line in self.lines[1:]]
        held = [mark % 6 == 0 or mark == min(marks) for mark in marks]
        found = []
        for number, (line, out) in enumerate(zip(self.lines, [False, *held], strict=True)):
            frames = FRAMES.get(line[0], {"say": "{}"})
            words = line[1:].strip() if line[0] in FRAMES else line
            found += [
                Phrasing(f"{number}-{name}", frame.format(words), out)
                for name, frame in frames.items()
            ]
        return tuple(found)

    @cached_property
    def taken(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the choices that the reference takes, and those that the sampler takes."""
        return _taken(self.reference, self.choices), _taken(self.inputs, self.choices)

    def sample(self, rng: Random, chosen: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return arguments for one call."""
        if self.inputs is not None:
            return self.inputs(rng, **{name: chosen[name] for name in self.taken[1]})
        return tuple(KINDS[one.kind].sample(rng) for one in self.parameters)

    def expect(self, inputs: Sequence[Any], chosen: Mapping[str, Any]) -> Any:
        """Return what the reference gives."""
        return self.reference(*inputs, **{name: chosen[name] for name in self.taken[0]})


def family(
    name: str,
    names: str,
    takes: str,
    phrasings: str,
    bodies: str,
    reference: Callable[..., Any],
    inputs: Callable[..., tuple[Any, ...]] | None = None,
    **more: Any,
) -> Family:
    """Return a family from its table.

    Args:
        name: of the family.
        names: of the function, separated by spaces; "~" before a noun allows "get_" and the like.
        takes: the parameters and what is returned, as "numbers:ints k:small=1 -> int"; the kinds
            are those of `KINDS`.
        phrasings: one a line. "? n is even" becomes "Check if n is even." and others (see
            `FRAMES`), "= the last item" becomes "Get the last item.", "# the sum" "Compute the
            sum."; other lines are sentences.
        bodies: templates in several styles, separated by lines of "---"; an import at the top of
            one goes before the signature.
        reference: what the function does; it gets the arguments and those choices it names.
        inputs: a sampler of arguments from a `Random`; by default the kinds' own.
        more: `choices` (slot -> values, of which a program takes one), `raises` (types of errors),
            `kind`, `held_out`, `weight`.
    """
    before, _, returns = takes.partition("->")
    kind = "generator" if "yield" in bodies else "function"
    return Family(
        name=name,
        names=names.split(),
        parameters=[_parameter(one) for one in before.split()],
        returns=returns.strip(),
        lines=[line.strip() for line in phrasings.strip().splitlines()],
        bodies=[one.strip("\n") for one in re.split(r"(?m)^---\n", textwrap.dedent(bodies))],
        reference=reference,
        inputs=inputs,
        **{"kind": kind, **more},
    )


def _taken(function: Callable[..., Any] | None, choices: Mapping[str, Any]) -> tuple[str, ...]:
    code = getattr(function, "__code__", None)  # built-in functions have none
    return tuple(name for name in choices if code and name in code.co_varnames[: code.co_argcount])


def _parameter(text: str) -> Parameter:
    slot, _, rest = text.partition(":")
    kind, _, default = rest.partition("=")
    return Parameter(slot, kind, default)
