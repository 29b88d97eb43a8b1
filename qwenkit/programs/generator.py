"""Programs drawn from the families, by a seed."""

import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import accumulate
from random import Random
from typing import Any

from qwenkit.errors import InputError
from qwenkit.programs.families import FAMILIES
from qwenkit.programs.family import Family, Phrasing
from qwenkit.programs.program import Program, Text, call, claim, outcome, refusal, shown
from qwenkit.programs.slots import KINDS, LOCALS, NAMES

SPLITS = ("train", "phrasing", "family")
REMEMBERED = 100_000  # programs among which none is drawn twice, where the family has enough
TRIES = 20
TESTS = 5
WIDTH = 88
PREFIXES = ("get_", "find_", "compute_", "calculate_")
PLAIN_NAMES = ("solve", "solution", "f", "func", "answer", "compute")
# A docstring's form -> how often it is drawn.
FORMS = {"line": 50, "block": 12, "examples": 24, "comment": 5, "none": 7}
BUILTINS: dict[str, Callable[[Any], Any]] = {"len": len, "str": str, "repr": repr, "bool": bool}
_SLOT = re.compile(r"\$([a-z]+)")
_EITHER = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_NAME = re.compile(r"[A-Za-z_]\w*")


def generate(
    seed: int,
    split: str = "train",
    families: Collection[str] | None = None,
    phrasings: Collection[str] | None = None,
) -> Iterator[Program]:
    """Yield small programs without end; the same seed gives the same ones.

    Args:
        seed: an integer.
        split: "train"; "phrasing": the families of "train" in wordings held out from it; or
            "family": families held out from both, which are compositions of parts known from them.
        families: names of the only ones to draw from; by default all of the split.
        phrasings: ids of the only ones to draw; by default all of the split.

    Raises:
        InputError: where the split has no such family or phrasing.
    """
    pool = [(one, kept) for one in families(split) if families is None or one.name in families
            if (kept := _phrasings(one, split, phrasings))]  # fmt: skip
    missing = set(families or ()) - {one.name for one, _ in pool}
    if missing or not pool:
        names = ", ".join(sorted(missing)) or "no family"
        raise InputError(f"{names}: not in the split {split!r} with these phrasings")
    return _drawn(Random(seed), pool, split)


def families(split: str) -> list[Family]:
    """Return the families of a split."""
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    return [one for one in FAMILIES if one.held_out == (split == "family")]


def _phrasings(
    one: Family, split: str, only: Collection[str] | None
) -> list[Phrasing]:
    held = {"train": (False,), "phrasing": (True,), "family": (False, True)}[split]
    found = [phrase for phrase in one.phrasings if phrase.held_out in held]
    return [phrase for phrase in found if only is None or phrase.id in only]


def _drawn(rng: Random, pool: list[tuple[Family, list[Phrasing]]], split: str) -> Iterator[Program]:
    weights = list(accumulate(one.weight for one, _ in pool))
    known: set[str] = set()
    while True:
        if len(known) >= REMEMBERED:
            known.clear()
        for _ in range(TRIES):
            one, phrasings = rng.choices(pool, cum_weights=weights)[0]
            program = draw(rng, one, rng.choice(phrasings), documented=split != "train")
            if program.code not in known:
                break
        known.add(program.code)
        yield program


def draw(
    rng: Random, one: Family, phrasing: Phrasing, body: int | None = None, documented: bool = True
) -> Program:
    """Return one program of a family.

    Args:
        rng: where the choices come from.
        one: the family.
        phrasing: one of its wordings.
        body: the number of the body's style; by default any.
        documented: False allows programs without a docstring, or with a comment in its place.
    """
    template = one.bodies[rng.randrange(len(one.bodies)) if body is None else body]
    forms = list(FORMS)[: 3 if documented else 5]
    form = rng.choices(forms, [FORMS[name] for name in forms])[0]
    if form == "none" and one.kind == "class":
        form = "line"  # nothing else says what its methods are
    chosen = {slot: rng.choice(values) for slot, values in one.choices.items()}
    slots = {slot: str(value) for slot, value in chosen.items()}
    place = rng.randrange(40)
    for parameter in one.parameters:
        pool = NAMES.get(parameter.slot, [parameter.slot])
        ordered = [pool[(place + i) % len(pool)] for i in range(len(pool))] + [parameter.slot]
        slots[parameter.slot] = next(one for one in ordered if one not in slots.values())
    slots["self"] = name = _named(rng, one, slots, form)
    tests, examples = _tested(rng, one, name, slots, chosen)
    imports, source = _filled(rng, template, slots)
    sentence = _SLOT.sub(lambda found: slots[found[1]], _either(rng, phrasing.text))
    head = _signature(rng, one, name, slots)
    if "Iterator[" in head:
        imports = "from collections.abc import Iterator\n" + (imports or "\n\n")
    prompt = imports + _documented(rng, form, head, sentence, examples)
    spaced = "\n" if one.kind == "class" and form != "comment" else ""
    return Program(
        one.name, phrasing.id, name, one.kind, prompt, spaced + textwrap.indent(source, "    "),
        tuple(tests),
    )  # fmt: skip


def _either(rng: Random, text: str) -> str:
    return _EITHER.sub(lambda found: rng.choice(found[1].split("|")), text)


def _named(rng: Random, one: Family, slots: Mapping[str, str], form: str) -> str:
    name = rng.choice(one.names)
    if one.kind != "class" and form != "none" and rng.random() < 0.03:
        return rng.choice(PLAIN_NAMES)
    if name.startswith("~"):
        name = (rng.choice(PREFIXES) if rng.random() < 0.2 else "") + name[1:]
    return _SLOT.sub(lambda found: slots[found[1]], name)


