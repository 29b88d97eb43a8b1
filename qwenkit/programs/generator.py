"""Programs drawn from the families, by a seed."""

from collections.abc import Collection, Iterator
from itertools import accumulate
from random import Random

from qwenkit.errors import InputError
from qwenkit.programs.drawing import draw
from qwenkit.programs.families import FAMILIES
from qwenkit.programs.family import Family, Phrasing
from qwenkit.programs.program import Program

SPLITS = ("train", "phrasing", "family")
REMEMBERED = 100_000  # programs among which none comes twice, as long as there are others
TRIES = 20


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
    members = {one.name: one for one in families_of(split)}
    for name in families or ():
        if name not in members:
            raise InputError(
                f"{name}: no such family in the split {split!r}; "
                f"families_of({split!r}) lists those it has"
            )
    chosen = [one for name, one in members.items() if families is None or name in families]
    pool = [(one, kept) for one in chosen if (kept := _phrasings(one, split, phrasings))]
    if not pool:
        names = ", ".join(phrasings or ["at all"])
        raise InputError(f"no phrasing {names} in the split {split!r} of these families")
    return _drawn(Random(seed), pool, split)


def families_of(split: str) -> list[Family]:
    """Return the families of a split."""
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    return [one for one in FAMILIES if one.held_out == (split == "family")]


def _phrasings(one: Family, split: str, only: Collection[str] | None) -> list[Phrasing]:
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
            phrasing = rng.choices(phrasings, [phrase.weight for phrase in phrasings])[0]
            program = draw(rng, one, phrasing, documented=split != "train")
            if program.code not in known:
                break
        known.add(program.code)
        yield program
