"""OpenAI's own client against the server: it finds everything where it looks for it."""

import os
from functools import partial

import pytest
from http_asking import serving

import qwenkit as qk

if os.environ.get("QWENKIT_REQUIRE_BROWSER"):  # in CI its absence is a failure
    import openai
else:
    openai = pytest.importorskip("openai", reason="NO OPENAI: pip install openai")

ADD = "def add(a, b):\n    return"


@pytest.fixture(scope="module")
def client(coder):
    with (
        serving(*coder, token="abc") as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="abc", max_retries=0) as client,
    ):
        yield client


def test_models(client):
    assert [one.id for one in client.models.list()] == ["toy"]
    assert client.models.retrieve("toy").owned_by == "qwenkit"


def test_completions(coder, client):
    create = partial(client.completions.create, model="toy", prompt=ADD, temperature=0)
    answer = create(max_tokens=3)
    want = qk.complete(*coder, ADD, 3)
    assert answer.choices[0].text == want
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    chunks = list(create(max_tokens=3, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].text for one in chunks[:-1]) == want
    assert chunks[-1].usage.completion_tokens == 3
    filled = create(suffix=" + b\n", max_tokens=8)
    assert filled.choices[0].text == qk.fill(*coder, ADD, " + b\n", 8)


def test_chat(coder, client):
    messages = [{"role": "user", "content": "Write add."}]
    create = partial(
        client.chat.completions.create, model="toy", messages=messages, temperature=0,
        max_completion_tokens=8,
    )  # fmt: skip
    want = qk.complete(*coder, coder[1].chat(messages), 8)
    answer = create()
    assert answer.choices[0].message.content == want
    pieces = [one.choices[0].delta.content or "" for one in create(stream=True)]
    assert "".join(pieces) == want


def test_errors_are_the_clients_own(client):
    create = partial(client.completions.create, prompt=ADD)
    with pytest.raises(openai.NotFoundError, match="this server has 'toy'") as found:
        create(model="gpt-9")
    assert found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="temperature is -1") as found:
        create(model="toy", temperature=-1)
    assert found.value.param == "temperature"
    wrong = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError, match="asks for a token"):
        wrong.completions.create(model="toy", prompt=ADD)
