"""How many small programs are drawn in a second, and how many of them are different.

python tests/bench/programs.py
"""

import time
from itertools import islice

from qwenkit.programs import families_of, generate
from qwenkit.programs.generator import SPLITS

COUNT = 50_000


def main() -> None:
    """Print a line for each split."""
    for split in SPLITS:
        start = time.process_time()
        programs = list(islice(generate(0, split), COUNT))
        rate = COUNT / (time.process_time() - start)
        texts = len({one.code for one in programs})
        size = sum(len(one.code) for one in programs) / COUNT
        print(
            f"{split:9} {len(families_of(split)):4} families, {rate:6.0f} a second of CPU, ", end=""
        )
        print(f"{texts} different of {COUNT}, {size:.0f} characters each")


if __name__ == "__main__":
    main()
