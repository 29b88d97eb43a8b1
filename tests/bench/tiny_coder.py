"""Measure data/tiny-coder, and print its figures as they stand in its README.

    python tests/bench/tiny_coder.py [--model FOLDER] [--write]

--write puts them, and the training's curve, into that folder's README.md, between its markers. The
held-out text is the running Python's: figures of another version than the README names may differ
a little.
"""

import argparse
import functools
import platform
import random
import re
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import torch

import qwenkit as qk
from baselines import ByteNgram, xz_bits
from qwenkit import interpret
from qwenkit.pretrained import EMBEDDED
from qwenkit.train import Document, Evaluation, Recipe, evaluate, read_metrics, read_text
from timing import seconds
from tiny_programs import GAP, completions, load, programs

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
STRIDE = 128  # all but a file's first tokens see at least context - 128 tokens before them
LONG_LINE = 20  # characters; shorter lines, such as "return None", occur everywhere
FIM = (  # before, after: an argument list, a return, a condition, an import
    ("def area(", "):\n    return width * height\n"),
    ("def double(value):\n    result = value * 2\n    return ", "\n\n\ndef triple(value):\n"),
    ("    def close(self):\n        if self._file is not ", ":\n            self._file.close()\n"),
    ("import ", "\n\ndef exists(path):\n    return os.path.exists(path)\n"),
)
GAPS_A_FILE = 10
PARTS = ("", "-2")  # of the training: recipe.toml, recipe-2.toml
AROUND = (50, 100, 200, 300, 400)  # characters on each side of a gap


@functools.cache
def texts(folder: Path) -> tuple[list[Document], list[Document]]:
    """Return what the model was trained on and what was held out, from the running Python."""
    return read_text(data(folder))


def data(folder: Path) -> qk.train.DataSettings:
    """Return what the recipe says of the text and its windows."""
    return Recipe.from_file(folder / "recipe.toml").data


@functools.cache
def bits(folder: Path) -> dict[str, Evaluation]:
    """Return each held-out file's evaluation, in the order of their names."""
    _, held = texts(folder)
    context, batch_size = data(folder).context, 4  # 8 leaves the cache
    return evaluate(*load(folder), held, context=context, stride=STRIDE, batch_size=batch_size)


def best_heads(folder: Path) -> dict[str, tuple[float, int, int]]:
    """Return (score, layer, head) of the best previous-token head and the best induction head."""
    model, tokenizer = load(folder)
    code = [tokenizer(one.text, special=False)[:, :256] for one in texts(folder)[1]]
    code = torch.cat([ids for ids in code if ids.shape[1] == 256])
    found = interpret.previous_token_scores(model, code), interpret.induction_scores(model)
    heads = model.config.num_attention_heads
    best = [(float(scores.max()), *divmod(int(scores.argmax()), heads)) for scores in found]
    return dict(zip(("previous-token", "induction"), best, strict=True))


def copying_without(folder: Path) -> list[float]:
    """Return how many nats per token copying costs more without each head of that layer."""
    model, _ = load(folder)
    ids = interpret.repeated_tokens(model, length=24, batch_size=8)

    def surprise(logits: torch.Tensor) -> torch.Tensor:
        log = logits[:, 23:-1].log_softmax(-1)  # the second half, each token from the one before
        return -log.gather(-1, ids[:, 24:, None]).mean()

    layer = best_heads(folder)["induction"][1]
    return [float(effect) for effect in interpret.head_effects(model, ids, surprise)[layer]]


def fillings(folder: Path) -> list[tuple[str, str, str]]:
    """Return (before, filled in, after) for the FIM prompts."""
    return [(b, qk.fill(*load(folder), b, a, max_new_tokens=32), a) for b, a in FIM]


@functools.cache
def gaps(folder: Path, around: int = 200) -> list[tuple[str, str, str]]:
    """Return (before, missing, after) from the held-out files: argument lists and returns.

    Before and after are so many characters, and what is left of their last lines.
    """
    chosen = random.Random(0)
    found = []
    for one in texts(folder)[1]:
        spans = [match.span(1) for match in GAP.finditer(one.text)]
        for start, stop in sorted(chosen.sample(spans, min(GAPS_A_FILE, len(spans)))):
            first = one.text.rfind("\n", 0, max(start - around, 0)) + 1
            last = one.text.find("\n", min(stop + around, len(one.text) - 1)) + 1
            found.append((one.text[first:start], one.text[start:stop], one.text[stop:last]))
    return found


