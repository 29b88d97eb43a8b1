"""Measure how well data/tiny-coder writes programs, by running what it writes.

    python tests/bench/tiny_programs.py [--model FOLDER]

The tasks were not in its training: known families of programs in other words, and other families,
made of known parts. The ten prompts are those of its README.
"""

import argparse
import functools
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import qwenkit as qk
from qwenkit.pretrained import EMBEDDED
from qwenkit.programs import (
    Score,
    Task,
    generate,
    generate_tasks,
    overlap,
    read_tasks,
    run,
    score,
)

SEED = 2026  # of the tasks; the training's programs come from other seeds
COUNT = {"phrasing": 400, "family": 200}
COURSE = Path(__file__).parents[1] / "programs" / "course.jsonl"
SEEN = 100_000  # programs of the training's kind in which the tasks are looked for
BODIES = 300
GAP = re.compile(r"(?:\(|return )([^()\n]{3,40})(?=\)|\n)")
# Ten functions that the standard library does not have; written before the model was trained.
PROMPTS = (
    'def total_price(items, tax_rate):\n    """Return the price of all items with tax."""\n',
    "def count_words(text):\n    counts = {}\n    for word in text.split():\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "def read_lines(path):\n    with open(path) as file:\n",
    "def is_even(number):\n    if number % 2 ==",
    "def largest(values):\n    best = None\n    for value in values:\n        if best is None or",
    'def celsius_to_fahrenheit(degrees):\n    """Convert degrees."""\n    return',
    "class Rectangle:\n    def __init__(self, width, height):\n        self.width =",
    "def parse_port(text):\n    try:\n        port = int(text)\n    except ValueError:\n",
    "def greet(name, greeting='Hello'):\n    print('%s, %s!' % (",
)
# What they must do.
TESTS = (
    "assert abs(total_price([10, 20], 0.5) - 45) < 1e-6\nassert abs(total_price([], 0.1)) < 1e-6",
    "assert count_words('a b a') == {'a': 2, 'b': 1}\nassert count_words('') == {}",
    "it = Stack()\nit.push(3)\nit.push(4)\nassert it.items == [3, 4]",
    "with open('a.txt', 'w') as file:\n    file.write('one\\ntwo\\n')\n"
    "assert [line.rstrip('\\n') for line in read_lines('a.txt')] == ['one', 'two']",
    "assert is_even(4) is True\nassert is_even(7) is False\nassert is_even(0) is True",
    "assert largest([3, 9, 2]) == 9\nassert largest([-5]) == -5\nassert largest([1, 2]) == 2",
    "assert celsius_to_fahrenheit(100) == 212\nassert celsius_to_fahrenheit(-40) == -40",
    "it = Rectangle(3, 4)\nassert (it.width, it.height) == (3, 4)",
    "assert parse_port('8080') == 8080\ntry:\n    assert parse_port('x') is None\n"
    "except ValueError:\n    pass",
    "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
    "    greet('Anna')\nassert out.getvalue() == 'Hello, Anna!\\n'",
)


@dataclass(frozen=True)
class Completion:
    """What the model added to one of the ten prompts."""

    prompt: str
    text: str
    ended: bool  # by a stop token
    passed: bool

    @property
    def right(self) -> bool:
        """Whether it ended by itself, ran, and did what it says."""
        return self.ended and self.passed


@functools.cache
def load(folder: Path) -> tuple[qk.QwenForCausalLM, qk.Tokenizer]:
    """Return the model in float32 on the CPU, where the figures are taken."""
    return qk.load_pretrained(folder, device="cpu", dtype="float32")


def tasks_of(split: str, count: int | None = None) -> list[Task]:
    """Return the tasks of a split of the generator, or the hand-written ones of a first course."""
    if split == "course":
        return read_tasks(COURSE)[:count]
    return generate_tasks(count or COUNT[split], split, SEED)


def scored(folder: Path, split: str, samples: int = 10, count: int | None = None) -> Score:
    """Return pass@k of tasks that were not in the training."""
    tasks = tasks_of(split, count)
    ks = (1, 10) if samples >= 10 else ()
    return score(*load(folder), tasks, samples=samples, ks=ks, seed=SEED, max_new_tokens=160)


@functools.cache
def completions(folder: Path) -> list[Completion]:
    """Return what the model adds to the ten prompts: the most likely token each time."""
    model, tokenizer = load(folder)
    found = []
    for prompt, tests in zip(PROMPTS, TESTS, strict=True):
        ids = tokenizer(prompt)
        stops = {tokenizer.document_end}
        new = [
            step.token_id for step in qk.generate(model, ids, max_new_tokens=160, stop_ids=stops)
        ]
        ended = new[-1] in stops
        text = tokenizer.decode(new[:-1] if ended else new)
        found.append(Completion(prompt, text, ended, run(prompt + text, tests).passed))
    return found


def filled_exactly(folder: Path, count: int = BODIES) -> float:
    """Return the proportion of gaps in the bodies of held-out programs that are filled exactly."""
    model, tokenizer = load(folder)
    gaps = []
    for one in generate(SEED, "phrasing"):
        spans = [match.span(1) for match in GAP.finditer(one.body)]
        if spans:
            start, stop = spans[len(gaps) % len(spans)]
            gaps.append((one.prompt + one.body[:start], one.body[start:stop], one.body[stop:]))
        if len(gaps) == count:
            break
    prompts = [tokenizer.fim(before, after) for before, _, after in gaps]
    filled: list[str] = []
    for first in range(0, count, 32):
        part = prompts[first : first + 32]
        filled += qk.complete_batch(model, tokenizer, part, max_new_tokens=24)
    return sum(text == gap for text, (_, gap, _) in zip(filled, gaps, strict=True)) / count


def known(split: str) -> str:
    """Return how many of the tasks occur among programs of the training's kind."""
    return str(overlap(tasks_of(split), (one.code for one in islice(generate(1), SEEN))))


def programs(folder: Path) -> str:
    """Return the figures as Markdown."""
    tasks = {
        "phrasing": "known families, other words",
        "family": "other families",
        "course": "a first course, written by hand",
    }
    rows = []
    for split, what in tasks.items():
        found = scored(folder, split)
        figures = found.greedy(), found.pass_at(1), found.pass_at(10)
        rows.append(f"| {what} | {len(found.tasks)} | " + " | ".join(map(str, figures)) + " |")
    table = "\n".join(rows)
    checked = "\n".join(f"- {what}: {known(split)}" for split, what in tasks.items())
    return f"""\
| tasks | number | greedy | pass@1 | pass@10 |
|---|---:|---:|---:|---:|
{table}

With 95 % intervals over tasks; samples at temperature 0.8. How much of the tasks occurs among \
{SEEN:,} programs of the training's kind:

{checked}

{filled_exactly(folder):.0%} of \
{BODIES} gaps in the bodies of programs are filled with an exact match."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    options = parser.parse_args()
    for one in completions(options.model):
        print(f"{'right' if one.right else 'WRONG'} (ended: {one.ended})\n{one.prompt}▶{one.text}")
    print(programs(options.model))


if __name__ == "__main__":
    main()
