"""Rehearsal for Apple's GPU (MPS): would this computation run there? Asked on any machine.

    report = mps.rehearse(model, input_ids)
    print(report)

It runs the computation once on the CPU, sees every operator that torch calls, and looks up what
MPS would do with it.
"""

from mps.report import Finding, Report
from mps.run import rehearse

__all__ = ["Finding", "Report", "rehearse"]
