"""Errors as OpenAI's API tells them: a status, and a JSON object."""

from __future__ import annotations

from typing import Any

from qwenkit.errors import QwenkitError

_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ApiError(QwenkitError):
    """A request that is answered with an error.

    Args:
        message: what was expected, what came, and what to do.
        status: of HTTP.
        param: the field that it is about.
        code: a name for programs.
    """

    def __init__(
        self, message: str, status: int = 400, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return the object that is sent."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}
