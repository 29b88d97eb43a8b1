"""What the HTTP server refuses: each with its status, in OpenAI's form, saying what to do."""

import json
import socket

import pytest
from http_asking import CHAT, JSON, TEXT, address, ask, asked, connect, left_of, serving, until

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.serve.http import Limits, Server

LIMITS = Limits(
    max_requests=3, batch_size=2, cache_tokens=512, max_tokens=100, max_choices=3, max_stops=2,
    body_bytes=20_000,
)  # fmt: skip
MESSAGES = [{"role": "user", "content": "x"}]
DEEP = b'{"prompt": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"


@pytest.fixture(scope="module")
def server(coder):
    with serving(*coder, limits=LIMITS) as server:
        yield server


@pytest.fixture(autouse=True)
def _goes_on(server):
    """After each refusal the next request is answered, and nothing is left."""
    yield
    until(lambda: left_of(server) == (0, 0, 0, 0))
    asked(server, TEXT, prompt="x", max_tokens=1)


BODIES = [  # path, fields, the field that is wrong, fragments of the message
    (TEXT, {}, "prompt", ["prompt is missing", "a text"]),
    (TEXT, {"prompt": 3}, "prompt", ["prompt is 3", "a list of token ids"]),
    (TEXT, {"prompt": True}, "prompt", ["prompt is True"]),
    (TEXT, {"prompt": {"a": 1}}, "prompt", ["prompt is {'a': 1}"]),
    (TEXT, {"prompt": ["x", 3]}, "prompt", ["prompt is ['x', 3]"]),
    (TEXT, {"prompt": [[1, "x"]]}, "prompt", ["prompt is [[1, 'x']]"]),
    (TEXT, {"prompt": [1.5]}, "prompt", ["prompt is [1.5]"]),
    (TEXT, {"prompt": ""}, "prompt", ["the prompt is empty"]),
    (TEXT, {"prompt": []}, "prompt", ["the prompt is empty"]),
    (TEXT, {"prompt": [[]]}, "prompt", ["the prompt is empty"]),
    (TEXT, {"prompt": [2048]}, None, ["the prompt", "2048"]),
    (TEXT, {"prompt": [-1]}, None, ["the prompt", "-1"]),
    (TEXT, {"prompt": [10**30]}, None, ["the prompt"]),
    (TEXT, {"prompt": "\ud800"}, "prompt", ["not valid Unicode"]),
    (TEXT, {"prompt": ["x"] * 4}, "n", ["4 texts per request", "limit is 3"]),
    (TEXT, {"prompt": "x", "n": 4}, "n", ["4 texts per request"]),
    (TEXT, {"prompt": "x", "n": 0}, "n", ["n is 0", "at least 1"]),
    (TEXT, {"prompt": "x", "n": True}, "n", ["n is True"]),
    (TEXT, {"prompt": "x", "max_tokens": 0}, "max_tokens", ["max_tokens is 0"]),
    (TEXT, {"prompt": "x", "max_tokens": -3}, "max_tokens", ["at least 1"]),
    (TEXT, {"prompt": "x", "max_tokens": 2.5}, "max_tokens", ["max_tokens is 2.5"]),
    (TEXT, {"prompt": "x", "max_tokens": "9"}, "max_tokens", ["max_tokens is '9'"]),
    (TEXT, {"prompt": "x", "max_tokens": 101}, "max_tokens", ["101 tokens", "limit is 100"]),
    (TEXT, {"prompt": "x", "max_tokens": 10**40}, "max_tokens", ["limit is 100"]),
    (TEXT, {"prompt": [5] * 500, "max_tokens": 13}, None, ["context of 512", "shorten"]),
    (TEXT, {"prompt": "x", "temperature": -1}, "temperature", ["temperature is -1", "0 (greedy)"]),
    (TEXT, {"prompt": "x", "temperature": "hot"}, "temperature", ["temperature is 'hot'"]),
    (TEXT, {"prompt": "x", "temperature": False}, "temperature", ["must be a number"]),
    (TEXT, {"prompt": "x", "temperature": 10**400}, "temperature", ["temperature"]),
    (TEXT, {"prompt": "x", "top_p": 0}, "top_p", ["top_p is 0", "above 0"]),
    (TEXT, {"prompt": "x", "top_p": 2}, "top_p", ["at most 1"]),
    (TEXT, {"prompt": "x", "top_k": 1.5}, "top_k", ["top_k is 1.5"]),
    (TEXT, {"prompt": "x", "seed": -1}, "seed", ["seed is -1", "2**63"]),
    (TEXT, {"prompt": "x", "seed": "a"}, "seed", ["seed is 'a'"]),
    (TEXT, {"prompt": "x", "stop": 3}, "stop", ["stop is 3", "a list of texts"]),
    (TEXT, {"prompt": "x", "stop": ""}, "stop", ["none of them empty"]),
    (TEXT, {"prompt": "x", "stop": ["a", 3]}, "stop", ["a list of texts"]),
    (TEXT, {"prompt": "x", "stop": ["a", "b", "c"]}, "stop", ["3 stop strings", "limit is 2"]),
    (TEXT, {"prompt": "x", "stop": "<|im_end|>"}, "stop", ["a special token"]),
    (TEXT, {"prompt": "x", "stream": 1}, "stream", ["stream is 1", "true or false"]),
    (TEXT, {"prompt": "x", "stream_options": 1}, "stream_options", ["an object"]),
    (TEXT, {"prompt": "x", "stream_options": {"a": True}}, "stream_options", ["include_usage"]),
    (TEXT, {"prompt": "x", "suffix": 3}, "suffix", ["suffix is 3"]),
    (TEXT, {"prompt": [5], "suffix": "x"}, "suffix", ["prompt must be a text"]),
    (TEXT, {"prompt": "x", "echo": True}, "echo", ["not offered", "false"]),
    (TEXT, {"prompt": "x", "logprobs": 5}, "logprobs", ["not offered"]),
    (TEXT, {"prompt": "x", "best_of": 2}, "best_of", ["not offered"]),
    (TEXT, {"prompt": "x", "presence_penalty": 0.5}, "presence_penalty", ["not offered"]),
    (TEXT, {"prompt": "x", "logit_bias": {"5": 1}}, "logit_bias", ["not offered"]),
    (TEXT, {"prompt": "x", "max_token": 5}, None, ["'max_token' is not a field", "max_tokens"]),
    (TEXT, {"prompt": "x", "messages": []}, None, ["'messages' is not a field"]),
    (TEXT, {"prompt": "x", "model": 3}, "model", ["model is 3"]),
    (CHAT, {}, "messages", ["messages is missing"]),
    (CHAT, {"messages": "x"}, "messages", ["a list of messages"]),
    (CHAT, {"messages": []}, "messages", ["at least one message"]),
    (CHAT, {"messages": ["x"]}, "messages[0]", ["messages[0] is 'x'", "role"]),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", ["system, developer"]),
    (CHAT, {"messages": [{"role": ["user"], "content": "x"}]}, "messages[0]", ["role"]),
    (CHAT, {"messages": [{"content": "x"}]}, "messages[0]", ["role"]),
    (CHAT, {"messages": [*MESSAGES, {"role": "user"}]}, "messages[1]", ["content is None"]),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]",
     ["text alone"]),
    (CHAT, {"messages": [{**MESSAGES[0], "tool_calls": [1]}]}, "messages[0]", ["tool_calls"]),
    (CHAT, {"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools", ["not offered"]),
    (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}}, "response_format",
     ["not offered"]),
    (CHAT, {"messages": MESSAGES, "logprobs": True}, "logprobs", ["not offered"]),
    (CHAT, {"messages": MESSAGES, "max_tokens": 0}, "max_tokens", ["max_tokens is 0"]),
    (CHAT, {"messages": MESSAGES, "prompt": "x"}, None, ["'prompt' is not a field"]),
    (CHAT, {"messages": [{"role": "user", "content": "x " * 900}]}, None, ["context of 512"]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "fragments"), BODIES)
