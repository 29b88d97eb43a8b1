"""An HTTP server that speaks OpenAI's API, for editors and other programs on this machine."""

from qwenkit.serve.http.limits import Limits
from qwenkit.serve.http.server import Server, check_address

__all__ = ["Limits", "Server", "check_address"]
