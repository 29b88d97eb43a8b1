"""What happens with a request: who may ask, and how errors are told."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from qwenkit.errors import shown
from qwenkit.serve.http._errors import ApiError
from qwenkit.serve.http._tasks import Served

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PATHS = "GET /v1/models, GET /health, POST /v1/completions and POST /v1/chat/completions"


@dataclass
class Shared:
    """What all handlers of a server share.

    Attributes:
        served: the model and its engine.
        host: that the server listens on.
        token: that a client must send; None: none.
        active: the requests that are being answered.
    """

    served: Served
    host: str
    token: str | None
    created: int
    active: set[RequestHandler] = field(default_factory=set)


class Handler(RequestHandler):
    """Refuses who may not ask, and tells every error as JSON."""

    open_to_all = False  # whether it is answered without the token

    def initialize(self, shared: Shared) -> None:
        self.shared = shared

    def set_default_headers(self) -> None:
        self.set_header("Server", "qwenkit")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        """Check where a request comes from.

        A page that is open in a browser on this machine can reach the server, too. No header here
        lets it read an answer (CORS), and a body must be JSON, for which a browser asks first. What
        is left is a page whose own name was made to lead here (DNS rebinding): the Host header
        then holds that name.
        """
        headers = self.request.headers
        if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") != "none":
            raise ApiError("a web page may not use this server; only programs may", 403)
        if self.shared.token is None:
            self._check_host(headers)
        elif not self.open_to_all:
            self._check_token(headers, self.shared.token)

    def _check_host(self, headers: HTTPHeaders) -> None:
        given = headers.get("Host", "")
        try:
            host = urlsplit(f"//{given}").hostname
        except ValueError:  # brackets that do not match
            host = None
        if host not in LOOPBACK | {self.shared.host.lower()}:
            raise ApiError(
                f"the Host header is {shown(given, 60)}; without a token this server answers to "
                "127.0.0.1 and localhost alone", 403,
            )  # fmt: skip

    def _check_token(self, headers: HTTPHeaders, token: str) -> None:
        given = headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            came = "another one" if given else "none"
            raise ApiError(
                f"this server asks for a token, and {came} came; send the header Authorization: "
                "Bearer TOKEN (with OpenAI's clients: api_key)", 401, code="invalid_api_key",
            )  # fmt: skip

    def send_error(self, status_code: int = 500, **named: Any) -> None:
        """Send an error with its own status."""
        error = named.get("exc_info", (None, None))[1]
        super().send_error(getattr(error, "status", status_code), **named)

    def write_error(self, status_code: int, **named: Any) -> None:
        """Send an error as JSON; one that was not expected says nothing of the inside."""
        error = named.get("exc_info", (None, None))[1]
        if not isinstance(error, ApiError):
            asked = shown(f"{self.request.method} {self.request.path}", 60)
            known = f"{asked} is not offered; there are {_PATHS}"
            broken = "something went wrong here; the server's own output says more"
            error = ApiError(known if status_code in (404, 405) else broken, status_code)
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if error.status == 429:
            self.set_header("Retry-After", "1")
        self.finish(error.body())

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what was not expected; a client's mistakes are told to the client."""
        if not isinstance(value, ApiError | HTTPError | StreamClosedError):
            super().log_exception(typ, value, tb)


class Unknown(Handler):
    """A path that does not exist."""

    def prepare(self) -> None:
        """Refuse it, to those who may ask."""
        super().prepare()
        raise HTTPError(404)


class Health(Handler):
    """GET /health: whether the server answers."""

    open_to_all = True

    def get(self) -> None:
        """Say that it does."""
        self.finish({"status": "ok"})


class Models(Handler):
    """GET /v1/models, and /v1/models/NAME: the one model that is served."""

    def get(self, name: str | None = None) -> None:
        """Describe it."""
        served = self.shared.served
        if name not in (None, served.name):
            raise ApiError(
                f"there is no model {shown(name, 60)}; this server has {shown(served.name)}", 404,
                param="model", code="model_not_found",
            )  # fmt: skip
        one = {
            "id": served.name, "object": "model", "created": self.shared.created,
            "owned_by": "qwenkit", "max_model_len": served.engine.context,
        }  # fmt: skip
        self.finish(one if name else {"object": "list", "data": [one]})