def _signature(rng: Random, one: Family, name: str, slots: Mapping[str, str]) -> str:
    if one.kind == "class":
        return f"class {name}:\n"
    annotated = rng.random() < 0.3
    shown = []
    for slot, kind, default in one.parameters:
        typed = f": {KINDS[kind].annotation}" if annotated else ""
        equals = f" = {default}" if annotated else f"={default}"
        shown.append(slots[slot] + typed + (equals if default else ""))
    returns = f" -> {one.returns}" if annotated and one.returns else ""
    return f"def {name}({', '.join(shown)}){returns}:\n"


def _filled(rng: Random, template: str, slots: Mapping[str, str]) -> tuple[str, str]:
    """Return the imports and the body of a template, with names for its local variables."""
    lines = _with_locals(template, slots, rng.choice).splitlines(keepends=True)
    if max(map(len, lines)) > WIDTH - 3:  # indented, and with its newline
        lines = _with_locals(template, slots, lambda free: min(free, key=len)).splitlines(True)
    count = next(i for i, line in enumerate(lines) if not line.startswith(("import ", "from ")))
    imports = "".join(lines[:count]) + "\n\n" if count else ""
    return imports, "".join(lines[count:])


def _with_locals(
    template: str, slots: Mapping[str, str], choose: Callable[[list[str]], str]
) -> str:
    taken = {*_NAME.findall(template), *slots.values()}
    names = dict(slots)

    def name(found: re.Match[str]) -> str:
        slot = found[1]
        if slot not in names:
            names[slot] = choose([one for one in LOCALS[slot] if one not in taken] or [slot + "_"])
            taken.add(names[slot])
        return names[slot]

    return _SLOT.sub(name, template) + "\n"


def _documented(rng: Random, form: str, head: str, sentence: str, examples: list[str]) -> str:
    if form == "none":
        return head
    if form == "comment":
        return textwrap.fill(sentence, WIDTH, initial_indent="# ", subsequent_indent="# ") + f"\n{head}"
    lines = textwrap.wrap(sentence, WIDTH - 4)
    if form == "examples" and examples:
        titled = rng.random() < 0.15
        indent = "    " if titled else ""
        title = ["Examples:" if len(examples) > 1 else "Example:"] if titled else []
        lines += ["", *title, *(indent + row for one in examples for row in one.split("\n"))]
    elif form == "line" and len(sentence) <= WIDTH - 10:
        return f'{head}    """{sentence}"""\n'
    quotes = '    """'
    apart = form == "block" or rng.random() < 0.3 or len(lines[0]) > WIDTH - 7
    text = "\n".join(lines) + "\n"
    inside = textwrap.indent(text, "    ")
    return head + (f"{quotes}\n{inside}" if apart else quotes + inside[4:]) + quotes + "\n"


def _tested(
    rng: Random, one: Family, name: str, slots: Mapping[str, str], chosen: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Return tests of a program, and examples for its docstring."""
    if one.kind == "class":
        return [_script(one, name, slots, chosen, one.sample(rng, chosen)) for _ in range(3)], []
    found = {}  # by outcome: tests that tell different results apart come first
    for _ in range(2 * TESTS):
        inputs = one.sample(rng, chosen)
        source = call(name, inputs)
        wrapped = f"list({source})" if one.kind == "generator" else source
        test, value = outcome(wrapped, lambda inputs=inputs: one.expect(inputs, chosen), one.raises)
        found.setdefault(test, (shown(value), source, wrapped, value, inputs))
    first = {row[0]: test for test, row in found.items()}
    tests = list(dict.fromkeys([*first.values(), *found]))[:TESTS]
    rows = [(test, *found[test]) for test in tests]
    files = [next((one for one in row[5] if isinstance(one, Text)), None) for row in rows]
    if any(files):
        return [file.around(row[0]) for row, file in zip(rows, files, strict=True) if file], []
    examples = [_example(row[3], row[4]) for row in rows[: rng.randint(1, 2)]]
    return tests, list(filter(None, examples))


def _example(source: str, value: Any) -> str:
    if isinstance(value, Exception) or value is None:
        return ""
    if isinstance(value, float) and (4 * value) % 1:
        return ""  # its digits depend on the order of the operations
    if isinstance(value, set):
        source, value = f"sorted({source})", sorted(value)
    return f">>> {source}\n{value!r}" if len(source) + len(repr(value)) < 70 else ""


def _script(
    one: Family,
    name: str,
    slots: Mapping[str, str],
    chosen: Mapping[str, Any],
    inputs: tuple[Any, ...],
) -> str:
    """Return statements that make an object, call its methods, and check what they give."""
    first, steps = inputs
    made = call(name, first)
    try:
        instance = one.expect(first, chosen)
    except one.raises as error:
        return refusal(made, error)
    lines = [f"it = {made}"]
    for step, *arguments in steps:
        if step in BUILTINS:
            lines.append(claim(f"{step}(it)", BUILTINS[step](instance)))
            continue
        member = getattr(instance, step)
        source = f"it.{slots.get(step, step)}"
        if not callable(member):
            lines.append(claim(source, member))
            continue
        source = call(source, tuple(arguments))
        test, value = outcome(source, lambda: member(*arguments), one.raises)  # noqa: B023
        lines.append(source if value is None else test)
    return "\n".join(lines)
