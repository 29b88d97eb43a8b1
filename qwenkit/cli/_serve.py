"""What `qwenkit serve` does and prints."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from qwenkit.files import expanded
from qwenkit.pretrained import load_pretrained
from qwenkit.serve.http import Limits, Server, check_address

TOKEN = "QWENKIT_TOKEN"  # an argument can be read by every user of the machine; this cannot
LIMITS = {
    "max_requests": "texts that are written or wait; more are told to come again",
    "batch_size": "texts that are written at the same time",
    "cache_tokens": "room for tokens of all texts at a time, and the most that one may have",
    "max_tokens": "new tokens of one text",
}
_TRY = '{"prompt": "def add(a, b):", "max_tokens": 32, "temperature": 0}'


def serve(options: argparse.Namespace) -> None:
    """Load a model, and serve it until the process is told to end."""
    token = options.token if options.token is not None else os.environ.get(TOKEN) or None
    check_address(options.host, options.port, token)  # before a model is loaded
    limits = Limits(**{name: getattr(options, name) for name in LIMITS})
    model, tokenizer = load_pretrained(options.model, device=options.device, dtype=options.dtype)
    server = Server(
        model, tokenizer, name_of(options.model), host=options.host, port=options.port,
        token=token, limits=limits,
    )  # fmt: skip

    def started() -> None:
        for line in _lines(server, token is not None):
            print(line, flush=True)

    server.run(started, until_eof=options.until_eof)
    print("stopped")


def name_of(source: str | None) -> str:
    """Return what clients call a model: a Hub id as it is, else a folder's or a file's name."""
    source = source or os.environ.get("QWENKIT_MODEL") or "tiny-coder"
    path = expanded(source, possible=False)
    if not os.path.exists(path):
        return source
    path = Path(path).resolve()
    return path.stem if path.is_file() else path.name


def _lines(server: Server, token: bool) -> Iterator[str]:
    name = shlex.quote(server.name)
    yield f"serving {name} at {server.url}/v1 (Ctrl-C stops)"
    yield "try it:"
    key = f' -H "Authorization: Bearer ${TOKEN}"' if token else ""
    yield (
        f"  curl {server.url}/v1/completions{key} -H 'Content-Type: application/json' "
        f"-d {shlex.quote(_TRY)}"
    )