@functools.cache
def infilling(folder: Path, around: int = 200) -> dict[str, float]:
    """Return the loss of the text in held-out gaps, in nats per token, with and without `after`."""
    model, tokenizer = load(folder)
    rows = []  # ids before a gap, and in it
    for before, missing, after in gaps(folder, around):
        middle = tokenizer.encode(missing, special=False)
        rows.append((tokenizer.encode(tokenizer.fim(before, after)), middle))
        rows.append((tokenizer.encode(before, special=False), middle))
    nats = [0.0] * len(rows)
    by_length = sorted(range(len(rows)), key=lambda row: sum(map(len, rows[row])))
    for some in (by_length[first : first + 8] for first in range(0, len(rows), 8)):
        width = max(sum(map(len, rows[row])) for row in some)
        padded = [[*rows[row][0], *rows[row][1], *[0] * width][:width] for row in some]
        found = qk.log_probabilities(model, padded)  # a token does not see the padding after it
        for row, log in zip(some, found, strict=True):
            start, middle = rows[row]
            nats[row] = -float(log[len(start) - 1 :][: len(middle)].sum())
    count = sum(len(middle) for _, middle in rows[::2])
    return {"with what follows": sum(nats[::2]) / count, "without": sum(nats[1::2]) / count}


def filled_exactly(folder: Path) -> float:
    """Return the proportion of held-out gaps that are filled with exactly what was there."""
    found = [(qk.fill(*load(folder), b, a, max_new_tokens=24), gap) for b, gap, a in gaps(folder)]
    return sum(filled == gap for filled, gap in found) / len(found)


def seconds_to_first_token(rounds: int = 5) -> float:
    """Return the median time from a fresh interpreter to the first token, torch's import in it."""
    code = "import qwenkit as qk; next(qk.stream(*qk.load_pretrained(), 'def fib(n):'))"
    start = functools.partial(subprocess.run, [sys.executable, "-c", code], check=True)
    return statistics.median(seconds(start) for _ in range(rounds))


def bits_table(folder: Path) -> str:
    """Return the held-out files' table, and what its columns mean."""
    train, held = texts(folder)
    ngram = ByteNgram([one.text.encode() for one in train])
    known = {line.strip() for one in train for line in one.text.splitlines()}
    found, each, rows = bits(folder), [], []
    for one in held:
        text = one.text.encode()
        each.append([found[one.name].bits_per_byte * len(text), xz_bits(text), ngram.bits(text)])
        long = [x.strip() for x in one.text.splitlines() if len(x.strip()) >= LONG_LINE]
        shared = sum(line in known for line in long) / max(len(long), 1)
        rows.append(_row(one.name, len(text), each[-1], f"{shared:.0%}"))
    total = [sum(column) for column in zip(*each, strict=True)]
    rows.append(_row("all", sum(one.num_bytes for one in held), total, ""))
    table = "\n".join(rows)
    return f"""\
| held-out file | bytes | tiny-coder | xz -9e | byte 5-gram | below xz | known lines |
|---|---:|---:|---:|---:|---:|---:|
{table}

Each token is predicted from at most {data(folder).context} before it, in windows with a stride of \
{STRIDE}. \
The 5-gram model (Witten and Bell's interpolation) counted the same text that tiny-coder was \
trained on. Known lines: how many of a file's lines of {LONG_LINE} characters or more are word for \
word in that text."""


def _row(name: str, size: int, bits: list[float], last: str) -> str:
    cells = [name, f"{size:,}", *(f"{some / size:.2f}" for some in bits)]
    return "| " + " | ".join([*cells, f"{1 - bits[0] / bits[1]:.0%}", last]) + " |"


def parts(folder: Path) -> list[tuple[Recipe, dict[str, list[float]]]]:
    """Return the recipe and the metrics of each part of the training."""
    names = [(f"recipe{part}.toml", f"metrics{part}.csv") for part in PARTS]
    return [(Recipe.from_file(folder / one), read_metrics(folder / two)) for one, two in names]


