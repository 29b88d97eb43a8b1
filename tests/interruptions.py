"""Ctrl-C at a chosen line of the package."""

import sys
from pathlib import Path

import torch

import qwenkit as qk

PACKAGE = str(Path(qk.__file__).parent)


def interrupted(action, at):
    """Run an action, Ctrl-C at its `at`-th line of the package; tell whether it came so far."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        lines += event == "line"
        if lines == at and event == "line":
            raise KeyboardInterrupt
        return trace

    before, gradients = sys.gettrace(), torch.is_grad_enabled()
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        torch.set_grad_enabled(gradients)  # a line may be the exit of a no_grad block
    return False
