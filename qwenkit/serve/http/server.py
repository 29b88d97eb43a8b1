"""The server: it listens, and it ends without leaving anything behind."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from tornado.httpserver import HTTPServer
from tornado.web import Application

from qwenkit.errors import InputError, QwenkitError, shown
from qwenkit.model import QwenForCausalLM
from qwenkit.serve.engine import Engine
from qwenkit.serve.http._handlers import Health, Models, Shared, Unknown
from qwenkit.serve.http._tasks import Served
from qwenkit.serve.http._texts import DRAINED, ChatCompletions, Completions
from qwenkit.serve.http.limits import Limits
from qwenkit.tokenizer import Tokenizer

_TOKEN = re.compile("[!-~]+")  # what a header can hold
_LAST_WORDS = 5.0  # seconds for the ends of the answers, once no more is computed


class Server:
    r"""Offers a model to other programs through OpenAI's API: /v1/completions and chat.

    The model runs in one thread, which continues all texts together (`Scheduler`); requests are
    read and answered in another. Nothing else may run the model meanwhile. `run` serves until
    SIGINT or SIGTERM; as a context manager, the server runs in the background.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        name: of the model, as clients ask for it.
        host: to listen on. Other machines can reach any host but this one's own (127.0.0.1).
        port: to listen on; 0: one that is free.
        token: what a client must send as `Authorization: Bearer TOKEN`.
        limits: of what a client may ask for.

    Attributes:
        name: of the model.
        url: where it listens, once it does.
        engine: what writes the texts.

    Raises:
        InputError: an argument out of its range; or no token, with a host that other machines
            can reach.
        MemoryForecastError: the cache would not fit in memory.

    >>> import json, urllib.request
    >>> import qwenkit as qk
    >>> from qwenkit.serve.http import Server
    >>> asked = {"prompt": "def add(a, b):\n    return", "max_tokens": 3, "temperature": 0}
    >>> with Server(*qk.load_pretrained(), "tiny-coder", port=0) as server:
    ...     body, kind = json.dumps(asked).encode(), {"Content-Type": "application/json"}
    ...     request = urllib.request.Request(f"{server.url}/v1/completions", body, kind)
    ...     json.load(urllib.request.urlopen(request))["choices"][0]["text"]
    ' a + b'
    """

    def __init__(
        self,
        model: QwenForCausalLM,
        tokenizer: Tokenizer,
        name: str,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        limits = Limits() if limits is None else limits
        check_address(host, port, token)
        self.engine = Engine(
            model, max_jobs=limits.max_requests, max_tokens=limits.cache_tokens,
            max_batch_size=limits.batch_size,
        )  # fmt: skip
        served = Served(name, model, tokenizer, self.engine, limits)
        self._shared = Shared(served, host, token, int(time.time()))
        self.name = name
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None
        self.url = ""

    def run(self, started: Callable[[], None] = lambda: None, *, until_eof: bool = False) -> None:
        """Serve until SIGINT or SIGTERM, or until `stop` is called; texts then end at once.

        Args:
            started: called once the server listens, in this thread.
            until_eof: whether to end where standard input, a pipe, is closed: a server that
                another program starts should not outlive it.

        Raises:
            InputError: the address cannot be listened on, or standard input is not a pipe.
        """

        def ready() -> None:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._signaled, number)
            if until_eof:
                self._watch_input(loop)
            started()

        asyncio.run(self._serve(ready))

    def stop(self) -> None:
        """End the server, from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._ending.set)

    def __enter__(self) -> Server:
        """Serve in the background.

        Raises:
            InputError: the address cannot be listened on.
        """
        ready = threading.Event()

        def background() -> None:
            try:
                asyncio.run(self._serve(ready.set))
            except QwenkitError as error:
                self._failed = error
            finally:
                ready.set()

        self._thread = threading.Thread(target=background, name="qwenkit-http", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """End the server, and wait for its end."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _signaled(self, number: int) -> None:
        """End the server; a second signal ends the process as if nobody had listened."""
        asyncio.get_running_loop().remove_signal_handler(number)
        self._ending.set()

    def _watch_input(self, loop: asyncio.AbstractEventLoop) -> None:
        def readable() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                self._ending.set()

        try:
            loop.add_reader(0, readable)
        except OSError:
            raise InputError("until_eof needs standard input to be a pipe or a terminal") from None

    async def _serve(self, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        shared, limits = self._shared, self._shared.served.limits
        most = DRAINED * limits.body_bytes  # the handler refuses less, in OpenAI's form
        server = HTTPServer(
            _application(shared), max_body_size=most, idle_connection_timeout=300, body_timeout=60
        )
        listening = _listening(shared.host, self._port)
        server.add_socket(listening)
        host = f"[{shared.host}]" if ":" in shared.host else shared.host
        self.url = f"http://{host}:{listening.getsockname()[1]}"
        self.engine.start()
        try:
            ready()
            await self._ending.wait()
        finally:
            server.stop()
            await asyncio.to_thread(self.engine.close)
            until = time.monotonic() + _LAST_WORDS
            while shared.active and time.monotonic() < until:
                await asyncio.sleep(0.01)
            await server.close_all_connections()


def _application(shared: Shared) -> Application:
    """Return the endpoints."""
    more = {"shared": shared}
    return Application(
        [("/health", Health, more), ("/v1/models", Models, more),
         ("/v1/models/(.+)", Models, more), ("/v1/completions", Completions, more),
         ("/v1/chat/completions", ChatCompletions, more)],
        default_handler_class=Unknown, default_handler_args=more,
        log_function=lambda handler: None,
    )  # fmt: skip


def check_address(host: str, port: int, token: str | None) -> None:
    """Refuse an address that would be open to others, and a token that no header can hold."""
    if type(port) is not int or not 0 <= port < 2**16:
        raise InputError(f"port is {shown(port, 60)}; it must be an integer from 0 to 65535")
    if token is not None and not (isinstance(token, str) and _TOKEN.fullmatch(token)):
        raise InputError("token must be at least one ASCII character, and no spaces")
    if not isinstance(host, str) or not host:
        raise InputError(f"host is {shown(host, 60)}; it must be a name or an address")
    if token is None and not _is_loopback(host):
        raise InputError(
            f"host is {shown(host, 60)}, which other machines can reach: anybody there could use "
            "the model. Choose a token that only you know (--token, or QWENKIT_TOKEN in the "
            "environment), or listen on 127.0.0.1 and forward the port with ssh -L"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; of a name with several addresses, on the first of IPv4."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        listening = socket.create_server((str(address[0]), port), family=family)
    except OSError as error:  # also a name that nobody knows
        raise InputError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); choose another "
            "--port or --host; port 0 takes one that is free"
        ) from None
    listening.setblocking(False)
    return listening