def curve(folder: Path) -> str:
    """Return what metrics.csv says of each part of the training."""
    said = []
    for (recipe, metrics), name in zip(parts(folder), ("first", "second"), strict=True):
        steps, speeds = metrics["step"], metrics["tokens_per_second"]
        window = recipe.data.context * recipe.data.batch_size
        read = [(b - a) * window for a, b in pairwise([0.0, *steps])]
        minutes = sum(some / speed for some, speed in zip(read, speeds, strict=True)) / 60
        held = metrics["evaluation_bits_per_byte"][-1]
        said.append(
            f"the {name} part read {sum(read) / 1e6:.1f} million tokens in {steps[-1]:.0f} steps, "
            f"which took {minutes:.0f} minutes ({held:.3f} bits per byte)"
        )
    text = "; ".join(said)
    return f"""\
{text[0].upper()}{text[1:]}. Evaluations are not counted, and other work ran on the same two \
cores. The bits per byte are of the held-out files, read in windows with a stride of \
{data(folder).context}, by the part's last model."""


def all_metrics(folder: Path) -> dict[str, list[float]]:
    """Return the metrics of all parts, one after the other."""
    joined: dict[str, list[float]] = {}
    done = {"step": 0.0, "tokens": 0.0}
    for _, metrics in parts(folder):
        for name, values in metrics.items():
            joined.setdefault(name, []).extend(value + done.get(name, 0.0) for value in values)
        done = {name: joined[name][-1] for name in done}
    return joined


def figures(folder: Path) -> str:
    """Return all figures as Markdown."""
    best, done, gap = best_heads(folder), completions(folder), infilling(folder)
    head = "- best {0} head: layer {2}, head {3}, score {1:.2f}".format
    heads = "\n".join(head(name, *found) for name, found in best.items())
    good = sum(one.right for one in done)
    verdict = {True: "Right:", False: "Wrong:"}
    shown = "\n".join(
        f"{verdict[one.right]}\n\n{_python(f'{one.prompt}▶{one.text}')}" for one in done
    )
    filled = "\n".join(_python(f"{before}▶{x}◀{after}") for before, x, after in fillings(folder))
    torch_version = torch.__version__.split("+")[0]
    return f"""\
### The run

{curve(folder)}

### Bits per byte on files it has never seen

{bits_table(folder)}

### Heads

{heads}

The scores are the mean attention to the token before, on the held-out files, and to the token \
after the earlier occurrence, on random tokens twice in a row. {_missed(copying_without(folder))}

### Ten completions, unedited

The prompt, then ▶ and what the model adds: the most likely token each time, until it gives the \
stop token. {good} of {len(done)} are right: they end by themselves, and pass the tests in \
tests/bench/tiny_programs.py.

{shown}
### Programs for tasks it has not seen

{programs(folder)}

### Filling in

{len(gaps(folder))} gaps in the held-out files, argument lists and returns: with what follows in \
sight the missing text costs {gap["with what follows"]:.3f} nats per token, with only what comes \
before {gap["without"]:.3f}. {filled_exactly(folder):.0%} are an exact match. That is with about \
200 characters on each side; with others:

{more_or_less(folder)}

Unedited; what the model fills in is between ▶ and ◀.

{filled}
Measured with Python {platform.python_version()}, torch {torch_version}, float32 on a CPU."""


def more_or_less(folder: Path) -> str:
    """Return the loss of the missing text by how much of the text around it is in sight."""
    rows = [
        f"| {around} | " + " | ".join(f"{loss:.2f}" for loss in infilling(folder, around).values())
        for around in AROUND
    ]
    head = "| characters on each side | with what follows | without |\n|---:|---:|---:|"
    return "\n".join([head, *(f"{row} |" for row in rows)])


def _python(text: str) -> str:
    return "```python\n" + text.rstrip("\n") + "\n```\n"


def _missed(costs: list[float]) -> str:
    """Say which head copying misses most."""
    (most, head), (second, other) = sorted(((c, i) for i, c in enumerate(costs)), reverse=True)[:2]
    return f"""\
Of that layer's heads, copying misses head {head} most: without it a token costs {most:.2f} nats \
more; without head {other}, the next, {second:.2f}."""


def write(folder: Path, text: str) -> None:
    """Put the figures and the curve into the folder's README."""
    import matplotlib as mpl

    mpl.use("Agg")
    readme = folder / "README.md"
    before, _, after = re.split(f"{BEGIN}|{END}", readme.read_text(encoding="utf-8"))
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    axes = qk.plot.training_curve(all_metrics(folder))
    axes.figure.savefig(folder / "curve.png", dpi=90, metadata={"Software": None})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--write", action="store_true", help="into the folder's README.md")
    options = parser.parse_args()
    print(text := figures(options.model))
    if options.model == EMBEDDED:
        print(f"\nto the first token: {seconds_to_first_token():.2f} s (median of 5)")
    if options.write:
        write(options.model, text)


if __name__ == "__main__":
    main()
