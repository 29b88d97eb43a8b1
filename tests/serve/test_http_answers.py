"""The HTTP server's answers: the tokens of `generate`, whole or as a stream, in OpenAI's form."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from http_asking import CHAT, TEXT, ask, asked, hang_up, left_of, serving, streamed, until
from speaking import says, tokens

import qwenkit as qk
from qwenkit.generate import row_seed
from qwenkit.serve.http import Limits

ADD = "def add(a, b):\n    return"
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def server(coder):
    with serving(*coder, limits=Limits(batch_size=4, cache_tokens=2048)) as server:
        yield server


def test_it_says_what_it_serves(server):
    assert ask(server, "/health") == (200, {"status": "ok"})
    _, listed = ask(server, "/v1/models")
    (one,) = listed["data"]
    assert (listed["object"], one["id"], one["object"]) == ("list", "toy", "model")
    assert one["max_model_len"] == 1024
    assert ask(server, "/v1/models/toy") == (200, one)


@pytest.mark.parametrize("options", [
    {}, {"max_new_tokens": 40}, {"stop_strings": ["+ b"]}, {"stop_strings": ["never", "\n"]},
    {"temperature": 1.0, "seed": 7}, {"temperature": 0.8, "seed": 1, "top_k": 20, "top_p": 0.9},
    {"temperature": 1.5, "seed": 2, "min_p": 0.1, "repetition_penalty": 1.3},
])  # fmt: skip
def test_a_text_is_that_of_complete_whole_or_as_a_stream(coder, server, options):
    settings = {"max_new_tokens": 12, **options}
    want = qk.complete(*coder, ADD, **settings)
    body = {"prompt": ADD, "temperature": 0, "max_tokens": settings.pop("max_new_tokens")}
    body |= {"stop" if name == "stop_strings" else name: one for name, one in settings.items()}
    (choice,) = asked(server, TEXT, **body)["choices"]
    assert choice["text"] == want
    pieces = [chunk["choices"][0] for chunk in streamed(server, TEXT, **body)]
    assert "".join(one["text"] for one in pieces) == want
    assert pieces[-1]["finish_reason"] == choice["finish_reason"]
    assert {one["finish_reason"] for one in pieces[:-1]} <= {None}
    assert len(pieces) > 1 or len(want) < 3


def test_the_form_and_the_counts_are_exact(coder, server):
    model, tokenizer = coder
    for count, reason in ((3, "length"), (100, "stop")):
        answer = asked(server, TEXT, prompt=ADD, max_tokens=count, **GREEDY)
        want = tokens(model, tokenizer.encode(ADD), count)
        assert (answer["object"], answer["model"]) == ("text_completion", "toy")
        assert answer["id"].startswith("cmpl-")
        assert answer["choices"][0]["finish_reason"] == reason
        usage = answer["usage"]
        assert usage["prompt_tokens"] == len(tokenizer.encode(ADD))
        assert usage["completion_tokens"] == len(want)
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert len(want) < 100  # its stop token counts
    chunks = streamed(
        server, TEXT, prompt=ADD, max_tokens=5, stream_options={"include_usage": True}, **GREEDY
    )
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_what_was_read_before_is_found_again(server):
    long = "# " + "a comment, " * 30
    first, second = (asked(server, TEXT, prompt=long, max_tokens=1)["usage"] for _ in range(2))
    assert second["prompt_tokens_details"]["cached_tokens"] > 16
    assert second["prompt_tokens"] == first["prompt_tokens"]


def test_a_list_of_prompts_and_several_choices_of_each(coder, server):
    prompts = [ADD, "import", "class A"]
    answer = asked(server, TEXT, prompt=prompts, max_tokens=6, **GREEDY)
    assert [one["index"] for one in answer["choices"]] == [0, 1, 2]
    want = [qk.complete(*coder, prompt, 6) for prompt in prompts]
    assert [one["text"] for one in answer["choices"]] == want
    read = sum(len(coder[1].encode(prompt)) for prompt in prompts)
    assert answer["usage"]["prompt_tokens"] == read
    body = {"prompt": [ADD, "x ="], "n": 2, "seed": 5, "temperature": 1.0, "max_tokens": 8}
    found = [one["text"] for one in asked(server, TEXT, **body)["choices"]]
    seeds = [row_seed(5, row) for row in range(4)]
    assert found == [
        qk.complete(*coder, prompt, 8, temperature=1.0, seed=seed)
        for prompt, seed in zip([ADD, ADD, "x =", "x ="], seeds, strict=True)
    ]
    pieces = [one["choices"][0] for one in streamed(server, TEXT, **body)]
    each = ["".join(one["text"] for one in pieces if one["index"] == i) for i in range(4)]
    assert each == found


def test_token_ids_are_a_prompt(coder, server):
    ids = coder[1].encode(ADD)
    want = qk.complete(*coder, ADD, 6)
    for prompt in (ids, [ids, ids]):
        answer = asked(server, TEXT, prompt=prompt, max_tokens=6, **GREEDY)
        assert {one["text"] for one in answer["choices"]} == {want}


def test_with_a_suffix_the_middle_is_filled_in(coder, server):
    before, after = "def is_even(n):\n    return n ", " == 0\n\n\nprint(is_even(4))\n"
    want = qk.fill(*coder, before, after, 12)
    body = {"prompt": before, "suffix": after, "max_tokens": 12, **GREEDY}
    (choice,) = asked(server, TEXT, **body)["choices"]
    assert choice["text"] == want
    assert want != qk.complete(*coder, before, 12)
    assert "".join(one["choices"][0]["text"] for one in streamed(server, TEXT, **body)) == want
    (empty,) = asked(server, TEXT, **{**body, "suffix": ""})["choices"]
    assert empty["text"] == qk.fill(*coder, before, "", 12)


def test_a_chat_is_read_by_the_chat_template(coder, server):
    model, tokenizer = coder
    messages = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Write "},
                                             {"type": "text", "text": "add."}]}]  # fmt: skip
    plain = [messages[0], {"role": "user", "content": "Write add."}]
    prompt = tokenizer.chat(plain)
    want = qk.complete(model, tokenizer, prompt, 20)
    answer = asked(server, CHAT, messages=messages, max_tokens=20, **GREEDY)
    assert (answer["object"], answer["id"][:9]) == ("chat.completion", "chatcmpl-")
    message = answer["choices"][0]["message"]
    assert (message["role"], message["content"]) == ("assistant", want)
    assert answer["usage"]["prompt_tokens"] == len(tokenizer.encode(prompt))
    chunks = streamed(server, CHAT, messages=messages, max_completion_tokens=20, **GREEDY)
    deltas = [one["choices"][0]["delta"] for one in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(one.get("content", "") for one in deltas) == want
    assert deltas[-1] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]
    told = [*plain[1:], {"role": "assistant", "content": "pass"}, plain[1]]
    answer = asked(server, CHAT, messages=told, max_tokens=4, **GREEDY)
    assert answer["choices"][0]["message"]["content"] == qk.complete(
        model, tokenizer, tokenizer.chat(told), 4
    )


def test_a_chat_ends_with_its_turn_and_by_itself_at_the_limit(coder, server, monkeypatch):
    model, tokenizer = coder
    end = tokenizer.special["<|im_end|>"]
    says(model, monkeypatch, [*tokenizer.encode("hi"), end])
    hello = [{"role": "user", "content": "hello"}]
    (choice,) = asked(server, CHAT, messages=hello, **GREEDY)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hi", "stop")
    with serving(*coder, limits=Limits(cache_tokens=64)) as small:
        says(model, monkeypatch, tokenizer.encode("x") * 64)
        answer = asked(small, CHAT, messages=hello, **GREEDY)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 64  # all that there is room for


@pytest.mark.parametrize(("said", "stop", "pieces"), [
    ("aé😀\u2028b", [], ["a", "é", "😀", "\u2028", "b"]),
    ("ab STOP c", ["STOP"], ["a", "b", " "]),
    ("ab STO", ["STOP"], ["a", "b", " ", "STO"]),
    ("ab STOSTOP", ["STOP"], ["a", "b", " ", "STO"]),
    ("é😀x", ["😀x"], ["é"]),
])  # fmt: skip
def test_a_stream_splits_no_character_and_tells_no_part_of_a_stop_string(
    coder, server, monkeypatch, said, stop, pieces
):
    model, tokenizer = coder
    spelled = [byte_id(tokenizer, byte) for byte in said.encode()]
    assert tokenizer.decode(spelled) == said
    body = {"prompt": "x", "max_tokens": 60, "stop": stop, **GREEDY}
    says(model, monkeypatch, [*spelled, model.stop_ids[0]])
    chunks = [one["choices"][0] for one in streamed(server, TEXT, **body)]
    assert [one["text"] for one in chunks if one["text"]] == pieces
    assert chunks[-1]["finish_reason"] == "stop"
    says(model, monkeypatch, [*spelled, model.stop_ids[0]])
    assert asked(server, TEXT, **body)["choices"][0]["text"] == "".join(pieces)


def byte_id(tokenizer, byte):
    """Return the token of a single byte."""
    letter = {value: char for char, value in qk.tokenizer.byte_alphabet().items()}[byte]
    return tokenizer.backend.token_to_id(letter)


def test_bytes_that_never_become_a_character_are_told_at_the_end(coder, server, monkeypatch):
    model, tokenizer = coder
    says(model, monkeypatch, [byte_id(tokenizer, byte) for byte in "é😀".encode()[:4]])
    chunks = streamed(server, TEXT, prompt="x", max_tokens=4, **GREEDY)
    assert "".join(one["choices"][0]["text"] for one in chunks) == "é\ufffd"
    assert "�" not in chunks[0]["choices"][0]["text"]


def test_what_changes_nothing_is_accepted(coder, server):
    harmless = {
        "user": "me", "metadata": {"a": 1}, "store": True, "n": 1, "echo": False, "best_of": 1,
        "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": None,
        "stop": None, "seed": None, "stream": False, "suffix": None, "whatever": None,
    }  # fmt: skip
    answer = asked(server, TEXT, prompt=ADD, max_tokens=4, model="toy", **GREEDY, **harmless)
    assert answer["choices"][0]["text"] == qk.complete(*coder, ADD, 4)
    harmless = {
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"},
        "logprobs": False, "top_logprobs": 0, "service_tier": "auto",
    }  # fmt: skip
    asked(server, CHAT, messages=[{"role": "developer", "content": "x"}], max_tokens=1, **harmless)


def test_without_a_temperature_or_a_count_it_is_openais(coder, server):
    answer = asked(server, TEXT, prompt=ADD, seed=3)
    want = qk.complete(*coder, ADD, 16, temperature=1.0, seed=3)
    assert answer["choices"][0]["text"] == want
    assert answer["usage"]["completion_tokens"] <= 16


def test_many_at_once_are_answered_as_one_by_one(coder, server):
    prompts = [ADD, "import", "class A", "for i in", "x = [", "while", "def f(", "print("]
    want = [qk.complete(*coder, prompt, 10) for prompt in prompts]

    def text(prompt):
        return asked(server, TEXT, prompt=prompt, max_tokens=10, **GREEDY)["choices"][0]["text"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(text, prompts)) == want


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_gives_its_pages_back(server, stream):
    body = {"prompt": ADD, "max_tokens": 1000, "temperature": 5.0, "stream": stream, "n": 3}
    computed = []
    for after in (0, 1) if stream else (0,):
        hang_up(server, TEXT, after=after, **body)
        until(lambda: left_of(server) == (0, 0, 0, 0))
    step = server.engine.scheduler.step
    server.engine.scheduler.step = lambda: computed.append(1) or step()
    assert asked(server, TEXT, prompt=ADD, max_tokens=2)
    assert len(computed) < 20  # nobody writes the others any more
    server.engine.scheduler.step = step
