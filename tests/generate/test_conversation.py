"""Conversations: what is fed, what the cache holds, and what errors and breaks leave behind."""

import pytest
import torch
from reference import relative_error
from speaking import fed_to, says

from qwenkit.errors import CacheFullError, InputError, TokenizerError
from qwenkit.generate import Conversation, complete
from qwenkit.tokenizer import Tokenizer

# As Qwen2.5's, without tools: where no system message is given it has one of its own.
DEFAULT_SYSTEM = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first)
        or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# Unlike Qwen2.5's it changes what was read before: it numbers, and drops blanks around replies.
ODD = """{{- 'In all: %d\\n' % messages|length }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
TEMPLATES = {"plain": None, "default system": DEFAULT_SYSTEM, "odd": ODD}
QUESTIONS = ["Sum a list.", "  And the mean, é🙂?\n\n", ""]
ANSWERS = ["sum(values)", "sum(values) / len(values)\n", "x = 面積"]
WILD = {"max_new_tokens": 8, "temperature": 1.3}


@pytest.fixture(params=["toy", "coder"])
def both(request):
    return request.getfixturevalue(request.param)


def with_template(tokenizer, template, folder):
    """Return the same tokenizer with another chat template."""
    tokenizer.save(folder)
    other = Tokenizer(folder)
    other.chat_template = template or tokenizer.chat_template
    return other


def template_ids(talk, tokenizer, messages=None, prompt=False):
    messages = talk.messages if messages is None else messages
    return tokenizer.encode(tokenizer.chat(messages, add_generation_prompt=prompt))


def state(talk):
    return talk.messages, talk.ids, talk.cache.length


@pytest.mark.parametrize("system", [None, "You write Python."])
@pytest.mark.parametrize("template", ["plain", "default system"])
def test_only_new_tokens_are_fed_and_the_cache_holds_the_template(
    both, monkeypatch, tmp_path, template, system
):
    model = both[0]
    tokenizer = with_template(both[1], TEMPLATES[template], tmp_path)
    talk = Conversation(model, tokenizer, system=system)
    end = tokenizer.special["<|im_end|>"]
    want = [] if system is None else [{"role": "system", "content": system}]
    read = 0
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        reply = tokenizer.encode(answer)
        says(model, monkeypatch, [*reply, end])
        want.append({"role": "user", "content": question})
        prompt = template_ids(talk, tokenizer, want, prompt=True)
        with fed_to(model) as shapes:
            assert talk.say(question) == answer
        # the rest of the template up to the reply, then the reply; its end is never fed
        assert shapes == [(1, len(prompt) - read)] + [(1, 1)] * len(reply)
        want.append({"role": "assistant", "content": answer})
        assert talk.messages == want
        whole = template_ids(talk, tokenizer)
        assert talk.ids == whole[: len(talk.ids)] == [*prompt, *reply]
        assert tokenizer.decode(whole[len(talk.ids) :]) == "<|im_end|>\n"
        assert talk.cache.length == len(talk.ids)
        read = len(talk.ids)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("seed", range(2))
def test_replies_equal_those_of_a_fresh_reading_of_the_template(toy, tmp_path, template, seed):
    """Wild replies: broken bytes, special tokens, and texts that are tokenised in another way."""
    model, tokenizer = toy[0], with_template(toy[1], TEMPLATES[template], tmp_path)
    talk = Conversation(model, tokenizer)
    ends = (*model.stop_ids, tokenizer.special["<|im_end|>"])
    otherwise = 0
    for turn, question in enumerate([*QUESTIONS, "More."]):
        settings = {"seed": 10 * seed + turn, **WILD}
        asked = [*talk.messages, {"role": "user", "content": question}]
        want = complete(model, tokenizer, tokenizer.chat(asked), stop_ids=ends, **settings)
        assert talk.say(question, **settings) == want
        assert talk.messages == [*asked, {"role": "assistant", "content": want}]
        whole = template_ids(talk, tokenizer)
        assert talk.ids == whole[: len(talk.ids)]
        otherwise += len(whole) - len(talk.ids) > 2
    assert otherwise > 0  # or it would prove little


@pytest.mark.parametrize("template", ["default system", "odd"])
def test_the_cached_keys_are_those_of_the_template(toy, tmp_path, template):
    model, tokenizer = toy[0], with_template(toy[1], TEMPLATES[template], tmp_path)
    talk = Conversation(model, tokenizer, system="Be short.")
    for turn, question in enumerate(QUESTIONS):
        talk.say(question, seed=turn, **WILD)
    fresh = Conversation(model, tokenizer)
    model(torch.tensor([talk.ids]), cache=fresh.cache)
    for ours, want in zip(talk.cache.keys, fresh.cache.keys, strict=True):
        length = talk.cache.length
        assert length > (40 if template == "default system" else 0)
        assert relative_error(ours[:, :, :length], want[:, :, :length]) < 1e-5


def test_a_reply_that_is_tokenised_otherwise_is_fed_again(toy, monkeypatch):
    model, tokenizer = toy
    talk = Conversation(*toy)
    letters = [tokenizer.encode(letter)[0] for letter in "return"]
    assert len(tokenizer.encode("return")) < 6
    says(model, monkeypatch, [*letters, tokenizer.special["<|im_end|>"]])
    assert talk.say("a") == "return"
    prompt = template_ids(talk, tokenizer, talk.messages[:1], prompt=True)
    assert talk.ids == prompt  # cut back to where both agree
    says(model, monkeypatch, [tokenizer.special["<|im_end|>"]])
    with fed_to(model) as shapes:
        talk.say("b")
    again = template_ids(talk, tokenizer, talk.messages[:3], prompt=True)
    assert shapes == [(1, len(again) - len(prompt))]
    assert talk.ids == again


def test_stop_strings_end_a_reply_and_the_rest_is_forgotten(toy, monkeypatch):
    model, tokenizer = toy
    talk = Conversation(*toy)
    says(model, monkeypatch, tokenizer.encode("one\n\ntwo"))
    assert talk.say("a", stop_strings=["\n\n"]) == "one"
    assert talk.messages[-1] == {"role": "assistant", "content": "one"}
    assert talk.ids == template_ids(talk, tokenizer)[:-2]


def test_a_reply_ends_at_the_turns_end_even_where_the_model_names_other_stops(toy, monkeypatch):
    model, tokenizer = toy
    monkeypatch.setattr(model, "stop_ids", (tokenizer.special["<|endoftext|>"],))
    end, one = tokenizer.special["<|im_end|>"], tokenizer.encode("one")
    says(model, monkeypatch, [*one, end, *one])
    assert Conversation(*toy).say("a") == "one"
    says(model, monkeypatch, [*one, end, *one])
    assert Conversation(*toy).say("a", stop_ids=(), max_new_tokens=len(one) * 2 + 1) == "oneone"


def test_a_stream_gives_the_reply_in_pieces(toy):
    talk, other = Conversation(*toy), Conversation(*toy)
    pieces = list(talk.stream("a", seed=0, **WILD))
    assert len(pieces) > 3
    assert "".join(pieces) == other.say("a", seed=0, **WILD)
    assert state(talk) == state(other)


def test_a_seed_repeats_a_conversation(toy):
    def talked(seed):
        talk = Conversation(*toy, system="s")
        return [talk.say(question, seed=seed, **WILD) for question in QUESTIONS]

    assert talked(1) == talked(1)
    assert talked(1) != talked(2)


# --- undo ---


@pytest.mark.parametrize("system", [None, "s"])
def test_undo_takes_back_the_last_exchange(toy, tmp_path, system):
    model, tokenizer = toy[0], with_template(toy[1], DEFAULT_SYSTEM, tmp_path)
    talk = Conversation(model, tokenizer, system=system)
    states, replies = [state(talk)], []
    for turn, question in enumerate(QUESTIONS):
        replies.append(talk.say(question, seed=turn, **WILD))
        states.append(state(talk))
    for messages, ids, _ in reversed(states[:-1]):
        talk.undo()
        assert talk.messages == messages
        whole = template_ids(talk, tokenizer) if messages else []
        assert talk.ids == whole[: len(talk.ids)]  # nothing else,
        assert talk.ids[: len(ids)] == ids  # and nothing lost
        assert talk.cache.length == len(talk.ids)
    with pytest.raises(InputError, match="no exchange to undo"):
        talk.undo()
    again = [talk.say(question, seed=turn, **WILD) for turn, question in enumerate(QUESTIONS)]
    assert again == replies


def test_after_undo_only_the_new_exchange_is_fed(toy, monkeypatch):
    model, tokenizer = toy
    end = tokenizer.special["<|im_end|>"]
    talk = Conversation(*toy)
    for answer in ANSWERS[:2]:
        says(model, monkeypatch, [*tokenizer.encode(answer), end])
        talk.say("a")
    talk.undo()
    read = len(talk.ids)
    assert talk.ids == template_ids(talk, tokenizer)  # with the reply's end, which had been fed
    says(model, monkeypatch, [end])
    with fed_to(model) as shapes:
        talk.say("b")
    assert shapes == [(1, len(talk.ids) - read)]


def test_messages_are_a_copy(toy):
    talk = Conversation(*toy, system="s")
    talk.messages.append({"role": "user", "content": "x"})
    talk.messages[0]["content"] = "changed"
    assert talk.messages == [{"role": "system", "content": "s"}]


# --- no room, no end, no luck ---


def test_a_full_cache_refuses_at_the_call_and_changes_nothing(toy):
    model, tokenizer = toy
    talk = Conversation(*toy, max_length=60)
    talk.say("a", max_new_tokens=5)
    before = state(talk)
    asked = [*talk.messages, {"role": "user", "content": "b"}]
    length = len(template_ids(talk, tokenizer, asked, prompt=True))
    room = 60 - length
    with fed_to(model) as shapes, pytest.raises(CacheFullError) as caught:
        talk.stream("b", max_new_tokens=room + 1)
    assert shapes == []
    for words in (f"has {length} tokens", f"{room + 1} more", "room for 60", "max_length=61",
                  "max_new_tokens", "undo()"):  # fmt: skip
        assert words in str(caught.value)
    assert state(talk) == before
    with pytest.raises(CacheFullError):
        talk.say("b" * 200, max_new_tokens=1)
    assert state(talk) == before
    talk.say("b", max_new_tokens=room, stop_ids=())  # there was room for exactly this
    assert len(talk.messages) == 4
    with pytest.raises(CacheFullError):
        talk.say("c", max_new_tokens=20)
    talk.undo()
    talk.say("c", max_new_tokens=room)


@pytest.mark.parametrize("how", ["close", "forget", "never begun", "still held"])
def test_an_abandoned_stream_leaves_the_conversation_as_it_was(toy, how):
    talk, other = Conversation(*toy), Conversation(*toy)
    for each in (talk, other):
        each.say("a", seed=0, **WILD)
    before = state(talk)
    stream = talk.stream("b", max_new_tokens=30, temperature=1.0, seed=1, stop_ids=())
    if how != "never begun":
        next(stream)
        next(stream)
        assert talk.messages == before[0]
        assert len(talk.ids) > len(before[1])
    if how == "close":
        stream.close()
    elif how == "forget":
        del stream
    if how != "still held":
        assert state(talk) == before
    assert talk.say("c", seed=2, **WILD) == other.say("c", seed=2, **WILD)
    assert state(talk) == state(other)
    if how in ("still held", "never begun"):
        with pytest.raises(InputError, match="read the newest one only"):
            next(stream)
        assert state(talk) == state(other)


def test_a_stream_ends_with_undo(toy):
    talk = Conversation(*toy)
    talk.say("a", seed=0, **WILD)
    stream = talk.stream("b", max_new_tokens=30, temperature=1.0, seed=1, stop_ids=())
    next(stream)
    talk.undo()
    assert state(talk) == ([], [], 0)
    with pytest.raises(InputError, match="read the newest one only"):
        next(stream)
    assert state(talk) == ([], [], 0)


def test_a_last_piece_that_was_read_late_does_not_count(toy, monkeypatch):
    """A stop string is complete: nothing is left to be computed when another stream is begun."""
    model, tokenizer = toy
    talk = Conversation(*toy)
    says(model, monkeypatch, tokenizer.encode("one;"))
    stream = talk.stream("a", stop_strings=[";"])
    assert next(stream)
    says(model, monkeypatch, [*tokenizer.encode("two"), tokenizer.special["<|im_end|>"]])
    talk.say("b")
    before = state(talk)
    with pytest.raises(InputError, match="read the newest one only"):
        list(stream)
    assert state(talk) == before
    assert [message["content"] for message in talk.messages] == ["b", "two"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", [0, 3])
def test_an_error_in_the_middle_leaves_the_conversation_as_it_was(toy, monkeypatch, error, place):
    model, _ = toy
    talk, other = Conversation(*toy), Conversation(*toy)
    for each in (talk, other):
        each.say("a", seed=0, **WILD)
    before, layer = state(talk), model.model.layers[1]
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > place:
            raise error
        return type(layer).forward(layer, *arguments)

    monkeypatch.setattr(layer, "forward", failing)
    with pytest.raises(error):
        talk.say("b", max_new_tokens=20, stop_ids=())
    assert len(calls) == place + 1
    assert state(talk) == before
    monkeypatch.undo()
    assert talk.say("c", seed=2, **WILD) == other.say("c", seed=2, **WILD)


def test_a_template_that_fails_on_the_reply_leaves_the_conversation_as_it_was(toy, tmp_path):
    tokenizer = with_template(
        toy[1], "{% for m in messages %}{{ {'user': m.content}[m.role] + '.' }}{% endfor %}",
        tmp_path,
    )  # fmt: skip
    talk = Conversation(toy[0], tokenizer)
    with pytest.raises(TokenizerError, match="the chat template failed"):
        talk.say("a", seed=0, **WILD)
    assert state(talk) == ([], [], 0)


def test_bad_arguments_are_refused_at_the_call_and_change_nothing(toy):
    talk = Conversation(*toy)
    talk.say("a", seed=0, **WILD)
    before = state(talk)
    running = talk.stream("b", seed=1, **WILD)
    next(running)
    for settings, words in (
        ({"text": 3}, "text is a int"),
        ({"text": None}, "text is a NoneType"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"stop_ids": 3}, "stop_ids"),
        ({"stop_strings": "x"}, "stop_strings"),
        ({"seed": "x"}, "seed"),
        ({"max_new_tokens": 10_000}, "there is room for 2048"),
    ):
        with pytest.raises(InputError, match=words):
            talk.stream(**{"text": "c", **settings})
    assert talk.messages == before[0]
    list(running)  # a refused call has not ended it
    assert [message["content"] for message in talk.messages[::2]] == ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "words"), [({"system": 3}, "system is 3"), ({"max_length": 0}, "max_length is 0")]
)
def test_bad_arguments_of_a_conversation_are_refused(toy, settings, words):
    with pytest.raises(InputError, match=words):
        Conversation(*toy, **settings)


def test_without_a_chat_template_it_says_so(toy, tmp_path):
    model, tokenizer = toy[0], with_template(toy[1], None, tmp_path)
    tokenizer.chat_template = None
    with pytest.raises(TokenizerError, match="no chat template"):
        Conversation(model, tokenizer).stream("a")
