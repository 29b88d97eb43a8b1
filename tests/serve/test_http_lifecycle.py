"""From start to end: in the background, as a command, and what is left at the end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from http_asking import JSON, PATIENCE, TEXT, address, ask, connect, until

from qwenkit.cli import main
from qwenkit.errors import InputError
from qwenkit.serve.http import Limits, Server

ENDLESS = {"prompt": "x", "max_tokens": 900, "temperature": 9.0}


def threads():
    return {one.name for one in threading.enumerate() if one.name.startswith("qwenkit")}


def begin(server, **more):
    """Send a request, and return the connection."""
    connection = connect(server)
    connection.request("POST", TEXT, json.dumps({**ENDLESS, **more}), JSON)
    return connection


def test_at_its_end_running_requests_get_one_too_and_nothing_is_left(coder):
    before = threads()
    with Server(*coder, "toy", port=0) as server:
        whole, stream, idle = begin(server), begin(server, stream=True), connect(server)
        idle.request("GET", "/health")
        idle.getresponse().read()
        until(lambda: len(server.engine._jobs) == 2)
        host, port = address(server)
    with closing(whole), closing(stream), closing(idle):
        answer = whole.getresponse()
        assert answer.status == 503
        assert "shutting down" in json.loads(answer.read())["error"]["message"]
        last = stream.getresponse().read().decode().strip().split("\n\n")[-1]
        assert "shutting down" in json.loads(last.removeprefix("data: "))["error"]["message"]
    assert threads() == before
    assert server.engine.scheduler.cache.used == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port))
    server.stop()  # nothing more happens


def test_a_port_that_is_taken_and_a_host_that_is_unknown_are_told(coder, capsys, monkeypatch):
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be listened on"):
            Server(*coder, "toy", port=port).__enter__()
        assert main(["serve", "--port", str(port)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"qwenkit: 127.0.0.1:{port} cannot be listened on")
    assert "choose another --port" in err
    assert threads() == set()


def test_the_command_refuses_an_open_host_before_it_loads_anything(capsys, monkeypatch):
    monkeypatch.delenv("QWENKIT_TOKEN", raising=False)
    assert main(["serve", "nowhere/at-all", "--host", "0.0.0.0"]) == 1
    err = capsys.readouterr().err
    assert "other machines can reach" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(monkeypatch, capsys, number):
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    monkeypatch.setenv("QWENKIT_TOKEN", "abc")
    made, seen = [], []
    entered = Server.__init__

    def noted(self, *args, **named):
        entered(self, *args, **named)
        made.append(self)

    def client():
        until(lambda: made and made[0].url)
        (server,) = made
        seen.append(ask(server, "/v1/models", Authorization="Bearer abc"))
        seen.append(ask(server, "/v1/models")[0])
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Server, "__init__", noted)
    worker = threading.Thread(target=client)
    worker.start()
    assert main(["serve", "--port", "0", "--max-tokens", "7", "--batch-size", "2"]) == 0
    worker.join(PATIENCE)
    (server,) = made
    assert seen[0][1]["data"][0]["id"] == "tiny-coder"
    assert seen[1] == 401
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first == f"serving tiny-coder at {server.url}/v1 (Ctrl-C stops)"
    assert (second, last) == ("try it:", "stopped")
    assert '-H "Authorization: Bearer $QWENKIT_TOKEN"' in third
    assert "abc" not in first + third
    limits = server._shared.served.limits
    assert limits == Limits(max_tokens=7, batch_size=2)
    assert threads() == set()


def test_the_printed_line_works_and_the_server_ends_with_the_program_that_started_it(tmp_path):
    command = [sys.executable, "-m", "qwenkit.cli", "serve", "--port", "0", "--until-eof"]
    environment = {k: v for k, v in os.environ.items() if k not in ("QWENKIT_MODEL",)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    ) as process:  # fmt: skip
        first, _, line = (process.stdout.readline() for _ in range(3))
        asking = line.replace("curl ", "curl -sS -m 200 ")
        done = subprocess.run(["bash", "-c", asking], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["choices"][0]["text"], done.stdout
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""
    assert first.startswith("serving tiny-coder at http://127.0.0.1:")
