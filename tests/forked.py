"""Runs code in children of one process that has imported qwenkit already: no import per child."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from fixtures_toy import ROOT, python

_SERVER = """
import json, os, sys, traceback
import qwenkit
for line in sys.stdin:
    code, arguments, environment, out, err = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY), number)
        os.environ.update(environment)
        sys.argv, status = ["-c", *arguments], 0
        try:
            exec(compile(code, "-c", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def python_forked(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run code as `fixtures_toy.python` does; qwenkit and the libraries it needs are imported."""
    if sys.platform != "linux":  # elsewhere libraries may not survive a fork
        return python(code, *arguments, **environment)
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, name) for name in ("out", "err")]
        for path in printed:
            path.touch()
        request = code, [*map(str, arguments)], environment, *map(str, printed)
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess([], status, *(path.read_text() for path in printed))


@cache
def _server() -> subprocess.Popen:
    env = {k: v for k, v in os.environ.items() if k != "QWENKIT_MODEL" and not k.startswith("HF_")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    atexit.register(server.communicate)  # closes its input, which ends it
    return server
