"""Time speculative decoding by prompt lookup next to `generate`, on an editing task.

    QWENKIT_MODEL=folder python tests/bench/speculation.py [--rounds 3] [--tokens 8] [--new 128]

The prompt shows a function, asks for it with one name changed, and begins it: to a base model that
is the same function twice. Both sides continue it greedily and take turns. A ratio below 1 means
that `speculate` is faster. How many tokens a forward pass gives depends on the text and the model,
and not on the machine.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

import qwenkit as qk
from qwenkit.generate import GenerationConfig, PromptLookup, Speculation
from qwenkit.generate.steps import continued
from rows import show
from timing import others_share, seconds, take_turns

FUNCTION = '''\
def summarize(path, limit=10, separator=","):
    """Read a table of names and amounts, and print the largest sums with their share.

    Lines without an amount are skipped, and counted.
    """
    totals = {}
    skipped = 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            fields = line.split(separator)
            if len(fields) != 2:
                raise ValueError(f"line {number}: expected two fields, got {len(fields)}")
            name, amount = (field.strip() for field in fields)
            if not amount:
                skipped += 1
                continue
            try:
                value = float(amount)
            except ValueError:
                raise ValueError(f"line {number}: {amount!r} is not a number") from None
            if name in totals:
                totals[name] += value
            else:
                totals[name] = value
    if not totals:
        print("nothing to summarize")
        return totals
    whole = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda pair: -pair[1])
    for rank, (name, value) in enumerate(ordered[:limit], start=1):
        share = value / whole if whole else 0.0
        print(f"{rank:>3} {name:<20} {value:>12.2f} {share:>7.1%}")
    rest = len(ordered) - limit
    if rest > 0:
        print(f"... and {rest} more")
    if skipped:
        print(f"{skipped} lines had no amount")
    return totals
'''
ASKED = "\n\n# The same function; totals is now called sums.\n"
BEGUN = 5  # lines of the changed function that the prompt has already


def editing_prompt() -> str:
    """Return the function, what is asked for, and the first lines of the answer."""
    changed = FUNCTION.replace("totals", "sums").splitlines(keepends=True)
    return FUNCTION + ASKED + "".join(changed[: BEGUN + 1])


class Side:
    """One way to continue the prompt; its steps of the last turn are kept."""

    def __init__(self, cache: qk.KVCache, begin: Callable) -> None:
        self.cache, self.past, self.begin = cache, cache.length, begin

    def __call__(self) -> float:
        """Return the seconds per token."""
        self.cache.trim(self.past)
        self.steps = self.begin()
        took = seconds(self._run)
        return took / len(self.written)

    def _run(self) -> None:
        self.written = [step.token_id for step in self.steps]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=8, help="proposed at a time")
    parser.add_argument("--new", type=int, default=128, help="tokens that are generated")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    model, tokenizer = qk.load_pretrained(device="cpu", dtype=options.dtype)
    ids = tokenizer(editing_prompt())
    cache = qk.KVCache(model.config, 1, ids.shape[1] + options.new)
    with torch.no_grad():
        model(ids[:, :-1], cache=cache, logits_to_keep=1)  # once, for both sides
    given = model, ids, cache
    config = GenerationConfig(max_new_tokens=options.new)
    guessed = partial(Speculation, *given, PromptLookup(), options.tokens, config)
    sides = {
        "qwenkit": Side(cache, guessed),
        "generate": Side(cache, partial(continued, *given, config)),
    }
    print(f"{ids.shape[1]} tokens, {model.dtype}, {torch.get_num_threads()} threads")
    with others_share() as others:
        found = take_turns(sides, options.rounds)
    show({"editing by prompt lookup, s per token": found})
    account(sides)
    print(f"other processes took {others.share:.0%} of the cores; above 10 % run it again")


def account(sides: dict[str, Side]) -> None:
    """Print what was guessed, and whether the texts are equal."""
    ours, theirs = sides["qwenkit"], sides["generate"]
    done, count = ours.steps, len(ours.written)
    print(
        f"{count} tokens by {done.forwards} forward passes, {count / done.forwards:.1f} each; "
        f"{done.accepted} of {done.proposed} proposed tokens accepted, "
        f"{done.accepted / done.forwards:.1f} per forward pass"
    )
    same = [one == other for one, other in zip(ours.written, theirs.written, strict=False)]
    print("the same text" if ours.written == theirs.written else f"equal up to {same.index(False)}")


if __name__ == "__main__":
    main()
