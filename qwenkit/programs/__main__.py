"""The command line: python -m qwenkit.programs prints small programs, or counts them."""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice

from qwenkit.errors import QwenkitError
from qwenkit.programs.generator import SPLITS, families_of, generate


def main(arguments: Sequence[str] | None = None) -> int:
    """Print programs with their tests; return 0, or 1 on an error."""
    parser = argparse.ArgumentParser(prog="python -m qwenkit.programs", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10, help="how many programs")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--family", action="append", help="only this one (may be repeated)")
    parser.add_argument("--distinct", action="store_true", help="print only how many are different")
    options = parser.parse_args(arguments)
    try:
        drawn = islice(generate(options.seed, options.split, options.family), options.count)
    except QwenkitError as error:
        print(f"qwenkit: {error}", file=sys.stderr)
        return 1
    if options.distinct:
        texts = len({one.code for one in drawn})
        print(f"{len(families_of(options.split))} families in {options.split!r}")
        print(f"{texts} different programs in {options.count}")
        return 0
    for one in drawn:
        print(
            f"# {one.family}, wording {one.phrasing}\n{one.code}\n\n" + "\n".join(one.tests), "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
