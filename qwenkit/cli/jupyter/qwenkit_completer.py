"""The Jupyter server's part of `qwenkit lab --complete`: it starts the model, and asks it.

The model is in a process of its own, `qwenkit serve`, which ends with the Jupyter server. The page
asks the Jupyter server, which checks who asks, and passes the question on: neither the model's
address nor its token reaches the page. (Jupyter runs this file by itself, without the package.)
"""

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import httpx
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

SETTING = "QWENKIT_COMPLETE"  # what follows `qwenkit serve`, as JSON
ABOVE, BEFORE, AFTER = 2000, 2000, 1000  # characters that the model reads
MOST = 32  # tokens that it writes
_ADDRESS = re.compile(r"serving .* at (http://\S+) ")


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "qwenkit_completer"}]


def _load_jupyter_server_extension(server: Any) -> None:
    model = Model(json.loads(os.environ[SETTING]), server.log)
    path = url_path_join(server.web_app.settings["base_url"], "qwenkit", "complete")
    server.web_app.add_handlers(".*$", [(path, CompleteHandler, {"model": model})])


class Model:
    """A `qwenkit serve` that this process has started.

    Args:
        options: of `qwenkit serve`.
        log: of the Jupyter server.
    """

    def __init__(self, options: Sequence[str], log: Any) -> None:
        self._token = secrets.token_urlsafe()
        self._log = log
        self._client: httpx.AsyncClient | None = None
        self._address = ""
        # A session of its own: Ctrl-C is a question to Jupyter, and must not end the model. The
        # pipe to its standard input is closed when this process ends, however it does.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qwenkit.cli", "serve", *options, "--port=0", "--until-eof"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "QWENKIT_TOKEN": self._token},
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Wait for the address, and go on reading, so that the process never waits for us."""
        for line in self._process.stdout or ():
            if found := _ADDRESS.match(line):
                self._address = found[1]
                self._log.info("The model for inline completions is ready")
        if code := self._process.wait():
            self._log.error("The model for inline completions ended with status %d", code)

    async def fill(self, before: str, after: str) -> str:
        """Return what the model puts between two texts: nothing, as long as it is being loaded.

        Raises:
            HTTPError: 503, the model did not answer.
        """
        if not self._address:
            return ""
        if self._client is None:
            headers = {"Authorization": f"Bearer {self._token}"}
            self._client = httpx.AsyncClient(headers=headers, timeout=60, trust_env=False)
        asked = {"prompt": before, "suffix": after, "max_tokens": MOST, "temperature": 0}
        try:
            answer = await self._client.post(f"{self._address}/completions", json=asked)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise web.HTTPError(503, f"the model did not answer: {error}") from None
        return str(answer.json()["choices"][0]["text"])


class CompleteHandler(APIHandler):
    """POST /qwenkit/complete: {"above": cells, "before": ..., "after": ...} -> {"text": ...}."""

    def initialize(self, model: Model) -> None:
        """Take what `add_handlers` was given."""
        self._model = model
        self._asking: asyncio.Task[str] | None = None

    @web.authenticated
    async def post(self) -> None:
        """Answer, unless the page has asked something else meanwhile."""
        asked: Any = self.get_json_body()
        try:
            texts = prompt(asked["above"], asked["before"], asked["after"])
        except (TypeError, KeyError, AttributeError):
            raise web.HTTPError(
                400, "above is a list of texts; before and after are texts"
            ) from None
        self._asking = asyncio.create_task(self._model.fill(*texts))
        try:
            text = await self._asking
        except asyncio.CancelledError:
            return
        self.finish({"text": text.rstrip()})

    def on_connection_close(self) -> None:
        """End what the model writes for a page that does not wait for it."""
        if self._asking is not None:
            self._asking.cancel()


def prompt(above: Sequence[str], before: str, after: str) -> tuple[str, str]:
    r"""Return the texts around the cursor as the model reads them.

    Of the cells above, the last ones, whole, as many as there is room for. So the beginning stays
    the same while one types, and the model need not read it again. At the end of a cell the model
    is told that the line ends there: few texts that it was trained on had nothing after the gap.

    >>> prompt(["import math\n", "x = 1"], "y = ", "\nprint(y)")
    ('import math\n\nx = 1\n\ny = ', '\nprint(y)')
    """
    kept: list[str] = []
    for cell in reversed(above):
        if sum(map(len, kept)) + len(cell) > ABOVE:
            break
        kept.insert(0, cell.strip("\n") + "\n\n")
    return "".join(kept) + before[-BEFORE:], after[:AFTER] or "\n"