def test_a_field_that_is_wrong_is_named(server, path, body, param, fragments):
    status, answer = ask(server, path, body)
    assert status == 400, answer
    assert answer.keys() == {"error"}
    error = answer["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert all(fragment in error["message"] for fragment in fragments), error["message"]
    assert error["param"] == param
    assert len(error["message"]) < 400
    assert ("context" in error["message"]) == (error["code"] == "context_length_exceeded")


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "fragment"), [
    ("POST", TEXT, b"", JSON, 400, "not JSON"),
    ("POST", TEXT, b"{", JSON, 400, "not JSON"),
    ("POST", TEXT, b"[1]", JSON, 400, "the body is [1]; send a JSON object"),
    ("POST", TEXT, b'"x"', JSON, 400, "JSON object"),
    ("POST", TEXT, b'{"prompt": "\xff"}', JSON, 400, "not JSON"),
    ("POST", TEXT, b'{"prompt": "x", "temperature": NaN}', JSON, 400, "NaN is not a number"),
    ("POST", TEXT, b'{"prompt": "x", "seed": 1' + b"0" * 5000 + b"}", JSON, 400, "not JSON"),
    ("POST", TEXT, DEEP, JSON, 400, "nested too deeply"),
    ("POST", TEXT, b"{}", {}, 415, "send application/json"),
    ("POST", TEXT, b"{}", {"Content-Type": "text/plain"}, 415, "is 'text/plain'"),
    ("POST", TEXT, b"x" * 20_001, JSON, 413, "larger than 20,000 bytes"),
    ("POST", TEXT, b"x" * 300_000, JSON, 413, "larger than 20,000 bytes"),
    ("GET", TEXT, None, {}, 405, "POST /v1/completions"),
    ("DELETE", CHAT, None, {}, 405, "POST /v1/completions"),
    ("OPTIONS", TEXT, None, {}, 405, "is not offered"),
    ("POST", "/v1/models", b"{}", JSON, 405, "GET /v1/models"),
    ("GET", "/", None, {}, 404, "'GET /' is not offered"),
    ("POST", "/v1/embeddings", b"{}", JSON, 404, "'POST /v1/embeddings' is not offered"),
    ("GET", "/v1/models/gpt-9", None, {}, 404, "this server has 'toy'"),
    ("POST", TEXT, b'{"prompt": "x", "model": "gpt-9"}', JSON, 404, "this server has 'toy'"),
    ("GET", "/v1/models", None, {"Host": "evil.example:80"}, 403, "'evil.example:80'"),
    ("GET", "/health", None, {"Host": "127.0.0.1.evil.example"}, 403, "127.0.0.1 and localhost"),
    ("GET", "/health", None, {"Host": "[x"}, 403, "Host"),
    ("POST", TEXT, b"{}", {**JSON, "Host": "evil.example"}, 403, "evil.example"),
    ("POST", TEXT, b"{}", {**JSON, "Origin": "http://localhost:3000"}, 403, "web page"),
    ("GET", "/v1/models", None, {"Origin": "null"}, 403, "web page"),
    ("GET", "/v1/models", None, {"Sec-Fetch-Site": "cross-site"}, 403, "web page"),
])  # fmt: skip
def test_a_request_that_is_wrong_is_refused(server, method, path, body, headers, status, fragment):
    connection = connect(server)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == status, text
    assert answer.getheader("Access-Control-Allow-Origin") is None
    error = json.loads(text)["error"]
    assert fragment in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("host", ["localhost:99", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_names_of_this_machine_are_answered(server, host):
    assert ask(server, "/v1/models", Host=host)[0] == 200


def test_a_body_of_unknown_length_ends_too(server):
    """Chunks that do not end in time or size: the connection is closed, and the server goes on."""
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address(server), timeout=60) as line:
        line.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            line.sendall(part * 100)
    body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
    with socket.create_connection(address(server), timeout=60) as line:
        chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        line.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        assert line.recv(15) == b"HTTP/1.1 200 OK"
    with socket.create_connection(address(server), timeout=60) as line:
        line.sendall(b"nonsense\r\n\r\n")
        assert line.recv(15)[:12] in (b"HTTP/1.1 400", b"")


def test_more_than_the_server_takes_are_told_to_come_again(server):
    many = {"prompt": ["a", "b", "c"], "max_tokens": 90, "temperature": 9.0, "stream": True}
    connection = connect(server)
    connection.request("POST", TEXT, json.dumps(many), JSON)
    answer = connection.getresponse()
    answer.read(1)
    status, body = ask(server, TEXT, {"prompt": "x"})
    assert status == 429, body
    assert body["error"]["type"] == "rate_limit_error"
    assert "the limit of 3; try again later" in body["error"]["message"]
    connection.close()


def test_a_model_that_fails_is_the_servers_error(server, coder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(coder[0], "forward", lambda *_, **__: 1 / 0)
        status, body = ask(server, TEXT, {"prompt": "x"})
        assert (status, body["error"]["type"]) == (500, "server_error")
        assert "division by zero" in body["error"]["message"]
        connection = connect(server)
        connection.request("POST", TEXT, json.dumps({"prompt": "x", "stream": True}), JSON)
        answer = connection.getresponse()
        assert answer.status == 200  # sent before
        (event,) = answer.read().decode().strip().split("\n\n")
        connection.close()
        assert json.loads(event.removeprefix("data: "))["error"]["type"] == "server_error"


def test_an_unexpected_error_says_nothing_of_the_inside(server, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(qk.Tokenizer, "encode", lambda *_, **__: {}["secret"])
        status, body = ask(server, TEXT, {"prompt": "x"})
    assert status == 500
    assert "secret" not in body["error"]["message"]
    assert "the server's own output says more" in body["error"]["message"]
    assert "KeyError: 'secret'" in caplog.text


def test_with_a_token_only_those_who_have_it_are_answered(coder):
    with serving(*coder, token="s3cret", limits=LIMITS) as server:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"},
                      {"Authorization": "Bearer s3cret "[:-2]}):  # fmt: skip
            for path, body in (("/v1/models", None), (TEXT, {"prompt": "x"}), ("/x", None)):
                status, answer = ask(server, path, body, **given)
                assert status == 401
                assert answer["error"]["code"] == "invalid_api_key"
                assert "s3cret" not in answer["error"]["message"]
        assert ask(server, "/health")[0] == 200
        right = {"Authorization": "Bearer s3cret", "Host": "my-machine.example"}
        assert ask(server, "/v1/models", **right)[0] == 200
        assert ask(server, TEXT, {"prompt": "x", "max_tokens": 1}, **right)[0] == 200
        assert ask(server, "/v1/models", **right, Origin="http://x.example")[0] == 403


@pytest.mark.parametrize(("options", "message"), [
    ({"host": "0.0.0.0"}, "other machines can reach.*--token"),
    ({"host": "192.168.1.5"}, "other machines can reach"),
    ({"host": "::"}, "other machines can reach"),
    ({"host": "example.com"}, "other machines can reach"),
    ({"host": ""}, "host is ''"),
    ({"host": 3}, "host is 3"),
    ({"port": 70_000}, "port is 70000"),
    ({"port": True}, "port is True"),
    ({"token": ""}, "token must be"),
    ({"token": "a b"}, "token must be"),
    ({"token": "é"}, "token must be"),
    ({"host": "0.0.0.0", "token": ""}, "token must be"),
])  # fmt: skip
def test_an_address_that_would_be_open_to_others_is_refused(coder, options, message):
    with pytest.raises(InputError, match=message):
        Server(*coder, "toy", **options)
    Server(*coder, "toy", host="0.0.0.0", token="x")


@pytest.mark.parametrize("name", vars(LIMITS))
def test_limits_are_at_least_1(name):
    for value in (0, -1, 1.5, "x", None, True):
        with pytest.raises(InputError, match=f"{name} is"):
            Limits(**{name: value})
