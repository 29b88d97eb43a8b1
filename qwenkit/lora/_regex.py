"""Regular expressions from a file, matched in a separate process with a time limit.

Some expressions take time that is exponential in the length of a name. This file is also that
process's script, so it imports nothing else of qwenkit.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

# Letters, dots, alternatives and anchors: without repeats, nothing takes long.
_QUICK = re.compile(r"[\w.|^$-]*", re.ASCII)
_SECONDS = 3.0


def matches(
    template: str, patterns: Sequence[str], names: Sequence[str], whole: bool = False
) -> list[list[str | None]]:
    """Match names against each pattern, put into a template in place of its `{}`.

    Args:
        template: a regular expression; its group "idx" is what to find.
        patterns: regular expressions.
        names: to match from their start.
        whole: whether a match must reach their end.

    Returns:
        For each pattern and name: None, or the group "idx" ("" where there is none).

    Raises:
        ValueError: an expression that is not valid, or takes too long.
    """
    filled = [template.replace("{}", pattern) for pattern in patterns]
    if all(_QUICK.fullmatch(pattern) for pattern in patterns):
        return _match(filled, names, whole)
    try:
        process = subprocess.run(
            [sys.executable, "-I", "-S", __file__],
            input=json.dumps([filled, list(names), whole]), capture_output=True, text=True,
            timeout=_SECONDS, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValueError(f"matching it takes more than {_SECONDS:g} s") from None
    except subprocess.CalledProcessError:
        raise ValueError("it is not a valid regular expression") from None
    found: list[list[str | None]] = json.loads(process.stdout)
    return found


def _match(patterns: Sequence[str], names: Sequence[str], whole: bool) -> list[list[str | None]]:
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise ValueError(f"it is not a valid regular expression: {error}") from None
    return [[_group(r.fullmatch(n) if whole else r.match(n)) for n in names] for r in compiled]


def _group(found: re.Match[str] | None) -> str | None:
    groups: dict[str, Any] = {} if found is None else found.groupdict()
    return None if found is None else groups.get("idx") or ""


if __name__ == "__main__":
    print(json.dumps(_match(*json.load(sys.stdin))))
