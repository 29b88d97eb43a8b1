"""A rehearsal for Apple's GPU (MPS): would this computation run there? Asked on any machine.

In a test: `from mps import rehearse`, then `report = rehearse(fn, *inputs)` and
`assert report.ok, report`. It runs `fn` once on the CPU, sees every operator that torch calls, and
looks up what MPS would do with it: see `rehearse`, and `Report` for what else it tells.
"""

from mps._report import Finding, Report
from mps._run import rehearse

__all__ = ["Finding", "Report", "rehearse"]
