"""Saves a model with its tokenizer over another, in forked children that are hindered; one report.

Arguments: SINGLE SHARDED FOLDER; the first two are checkpoints that differ in every file.
"""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch

import qwenkit as qk
from qwenkit.checkpoint import _saving as saving
from qwenkit.errors import QwenkitError

STEPS = [
    (saving, "save_file"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "unlink"),
    (os, "rmdir"), (os, "fsync"), (os, "chmod"), (Path, "write_text"),
]  # fmt: skip


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def forked(work):
    """Run a function in a child; return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        try:
            work()
        except QwenkitError:
            os._exit(3)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_step(number, fail):
    """Let the number-th change of the disk fail, perhaps in the middle of a file."""
    count = itertools.count(1)

    def hindered(function):
        def wrapped(*args, **kwargs):
            if next(count) >= number:
                if function.__name__ == "save_file":
                    Path(args[1]).write_bytes(b"half")
                fail()
            return function(*args, **kwargs)

        return wrapped

    for where, name in STEPS:
        setattr(where, name, hindered(getattr(where, name)))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device")


def read_only():
    raise OSError(errno.EROFS, "Read-only file system")


def small_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Saves:
    """Saves of one checkpoint over another."""

    def __init__(self, old, new, base):
        self.old, self.new, self.base = content(old), content(new), base
        self.source, self.loaded = old, qk.load_pretrained(new, dtype="bfloat16")
        self.numbers = itertools.count()

    def save(self, folder):
        qk.save_pretrained(self.loaded[0], folder, self.loaded[1])

    def fresh(self):
        return Path(shutil.copytree(self.source, self.base / str(next(self.numbers))))

    def state(self, folder):
        """What a folder holds after it was loaded: all of the old, all of the new, or a mixture."""
        qk.load_pretrained(folder)
        found = content(folder)
        found = {name: data for name, data in found.items() if not name.startswith("save.")}
        return "old" if found == self.old else "new" if found == self.new else "a mixture"

    def hindered(self, hinder):
        """Return how a hindered save ended, what is then there, and after one more save."""
        folder = self.fresh()
        code = ended(forked(lambda: (hinder(), self.save(folder))))
        before = self.state(folder)
        self.save(folder)
        clean = content(folder) == self.new
        shutil.rmtree(folder)
        return code, before, clean

    def all_steps(self, fail, every=1):
        """Return the results of failing at the first step, and at later ones, to the end."""
        found = []
        for number in itertools.count(1, every):
            found.append(self.hindered(lambda number=number: at_step(number, fail)))
            if found[-1][0] == 0:
                return found


def both_at_once(one, other):
    """Let two processes save into one folder; return how they ended, and what it holds."""
    folder = one.fresh()
    children = [forked(lambda who=who: who.save(folder)) for who in (one, other)]
    codes = [ended(child) for child in children]
    return codes, [one.state(folder), other.state(folder)]


def main():
    torch.set_num_threads(1)
    single, sharded, base = map(Path, sys.argv[1:])
    pairs = [Saves(single, sharded, base / "a"), Saves(sharded, single, base / "b")]
    report = {
        "killed": [pairs[0].all_steps(die), pairs[1].all_steps(die, every=2)],
        "full": [pairs[0].all_steps(no_space), pairs[1].all_steps(no_space, every=3)],
        "read-only": [pairs[0].all_steps(read_only, every=2)],
        "small": [
            [p.hindered(lambda s=s: small_files(s)) for s in (0, 300, 20_000)] for p in pairs
        ],
        "two": [both_at_once(*pairs) for _ in range(5)],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
