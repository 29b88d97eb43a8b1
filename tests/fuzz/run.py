"""Fuzz every format, or those named, two at a time, and print a table: `make fuzz N=10000`.

python tests/fuzz/run.py [--examples N] [--seed S] [--jobs J] [FORMAT ...]
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

from engine import HEAD, fuzz
from formats import FORMATS


def main() -> None:
    """Fuzz, print, and end with 1 where anything was bad."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--examples", type=int, default=10_000, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    names = options.formats or list(FORMATS)
    with ProcessPoolExecutor(options.jobs) as pool:
        several = len(names) * [options.examples], len(names) * [options.seed]
        results = list(pool.map(fuzz, names, *several))
    reports = [one.report() for one in results if one.bad]
    print("\n".join([*reports, HEAD, *(one.row() for one in results)]))
    sys.exit(bool(reports))


if __name__ == "__main__":
    main()
