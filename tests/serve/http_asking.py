"""What tests of the HTTP server share: servers in this process, and a client of few lines."""

import json
import socket
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection

from serving import consistent

from qwenkit.serve.http import Server

JSON = {"Content-Type": "application/json"}
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
PATIENCE = 300  # seconds for what takes a moment on a machine that does nothing else


@contextmanager
def serving(model, tokenizer, **options):
    """Run a server on a free port; at the end nothing is left of any request."""
    with Server(model, tokenizer, "toy", port=0, **options) as server:
        yield server
        until(lambda: left_of(server) == (0, 0, 0, 0))
        consistent(server.engine.scheduler.cache)


def left_of(server):
    """Return how many requests, jobs and pages a server still holds."""
    engine = server.engine
    used = engine.scheduler.cache.used
    return len(server._shared.active), len(engine._live), len(engine._jobs), used


def until(holds):
    """Wait for something that happens in another thread."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def connect(server):
    return HTTPConnection(*address(server), timeout=PATIENCE)


def address(server):
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def ask(server, path, body=None, method=None, **headers):
    """Return the status of an answer, and the object in it."""
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = connect(server)
    kind = JSON if body is not None else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method or ("GET" if body is None else "POST"), path, sent, {**kind, **named})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.getheader("Content-Type", "").startswith("application/json"), text
    assert answer.getheader("Access-Control-Allow-Origin") is None
    return answer.status, json.loads(text)


def asked(server, path, **body):
    """Return the answer to a request that must be right."""
    status, answer = ask(server, path, body)
    assert status == 200, answer
    return answer


def streamed(server, path, **body):
    """Return the objects of a stream, and check how it ends."""
    connection = connect(server)
    connection.request("POST", path, json.dumps({"stream": True, **body}), JSON)
    answer = connection.getresponse()
    text = answer.read().decode("utf-8")
    connection.close()
    assert answer.status == 200, text
    assert answer.getheader("Content-Type") == "text/event-stream; charset=utf-8"
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(one.removeprefix("data: ")) for one in events]


def hang_up(server, path, *, after=0, **body):
    """Send a request, read at least so many bytes of the answer, and close the connection."""
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address(server), timeout=PATIENCE) as line:
        line.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        read = 0
        while read < after:
            part = line.recv(4096)
            assert part, "the server closed the connection"
            read += len(part)
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
