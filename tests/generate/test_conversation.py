"""Conversations: what is fed, what the cache holds, and what errors and breaks leave behind."""

from unittest import mock

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
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
# Unlike Qwen2.5's it changes what was read before: it counts, and strips spaces around replies.
ODD = """{{- 'In all: %d\\n' % messages|length }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
FAILING = "{% for m in messages %}{{ {'user': m.content}[m.role] + '.' }}{% endfor %}"
TEMPLATES = {"plain": None, "default system": DEFAULT_SYSTEM, "odd": ODD}
END = "<|im_end|>"
QUESTIONS = ["Sum a list.", "  And the mean, é🙂?\n\n", ""]
ANSWERS = ["sum(values)", "sum(values) / len(values)\n", "x = 面積"]
RANDOM = {"max_new_tokens": 8, "temperature": 1.3}


def with_template(both, template, folder):
    """Return the same model and tokenizer with another chat template."""
    both[1].save(folder)
    other = Tokenizer(folder)
    other.chat_template = template or both[1].chat_template
    return both[0], other


def template_ids(tokenizer, messages, prompt=False):
    return tokenizer.encode(tokenizer.chat(messages, add_generation_prompt=prompt))


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def state(talk):
    return talk.messages, talk.ids, talk.cache.length


def asked(talk, seed=0, questions=QUESTIONS):
    return [talk.say(text, seed=seed + turn, **RANDOM) for turn, text in enumerate(questions)]


@pytest.fixture
def reply(toy, monkeypatch):
    """Return a function: a reply whose text or tokens are dictated, and what was fed."""

    def said(talk, answer, text="a", both=toy, **options):
        ids = both[1].encode(answer) if isinstance(answer, str) else answer
        says(both[0], monkeypatch, ids)
        with fed_to(both[0]) as shapes:
            return talk.say(text, **options), shapes

    return said


@pytest.mark.parametrize("which", ["toy", "coder"])
@pytest.mark.parametrize("system", [None, "You write Python."])
@pytest.mark.parametrize("template", ["plain", "default system"])
def test_only_new_tokens_are_fed_and_the_cache_holds_the_template(
    request, reply, tmp_path, which, template, system
):
    both = with_template(request.getfixturevalue(which), TEMPLATES[template], tmp_path)
    tokenizer, talk = both[1], Conversation(*both, system=system)
    want = [] if system is None else [{"role": "system", "content": system}]
    read = 0
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True):
        ids = tokenizer.encode(answer)
        want.append(user(question))
        prompt = template_ids(tokenizer, want, prompt=True)
        got, shapes = reply(talk, [*ids, tokenizer.special[END]], question, both)
        assert got == answer
        # the rest of the template up to the reply, then the reply; its end is never fed
        assert shapes == [(1, len(prompt) - read)] + [(1, 1)] * len(ids)
        want.append(assistant(answer))
        assert talk.messages == want
        whole = template_ids(tokenizer, want)
        assert talk.ids == whole[: len(talk.ids)] == [*prompt, *ids]
        assert tokenizer.decode(whole[len(talk.ids) :]) == "<|im_end|>\n"
        read = talk.cache.length
        assert read == len(talk.ids)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("seed", range(2))
def test_replies_equal_those_of_a_fresh_reading_of_the_template(toy, tmp_path, template, seed):
    """Random: broken bytes, special tokens, and texts that are tokenized in another way."""
    model, tokenizer = with_template(toy, TEMPLATES[template], tmp_path)
    talk, otherwise = Conversation(model, tokenizer), 0
    ends = (*model.stop_ids, tokenizer.special["<|im_end|>"])
    for turn, question in enumerate([*QUESTIONS, "More."]):
        settings = {"seed": 10 * seed + turn, **RANDOM}
        so_far = [*talk.messages, user(question)]
        want = complete(model, tokenizer, tokenizer.chat(so_far), stop_ids=ends, **settings)
        assert talk.say(question, **settings) == want
        assert talk.messages == [*so_far, assistant(want)]
        whole = template_ids(tokenizer, talk.messages)
        assert talk.ids == whole[: len(talk.ids)]
        otherwise += len(whole) - len(talk.ids) > 2
    assert otherwise > 0  # or it would prove little


@pytest.mark.parametrize("template", ["default system", "odd"])
def test_the_cached_keys_are_those_of_the_template(toy, tmp_path, template):
    both = with_template(toy, TEMPLATES[template], tmp_path)
    talk, fresh = Conversation(*both, system="Be short."), Conversation(*both)
    asked(talk)
    both[0](torch.tensor([talk.ids]), cache=fresh.cache)
    length = talk.cache.length
    assert length > (40 if template == "default system" else 0)
    for ours, want in zip(talk.cache.keys, fresh.cache.keys, strict=True):
        assert relative_error(ours[:, :, :length], want[:, :, :length]) < 1e-5


def test_a_reply_that_is_tokenized_otherwise_is_fed_again(toy, reply):
    talk, encode = Conversation(*toy), toy[1].encode
    letters = [encode(letter)[0] for letter in "return"]
    assert len(encode("return")) < 6
    assert reply(talk, [*letters, *encode(END)])[0] == "return"
    prompt = template_ids(toy[1], talk.messages[:1], prompt=True)
    assert talk.ids == prompt  # cut back to where both agree
    _, shapes = reply(talk, END, "b")
    again = template_ids(toy[1], talk.messages[:3], prompt=True)
    assert shapes == [(1, len(again) - len(prompt))]
    assert talk.ids == again


def test_a_reply_ends_with_a_stop_string_or_its_turn_or_not(toy, reply, monkeypatch):
    talk = Conversation(*toy)
    assert reply(talk, "one\n\ntwo", stop_strings=["\n\n"])[0] == "one"
    assert talk.messages[-1] == assistant("one")
    assert talk.ids == template_ids(toy[1], talk.messages)[:-2]  # the rest is forgotten
    monkeypatch.setattr(toy[0], "stop_ids", (toy[1].special["<|endoftext|>"],))  # not the turn's
    assert reply(Conversation(*toy), f"one{END}one")[0] == "one"
    whole = {"stop_ids": (), "max_new_tokens": len(toy[1].encode(f"one{END}one"))}
    assert reply(Conversation(*toy), f"one{END}one", **whole)[0] == "oneone"


def test_a_stream_gives_the_reply_in_pieces_and_a_seed_repeats_a_conversation(toy):
    talk, other = Conversation(*toy), Conversation(*toy)
    pieces = list(talk.stream("a", seed=0, **RANDOM))
    assert len(pieces) > 3
    assert "".join(pieces) == other.say("a", seed=0, **RANDOM)
    assert state(talk) == state(other)
    one, same, another = (asked(Conversation(*toy, system="s"), seed) for seed in (1, 1, 9))
    assert one == same != another


# --- undo ---


@pytest.mark.parametrize("system", [None, "s"])
def test_undo_takes_back_the_last_exchange(toy, tmp_path, system):
    both = with_template(toy, DEFAULT_SYSTEM, tmp_path)
    talk = Conversation(*both, system=system)
    states, replies = [state(talk)], []
    for turn, question in enumerate(QUESTIONS):
        replies += asked(talk, turn, [question])
        states.append(state(talk))
    for messages, ids, _ in reversed(states[:-1]):
        talk.undo()
        assert talk.messages == messages
        whole = template_ids(both[1], messages) if messages else []
        assert talk.ids == whole[: len(talk.ids)]  # nothing else,
        assert talk.ids[: len(ids)] == ids  # and nothing lost
        assert talk.cache.length == len(talk.ids)
    with pytest.raises(InputError, match="no exchange to undo"):
        talk.undo()
    assert asked(talk) == replies


def test_after_undo_only_the_new_exchange_is_fed_and_messages_are_a_copy(toy, reply):
    talk = Conversation(*toy, system="s")
    for answer in ANSWERS[:2]:
        reply(talk, answer + END)
    talk.undo()
    read = len(talk.ids)
    assert talk.ids == template_ids(toy[1], talk.messages)  # with the reply's end, which was fed
    _, shapes = reply(talk, END, "b")
    assert shapes == [(1, len(talk.ids) - read)]
    before = talk.messages
    talk.messages.append(user("x"))
    talk.messages[0]["content"] = "changed"
    assert talk.messages == before


# --- a full cache, abandoned streams, errors ---


def test_a_full_cache_refuses_at_the_call_and_changes_nothing(toy):
    talk = Conversation(*toy, max_length=60)
    talk.say("a", max_new_tokens=5)
    before = state(talk)
    length = len(template_ids(toy[1], [*talk.messages, user("b")], prompt=True))
    room = 60 - length
    with fed_to(toy[0]) as shapes, pytest.raises(CacheFullError) as caught:
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


@pytest.fixture
def pair_of(toy):
    """Two conversations with one and the same exchange."""
    talks = Conversation(*toy), Conversation(*toy)
    for talk in talks:
        asked(talk, questions="a")
    return talks


def begun(talk):
    return talk.stream("b", max_new_tokens=30, temperature=1.0, seed=1, stop_ids=())


def refused(stream, talk, want):
    """Read on in a stream that is not the newest: nothing may change."""
    with pytest.raises(InputError, match="read the newest one only"):
        list(stream)
    assert state(talk) == want


@pytest.mark.parametrize("how", ["close", "forget", "never begun", "still held"])
def test_an_abandoned_stream_leaves_the_conversation_as_it_was(pair_of, how):
    talk, other = pair_of
    before, stream = state(talk), begun(talk)
    if how != "never begun":
        assert next(stream) + next(stream)
        assert talk.messages == before[0]
        assert len(talk.ids) > len(before[1])
    if how == "close":
        stream.close()
    elif how == "forget":
        del stream
    if how != "still held":
        assert state(talk) == before
    assert asked(talk, 2, "c") == asked(other, 2, "c")
    assert state(talk) == state(other)
    if how in ("still held", "never begun"):
        refused(stream, talk, state(other))


def test_a_stream_ends_with_undo(pair_of):
    talk, _ = pair_of
    stream = begun(talk)
    next(stream)
    talk.undo()
    assert state(talk) == ([], [], 0)
    refused(stream, talk, ([], [], 0))


def test_a_last_piece_that_was_read_late_does_not_count(toy, reply, monkeypatch):
    """A stop string is complete: nothing is left to be computed when another stream is begun."""
    talk = Conversation(*toy)
    says(toy[0], monkeypatch, toy[1].encode("one;"))
    stream = talk.stream("a", stop_strings=[";"])
    assert next(stream)
    reply(talk, f"two{END}", "b")
    refused(stream, talk, state(talk))
    assert [message["content"] for message in talk.messages] == ["b", "two"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", [0, 3])
def test_an_error_in_the_middle_leaves_the_conversation_as_it_was(toy, pair_of, error, place):
    talk, other = pair_of
    before, layer = state(talk), toy[0].model.layers[1]
    # a mock gives what the layer's own forward gives, and at last the error
    failing = mock.Mock(side_effect=[*[mock.DEFAULT] * place, error], wraps=layer.forward)
    with mock.patch.object(layer, "forward", failing), pytest.raises(error):
        talk.say("b", max_new_tokens=20, stop_ids=())
    assert failing.call_count == place + 1
    assert state(talk) == before
    assert asked(talk, 2, "c") == asked(other, 2, "c")


def test_a_template_that_fails_on_the_reply_or_is_missing_leaves_the_conversation(toy, tmp_path):
    talk = Conversation(*with_template(toy, FAILING, tmp_path))
    with pytest.raises(TokenizerError, match="the chat template failed"):
        asked(talk)
    assert state(talk) == ([], [], 0)
    talk._tokenizer.chat_template = None
    with pytest.raises(TokenizerError, match="no chat template"):
        talk.stream("a")


def test_bad_arguments_are_refused_at_the_call_and_change_nothing(toy, pair_of):
    talk, _ = pair_of
    before = talk.messages
    running = talk.stream("b", seed=1, **RANDOM)
    next(running)
    for settings, words in (
        ({"text": 3}, "text is a int"), ({"text": None}, "text is a NoneType"),
        ({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1.0}, "temperature"),
        ({"stop_ids": 3}, "stop_ids"), ({"seed": "x"}, "seed"),
        ({"stop_strings": "x"}, "stop_strings"),
        ({"max_new_tokens": 10_000}, "there is room for 2048"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            talk.stream(**{"text": "c", **settings})
    assert talk.messages == before
    list(running)  # a refused call has not ended it
    assert [message["content"] for message in talk.messages[::2]] == ["a", "b"]
    for settings, words in (({"system": 3}, "system is 3"), ({"max_length": 0}, "max_length is 0")):
        with pytest.raises(InputError, match=words):
            Conversation(*toy, **settings)
