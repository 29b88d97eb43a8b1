"""A family of small programs: a table of names, wordings and bodies with slots.

A slot is `$` and letters, as `$n` or `$total`: a parameter, a choice (a constant of the program),
the program's own name (`$self`), or a local variable. `[a|b]` in a wording stands for either.
"""

import re
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from qwenkit.programs.slots import KINDS

# How a line of the table becomes sentences, and how often each is drawn: "?" a condition, "=" a
# thing, "#" a quantity, "" a sentence, "class" a sentence about a class.
FRAMES = {
    "?": {
        "whether": (4, "[Return|Return|Returns] whether {}."),
        "check": (3, "[Check|Check|Test|Determine|Find out] [if|whether] {}."),
        "true": (2, "[Return True|Returns True|True] if {}[|, otherwise False|, else False]."),
        "function": (1, "[Function that checks|This function checks|Checks] [if|whether] {}."),
    },
    "=": {
        "return": (4, "[Return|Return|Returns] {}."),
        "get": (2, "[Get|Find] {}."),
        "function": (
            1,
            "[Function that returns|This function returns|Write a function that returns] {}.",
        ),
    },
    "#": {
        "return": (4, "[Return|Return|Returns] {}."),
        "compute": (3, "[Compute|Calculate|Find|Work out] {}."),
        "function": (1, "[Function that calculates|This function computes|Computes] {}."),
    },
    "": {"say": (4, "{}"), "task": (1, "[Write a function to|Function to|A function to] {}")},
    "class": {"say": (4, "{}"), "task": (1, "[Write a|Implement a] class: {}")},
}
# Sentences that begin so have no "task".
NOT_TASKS = ("Given", "A", "An", "Return", "For", "From")


class Parameter(NamedTuple):
    """A parameter of a function: its slot, its kind (a key of `KINDS`), its default or ""."""

    slot: str
    kind: str
    default: str


class Phrasing(NamedTuple):
    """A wording of a docstring."""

    id: str
    text: str
    weight: int
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
        """Return every wording; those of one line are held out, never those of the first.

        Which line it is depends on the family's name and its lines alone.
        """
        held = min(self.lines[1:], key=lambda line: zlib.crc32(f"{self.name}: {line}".encode()))
        return tuple(
            Phrasing(f"{number}-{frame}", text, weight, line == held)
            for number, line in enumerate(self.lines)
            for frame, weight, text in _sentences(line, self.kind)
        )

    @cached_property
    def prints(self) -> bool:
        """Return whether its programs print what the reference returns."""
        return "print(" in self.bodies[0]

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
        reference: what the function returns (the text it prints, where the bodies print); it gets
            the arguments and those choices it names.
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


def _sentences(line: str, kind: str) -> Iterator[tuple[str, int, str]]:
    """Yield the name, the weight and the text of each wording of a line."""
    mark = line[0] if line[0] in FRAMES else "class" if kind == "class" else ""
    words = line[1:].strip() if mark == line[0] else line
    for name, (weight, frame) in FRAMES[mark].items():
        if name == "task" and line.split()[0] in NOT_TASKS and kind != "class":
            continue
        yield name, weight, frame.format(_lowered(words) if name == "task" else words)


def _lowered(text: str) -> str:
    """Return text that goes on in a sentence; quotes and names keep their capital letters."""
    return text if text[1:2].isupper() else text[0].lower() + text[1:]


def _taken(function: Callable[..., Any] | None, choices: Mapping[str, Any]) -> tuple[str, ...]:
    code = getattr(function, "__code__", None)  # built-in functions have none
    return tuple(name for name in choices if code and name in code.co_varnames[: code.co_argcount])


def _parameter(text: str) -> Parameter:
    slot, _, rest = text.partition(":")
    kind, _, default = rest.partition("=")
    return Parameter(slot, kind, default)
