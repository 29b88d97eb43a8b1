"""The command line: qwenkit doctor | inspect | forward | generate | train | ... | lab."""

from qwenkit.cli._main import main

__all__ = ["main"]
