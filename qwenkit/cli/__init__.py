"""The command line: qwenkit doctor | inspect | forward | generate | train | lab."""

from qwenkit.cli.main import main

__all__ = ["main"]
