"""Ctrl-C at a chosen line of the package; a kill or a fault at a chosen change of the disk."""

import shutil
import sys
from pathlib import Path

import torch

import qwenkit as qk

PACKAGE = str(Path(qk.__file__).parent)


def at_line(action, at, within=PACKAGE):
    """Run an action, and raise KeyboardInterrupt before its `at`-th line of a folder's code.

    Returned is how many lines there were.
    """
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(within):
            return None
        lines += event == "line"
        if lines == at and event == "line":
            raise KeyboardInterrupt
        return trace

    before, gradients = sys.gettrace(), torch.is_grad_enabled()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        torch.set_grad_enabled(gradients)  # a line may be the exit of a no_grad block
        torch.autocast_increment_nesting()
        while torch.autocast_decrement_nesting() > 0:  # or of an autocast block
            pass
        torch.clear_autocast_cache()
    return lines


def interrupted(action, at):
    """Run an action, Ctrl-C at its `at`-th line of the package; tell whether it came so far."""
    try:
        at_line(action, at)
    except KeyboardInterrupt:
        return True
    return False


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs, not even the clean-up."""


CHANGES = [(Path, "write_text"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"),
           (Path, "unlink"), (shutil, "rmtree")]  # fmt: skip


def failing_at(count, monkeypatch, error, *more):
    """Let the first `count` changes of the disk happen, and raise an error at all later ones.

    `more` are pairs of where and name: what counts as a change too.
    """
    done = 0

    def counted(change):
        def step(*args, **options):
            nonlocal done
            if done == count and isinstance(error, OSError) and options.get("ignore_errors"):
                return None
            if done == count:
                raise error
            done += 1
            return change(*args, **options)

        return step

    for where, name in (*CHANGES, *more):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
