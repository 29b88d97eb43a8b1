"""Where the time of decoding one token goes, next to what memory alone would take.

    QWENKIT_MODEL=folder python tests/bench/limit.py [--dtypes bfloat16 int8] [--busy 2]

To decode a token, every weight is read from memory once. So the bytes, divided by the speed at
which memory is read, are the least time that a token can take, whatever the code. Memory is read in
large pages, in which the weights lie where the system has them (see `qwenkit.large_pages`), and in
pages as torch gets them; all shares are of the first. For each dtype a table says how far each part
of a token is from that: "lost" is the time beyond what its bytes take.
The rows add up to the whole token; `token_parts.py` says how they are timed. Tokens are decoded as
in `complete`, where all is checked for one in 32. For a caller that gets each token, as from
`generate`, all is checked for each; how long that takes is said below the table.

All sides take turns, memory and transformers (where it is installed, in float32, greedily too)
among them. With --busy all is measured once more while other processes keep cores busy.
"""

import argparse
import importlib.util
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import qwenkit as qk
from qwenkit.large_pages import empty
from record import about
from rows import apart, ratio, spread
from timing import BIG, busy_processes, memory_speed, others_share, seconds, take_turns
from token_parts import (
    ALL_CHECKS,
    PARTS,
    REMAINDER,
    SAMPLED,
    SAMPLING,
    WHOLE,
    Decoding,
    Times,
    medians,
)

DTYPES = ("float32", "bfloat16", "int8", "int4")
SMALL_PAGES = "memory in pages as torch gets them"
ALIKE = 0.15  # how far a ratio may fall while other processes are busy
Found = dict[str, list[Any]]  # side -> what each of its turns returned


class Theirs:
    """What takes a turn: the same text continued greedily by transformers, in float32."""

    def __init__(self, folder: str, ids: Tensor, tokens: int) -> None:
        from transformers import Qwen2ForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.new, self.tokens = ids[:, -1:], tokens
        with torch.no_grad():
            first = self.model(ids[:, :-1], use_cache=True, logits_to_keep=1)
        self.cache = first.past_key_values

    @torch.no_grad()
    def __call__(self) -> float:
        """Return the median of the seconds per token."""
        new = [self.new]

        def step() -> None:
            out = self.model(new[-1], past_key_values=self.cache, use_cache=True)
            new.append(out.logits[:, -1:].argmax(-1))

        took = [seconds(step) for _ in range(self.tokens)]
        self.cache.crop(-self.tokens)
        return statistics.median(took)


