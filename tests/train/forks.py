"""Forks children that train, or save, and end each of them by force; prints how they ended.

python forks.py RECIPE TEXTS FOLDER
"""

import itertools
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import torch
from small import Record, content, steps_in, trained

from qwenkit.checkpoint import _saving as saving
from qwenkit.files import clear_leftovers
from qwenkit.train import SaveTraining, checkpoints, save_training, train
from qwenkit.train import loop as loop_file
from qwenkit.train.checkpoints import _NAME


def forked(work, meanwhile=lambda child: None):
    """Run a function in a child; return its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")  # no progress bars
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    meanwhile(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def arm(at):
    """Kill this process at its at-th step towards the disk, perhaps in the middle of a file."""
    count = [0]

    def deadly(function):
        def wrapped(*args, **kwargs):
            count[0] += 1
            if count[0] == at:
                if function.__name__ == "save_file":
                    Path(args[1]).write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    places = [(saving, "save_file"), (os, "fsync"), (os, "replace"), (shutil, "rmtree")]
    for where, name in [*places, (Path, "rename"), (Path, "mkdir"), (Path, "write_text")]:
        setattr(where, name, deadly(getattr(where, name)))


def killed_trainings():
    """Kill trainings ever later, until one ends by itself; return the others' exit codes."""
    found = {}
    for at in itertools.count(1, 5):
        name = f"killed-{at}"
        code = forked(lambda at=at, name=name: (arm(at), begin(name)))
        if code >= 0:
            return found
        found[name] = code


def killed_saves():
    """Kill saves ever later, until one ends by itself; return what each left."""
    start, found = FOLDER / "start", []
    trainer = trained(SaveTraining(start), Record(until=2), save_every=1)
    trainer.train_step()
    shutil.copytree(start, FOLDER / "reference")
    save_training(FOLDER / "reference", trainer, keep=3)
    want = {path.name: content(path) for _, path in checkpoints(FOLDER / "reference")}
    code = -1
    while code < 0:
        at = len(found) + 1
        folder = shutil.copytree(start, FOLDER / "saves" / str(at))
        code = forked(lambda at=at, folder=folder: (arm(at), save_training(folder, trainer)))
        sound = all(content(path) == want[path.name] for _, path in checkpoints(folder))
        steps, left = steps_in(folder), len(list(folder.iterdir()))
        clear_leftovers(folder, _NAME.pattern)
        cleared = len(list(folder.iterdir())) == len(steps)
        found.append([code < 0, steps, sound, left - len(steps), cleared])
    return found


def begin(name, at=0, work=None):
    """Train in a folder; do something in the middle of a step."""
    real, count = loop_file.next_token_loss, [0]

    def loss(*args, **kwargs):
        count[0] += 1
        if count[0] == at:
            work()
        return real(*args, **kwargs)

    loop_file.next_token_loss = loss
    trainer = train(RECIPE, FOLDER / name, text=TEXTS)
    print(trainer.stopping, trainer.interrupted, trainer.step, flush=True)


def signalled(number):
    """Send a signal to a training while it is in a step."""
    (listen, ready), (go, tell) = os.pipe(), os.pipe()

    def send(child):
        os.read(listen, 1)
        os.kill(child, number)
        os.write(tell, b".")

    wait = lambda: (os.write(ready, b"."), os.read(go, 1))  # noqa: E731
    return forked(lambda: begin(number.name, 4, wait), send)


if __name__ == "__main__":
    torch.set_num_threads(1)
    RECIPE, TEXTS, FOLDER = map(Path, sys.argv[1:])
    ends = {"saves": killed_saves(), "killed": killed_trainings()}
    ends |= {number.name: signalled(number) for number in (signal.SIGINT, signal.SIGTERM)}
    twice = lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)]  # noqa: E731
    ends["twice"] = forked(lambda: begin("twice", 4, twice))
    limit = (resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))  # the optimizer's is larger
    ends["limit"] = forked(lambda: begin("limit", 3, lambda: resource.setrlimit(*limit)))
    print(json.dumps(ends))
