"""`python -m qwenkit.cli` runs the same commands as `qwenkit`."""

import sys

from qwenkit.cli import main

sys.exit(main())
