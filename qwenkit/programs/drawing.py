"""One program drawn from a family: names, wording, body, tests and examples."""

import re
import textwrap
from collections.abc import Callable, Mapping
from functools import cache, partial
from random import Random
from typing import Any

from qwenkit.programs.family import Family, Phrasing
from qwenkit.programs.methods import with_docstrings
from qwenkit.programs.program import (
    Printed,
    Program,
    Text,
    call,
    claim,
    outcome,
    printed,
    refusal,
    shown,
)
from qwenkit.programs.slots import KINDS, LOCALS, NAMES

TESTS = 5
MARK = 3 * ">"  # before an example
WIDTH = 88
PREFIXES = ("get_", "find_", "compute_", "calculate_")
PLAIN_NAMES = ("solve", "solution", "f", "func", "task")
# A docstring's form -> how often it is drawn.
FORMS = {"line": 50, "block": 12, "examples": 24, "comment": 5, "none": 7}
EXPLAINED = 0.3  # of the classes have docstrings in their methods
BARE = 0.2  # of the classes have no docstring: beginners' seldom do
BUILTINS: dict[str, Callable[[Any], Any]] = {"len": len, "str": str, "repr": repr, "bool": bool}
_SLOT = re.compile(r"\$([a-z]+)")
_EITHER = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_TWICE = re.compile(r"\b([a-z]+) \1\b")
_NAME = re.compile(r"[A-Za-z_]\w*")


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
    if one.kind == "class" and not documented and rng.random() < BARE:
        form = "none"
    chosen = {slot: rng.choice(values) for slot, values in one.choices.items()}
    slots = {slot: str(value) for slot, value in chosen.items()}
    _name_parameters(one, template, rng.randrange(40), slots)
    slots["self"] = name = _named(rng, one, slots, form)
    tests, examples = _tested(rng, one, name, slots, chosen)
    imports, source = _filled(rng, template, slots)
    if one.kind == "class" and rng.random() < EXPLAINED:
        source = with_docstrings(rng, source)
    sentence = _sentence(rng, phrasing.text, slots)
    head = _signature(one, name, slots, rng.random() < 0.3)
    if "Iterator[" in head:
        imports = "from collections.abc import Iterator\n" + (imports or "\n\n")
    prompt = imports + _documented(rng, form, head, sentence, examples)
    spaced = "\n" if one.kind == "class" and form not in ("comment", "none") else ""
    return Program(
        one.name, phrasing.id, name, one.kind, prompt, spaced + textwrap.indent(source, "    "),
        tuple(tests),
    )  # fmt: skip


def _name_parameters(one: Family, template: str, place: int, slots: dict[str, str]) -> None:
    """Add a name for each parameter, from the same place in the pools of all."""
    for slot, _, _ in one.parameters:
        pool = NAMES.get(slot, [slot])
        ordered = [pool[(place + i) % len(pool)] for i in range(len(pool))] + [slot]
        taken = _written(template) | {*slots.values()}
        slots[slot] = next(name for name in ordered if name not in taken)


def _sentence(rng: Random, text: str, slots: Mapping[str, str]) -> str:
    text = _EITHER.sub(lambda found: rng.choice(found[1].split("|")), text)
    text = _SLOT.sub(lambda found: slots[found[1]], text)
    text = _TWICE.sub(r"\1", text)  # "the number number", where that is its name
    if rng.random() < 0.06 and text[-2].isalnum():
        return text.removesuffix(".")  # as beginners do
    return text


def _named(rng: Random, one: Family, slots: Mapping[str, str], form: str) -> str:
    name = rng.choice(one.names)
    if one.kind != "class" and form != "none" and rng.random() < 0.03:
        return rng.choice(PLAIN_NAMES)
    if name.startswith("~"):
        prefixes = PREFIXES if one.lines[0].startswith("#") else PREFIXES[:2]
        name = (rng.choice(prefixes) if rng.random() < 0.2 else "") + name[1:]
    return _SLOT.sub(lambda found: slots[found[1]], name)


def _signature(one: Family, name: str, slots: Mapping[str, str], annotated: bool) -> str:
    if one.kind == "class":
        return f"class {name}:\n"
    parts = []
    for slot, kind, default in one.parameters:
        typed = f": {KINDS[kind].annotation}" if annotated else ""
        equals = f" = {default}" if annotated else f"={default}"
        parts.append(slots[slot] + typed + (equals if default else ""))
    returns = f" -> {one.returns}" if annotated and one.returns else ""
    head = f"def {name}({', '.join(parts)}){returns}:\n"
    return head if len(head) <= WIDTH else _signature(one, name, slots, annotated=False)


def _filled(rng: Random, template: str, slots: Mapping[str, str]) -> tuple[str, str]:
    """Return the imports and the body of a template, with names for its local variables."""
    lines = _with_locals(template, slots, rng.choice).splitlines(keepends=True)
    if max(map(len, lines)) > WIDTH - 3:  # indented, and with its newline
        lines = _with_locals(template, slots, lambda free: min(free, key=len)).splitlines(True)
    count = next(i for i, line in enumerate(lines) if not line.startswith(("import ", "from ")))
    imports = "".join(lines[:count]) + "\n\n" if count else ""
    return imports, "".join(lines[count:])


@cache
def _written(template: str) -> set[str]:
    """Return the names that a template has in every program."""
    return set(_NAME.findall(_SLOT.sub("", template)))


def _with_locals(
    template: str, slots: Mapping[str, str], choose: Callable[[list[str]], str]
) -> str:
    taken = _written(template) | {*slots.values()}
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
        return (
            textwrap.fill(sentence, WIDTH, initial_indent="# ", subsequent_indent="# ")
            + f"\n{head}"
        )
    lines = textwrap.wrap(sentence, WIDTH - 4)
    if form == "examples" and not examples:
        form = "line"
    if form == "examples":
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
    found: dict[str, tuple[Any, ...]] = {}
    for _ in range(2 * TESTS):
        inputs = one.sample(rng, chosen)
        source = call(name, inputs)
        wrapped = f"list({source})" if one.kind == "generator" else source
        test, value = outcome(wrapped, partial(one.expect, inputs, chosen), one.raises)
        if one.prints:
            test, value = printed(source, value), Printed(value)
        found.setdefault(test, (shown(value), source, wrapped, value, inputs))
    first = {row[0]: test for test, row in found.items()}
    tests = list(dict.fromkeys([*first.values(), *found]))[:TESTS]
    rows = [(test, *found[test]) for test in tests]
    files = [next((one for one in row[5] if isinstance(one, Text)), None) for row in rows]
    if any(files):
        return [file.around(row[0]) for row, file in zip(rows, files, strict=True) if file], []
    telling = [row for row in rows if row[4] or row[4] in (0, False)] or rows  # not empty ones
    examples = [_example(row[3], row[4]) for row in telling[: rng.randint(1, 2)]]
    return tests, list(filter(None, examples))


def _example(source: str, value: Any) -> str:
    if isinstance(value, Exception) or value is None:
        return ""
    if isinstance(value, float) and (4 * value) % 1:
        return ""  # its digits depend on the order of the operations
    if isinstance(value, set):
        source, value = f"sorted({source})", sorted(value)
    text = f"{MARK} {source}\n{value!r}"
    return text if len(text) < 75 and "\\" not in text else ""


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
        test, value = outcome(source, partial(member, *arguments), one.raises)
        lines.append(source if value is None else test)
    return "\n".join(lines)
