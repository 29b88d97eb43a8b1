"""Check the style and the types of all JavaScript; `make lint` runs it.

ESLint and TypeScript are installed once, into node_modules next to this file. Where they cannot be,
because there is no npm or its registry is out of reach, nothing is checked, which is said loudly.
A missing Node.js fails only where QWENKIT_REQUIRE_BROWSER is set.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = HERE / "node_modules"
STAMP = MODULES / ".installed"
OLDEST = (20, 19)  # what ESLint runs on
SECONDS = 60  # for the installation; it takes 5
OURS = ("EUSAGE", "EINTEGRITY", "EJSONPARSE")  # npm's errors that a change here causes
CHECKS = (
    ["eslint/bin/eslint.js", "--config", HERE / "eslint.config.mjs", "--max-warnings", "0",
     ROOT / "qwenkit" / "widgets" / "static", ROOT / "qwenkit" / "cli" / "jupyter", HERE,
     ROOT / "tests" / "engine"],
    ["typescript/bin/tsc", "--project", HERE],
)  # fmt: skip


def skip(why: str) -> int:
    """Say loudly that nothing is checked."""
    line = "!" * 78
    print(f"{line}\nJAVASCRIPT IS NOT CHECKED: {why}\n{line}", file=sys.stderr, flush=True)
    return 0


def node_version(node: str) -> tuple[int, ...]:
    """Return (20, 19) of v20.19.1; of what is not a version, nothing."""
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def wanted() -> str:
    """Return what the stamp holds when the right versions are installed."""
    files = [HERE / name for name in ("package.json", "package-lock.json")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def install(npm: str) -> str:
    """Install by the lock file; return what went wrong, or an empty text."""
    STAMP.unlink(missing_ok=True)
    print(f"Installing ESLint and TypeScript into {MODULES.relative_to(ROOT)}", flush=True)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
    command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    run = subprocess.Popen(
        command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = run.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)  # npm and what it started
        run.communicate()
        return f"npm ci did not end within {SECONDS} s; is npm's registry out of reach?"
    if run.returncode:
        return f"npm ci failed:\n{said.strip()}"
    STAMP.write_text(wanted(), encoding="utf-8")
    return ""


def main() -> int:
    """Return 0 where all is well or nothing can be checked."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None and os.environ.get("QWENKIT_REQUIRE_BROWSER"):
        print("NO NODE: install Node.js; it checks the JavaScript", file=sys.stderr)
        return 1
    if node is None:
        return skip("Node.js is not installed")
    version = node_version(node)
    if version < OLDEST:
        return skip(f"Node.js is {'.'.join(map(str, version))}; ESLint needs 20.19 or newer")
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != wanted():
        if npm is None:
            return skip("npm is not installed")
        wrong = install(npm)
        if any(code in wrong for code in OURS):
            print(wrong, file=sys.stderr)
            return 1
        if wrong:
            return skip(wrong)
    runs = [subprocess.run([node, MODULES / one[0], *one[1:]], cwd=ROOT) for one in CHECKS]
    return max(run.returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