def sides(
    models: Mapping[str, qk.QwenForCausalLM], folder: str | None, past: int, tokens: int, big: int
) -> dict[str, Any]:
    """Return what takes turns: memory, transformers if there is a folder for it, each dtype."""
    count = min(model.num_tokens for model in models.values())
    ids = torch.randint(0, count, (1, past + 1), generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {d: Decoding(model, ids, tokens) for d, model in models.items()}
    found["memory"] = partial(memory_speed, empty((big,), torch.float32).fill_(1))
    found[SMALL_PAGES] = partial(memory_speed, torch.ones(big))
    return found | ({} if folder is None else {"transformers": Theirs(folder, ids, tokens)})


def whole(turns: Sequence[Sequence[Times]]) -> list[float]:
    """Return the seconds per token of each turn."""
    return [statistics.median(token[WHOLE] for token in turn) for turn in turns]


def table(found: Times, sizes: Mapping[str, int], speed: float) -> list[str]:
    """Return the lines of a dtype's table; `speed` is memory's in GB/s."""
    head = f"{'part':<33}{'bytes':>13}{'ms':>9}{'of token':>10}{'GB/s':>8}{'of memory':>11}"
    lines = [f"{head}{'lost, ms':>10}"]
    rows = {name: found[name] for name in (*PARTS, REMAINDER) if name in found}
    for name, took in {**rows, WHOLE: found[WHOLE]}.items():
        read = sum(sizes.values()) if name == WHOLE else sizes.get(name, 0)
        rate = read / 1e9 / took
        reads = f"{rate:>8.1f}{rate / speed:>11.0%}" if read else f"{'':>19}"
        line = f"{name:<33}{format(read, ',') if read else '':>13}{took * 1e3:>9.3f}"
        lost = (took - read / 1e9 / speed) * 1e3
        lines.append(f"{line}{took / found[WHOLE]:>10.1%}{reads}{lost:>10.3f}")
    return lines


def summary(dtype: str, found: Found, read: int) -> str:
    """Return a dtype's line: its time, its share of memory's speed, and what memory allows."""
    own, speed = whole(found[dtype]), found["memory"]
    took, of_memory = spread(own), ratio([read / 1e9 / one for one in own], speed)
    least = read / 1e9 / statistics.median(speed)
    line = (
        f"{dtype:<9}{took.median * 1e3:.2f} ms per token{apart(spread([t * 1e3 for t in own]))}, "
        f"{read / 1e9:.3f} GB, {of_memory.median:.0%} of memory's speed"
        f"; memory allows {least * 1e3:.2f} ms"
    )
    if "transformers" in found:
        times, theirs = ratio(found["transformers"], own), found["transformers"]
        most = statistics.median(theirs) / least
        line += f"; {times.median:.2f}{apart(times)} × transformers, of {most:.2f} that it allows"
    return line


def report(
    found: Found, sizes: Mapping[str, Mapping[str, int]], reasons: Mapping[str, str]
) -> None:
    """Print memory's speed, each dtype's table, and a line for each dtype."""
    speed, small = spread(found["memory"]), spread(found[SMALL_PAGES])
    print(
        f"memory is read at {speed.median:.1f} GB/s{apart(speed)}, "
        f"and in pages as torch gets them at {small.median:.1f}{apart(small)}"
    )
    for dtype, read in sizes.items():
        middle = medians([token for turn in found[dtype] for token in turn])
        print(f"\n{dtype}", *table(middle, read, speed.median), sep="\n")
        if SAMPLED in middle:
            how = " and ".join(f"{name} {value}" for name, value in SAMPLING.items())
            print(f"chosen by {how}, it takes {middle[SAMPLED] * 1e3:.3f} ms to choose")
            print(f"where a caller gets each token, checks take {middle[ALL_CHECKS] * 1e3:.3f} ms")
        else:
            print(f"not in parts: {reasons[dtype] or 'no compiled kernel served'}")
    print()
    if "transformers" in found:
        theirs = spread([one * 1e3 for one in found["transformers"]])
        print(f"transformers in float32 {theirs.median:.2f} ms per token{apart(theirs)}")
    print(*(summary(d, found, sum(read.values())) for d, read in sizes.items()), sep="\n")


def compare(quiet: Found, busy: Found, dtypes: Sequence[str]) -> None:
    """Print how the ratios to transformers changed while other processes were busy."""
    for dtype in dtypes:
        before, now = (ratio(one["transformers"], whole(one[dtype])) for one in (quiet, busy))
        change = now.median / before.median - 1
        verdict = "holds" if change >= -ALIKE else "FAILS"
        print(
            f"{dtype:<9}{before.median:.2f} × transformers, and {now.median:.2f}{apart(now)} while "
            f"others are busy: {change:+.0%}, {verdict}: asked {-ALIKE:.0%} or more"
        )


def as_json(found: Found, dtypes: Sequence[str]) -> dict[str, object]:
    """Return a pass as JSON can hold it: seconds of each token of each turn, GB/s of memory."""
    own = {dtype: {"turns": found[dtype], "seconds": whole(found[dtype])} for dtype in dtypes}
    memory = {"memory": found["memory"], "small_pages": found[SMALL_PAGES]}
    return {**memory, "transformers": found.get("transformers"), "dtypes": own}


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = parsed(given)
    folder = qk.resolve(options.model)
    models = {dtype: load(folder, dtype) for dtype in options.dtypes}
    able = importlib.util.find_spec("transformers") is not None and folder.is_dir()
    turns = sides(models, str(folder) if able else None, options.past, options.tokens, BIG)
    sizes = {dtype: turns[dtype].bytes for dtype in models}
    reasons = {dtype: qk.explain(model).reason for dtype, model in models.items()}
    kept = about(folder.name, options.rounds) | {"bytes": sizes}
    print(f"{folder.name}, {options.past} tokens in the cache, {torch.get_num_threads()} threads")
    passes: dict[str, Found] = {}
    for name, count in {"quiet": 0, **({"busy": options.busy} if options.busy else {})}.items():
        with others_share() as others, busy_processes(count):
            passes[name] = take_turns(turns, options.rounds)
        kept[name] = as_json(passes[name], options.dtypes) | {"others": others.share}
        print(f"\nwith {count} busy processes" if count else "")
        report(passes[name], sizes, reasons)
        print(f"other processes took {others.share:.0%} of the cores; above 10 % run it again")
    if options.busy and able:
        compare(passes["quiet"], passes["busy"], options.dtypes)
    if options.json:
        options.json.write_text(json.dumps(kept, indent=2, allow_nan=False) + "\n")


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a folder or a Hub id; else QWENKIT_MODEL")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=8, help="decoded per turn")
    parser.add_argument("--past", type=int, default=128, help="tokens in the cache before them")
    again = "measure once more while so many processes are busy"
    parser.add_argument("--busy", type=int, default=0, metavar="N", help=again)
    parser.add_argument("--json", type=Path, help="write all of it to this file as well")
    return parser.parse_args(given)


def load(folder: Path, dtype: str) -> qk.QwenForCausalLM:
    """Return the model in a dtype."""
    return qk.load_pretrained(folder, device="cpu", dtype=dtype)[0]


if __name__ == "__main__":
    main()
