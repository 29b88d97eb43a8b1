"""From the fields of a request to what the engine is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from qwenkit.errors import InputError, TokenizerError, few, shown
from qwenkit.generate import GenerationConfig, default_stops, row_seed
from qwenkit.generate.text import TextWriter, chat_stops
from qwenkit.model import QwenForCausalLM
from qwenkit.serve.engine import Engine
from qwenkit.serve.http._errors import ApiError
from qwenkit.serve.http._fields import OFF_IN_CHAT, OFF_IN_COMPLETIONS, Fields
from qwenkit.serve.http.limits import Limits
from qwenkit.tokenizer import Tokenizer

_SAMPLING = {"top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "top_k": 0, "seed": None}
_USED = frozenset({
    "model", "max_tokens", "temperature", "n", "stop", "stream", "stream_options", *_SAMPLING,
})  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_LONGEST = 300  # characters of the package's own errors, which may show what came
_STOP_WORDS = 'a text or a list of texts, such as ["\\n\\n"]'


@dataclass(frozen=True)
class Served:
    """What a server offers.

    Attributes:
        name: of the model, as clients ask for it.
        model: runs in the engine's thread only.
        tokenizer: its tokenizer.
        engine: writes the texts.
        limits: of one request.
    """

    name: str
    model: QwenForCausalLM
    tokenizer: Tokenizer
    engine: Engine
    limits: Limits


@dataclass(frozen=True)
class Task:
    """The texts that one request asks for.

    Attributes:
        prompts: ids of each.
        choices: of each text, which prompt it continues, and how.
        stops: stop strings.
        stream: whether pieces are sent as they come.
        usage: whether a stream ends with the counts of tokens.
    """

    prompts: list[list[int]]
    choices: list[tuple[int, GenerationConfig]]
    stops: list[str]
    stream: bool
    usage: bool


def completion_task(body: dict[str, Any], served: Served) -> Task:
    """Read a request of /v1/completions.

    Raises:
        ApiError: saying what is wrong with it.
    """
    fields = Fields(body, _USED | {"prompt", "suffix"}, OFF_IN_COMPLETIONS)
    tokenizer, stops = served.tokenizer, default_stops(served.model, served.tokenizer)
    words = "a text, a list of texts, or a list of token ids"
    prompt = fields.required("prompt", (str, list), words)
    suffix = fields.take("suffix", (str,), "a text")
    if isinstance(prompt, str) or all(type(one) is int for one in prompt):
        prompt = [prompt]
    if not prompt or not all(isinstance(one, str) or _is_ids(one) for one in prompt):
        raise ApiError(f"prompt is {shown(prompt, 60)}; it must be {words}", param="prompt")
    if suffix is not None:
        if not all(isinstance(one, str) for one in prompt):
            raise ApiError("with suffix, prompt must be a text", param="suffix")
        stops |= frozenset(tokenizer.fim_stop_ids)
    with _as_api_errors("prompt"):
        if suffix is not None:
            prompt = [tokenizer.fim(one, suffix) for one in prompt]
        prompts = [tokenizer.encode(one) if isinstance(one, str) else one for one in prompt]
    return _task(fields, served, prompts, stops, fields.count("max_tokens", 16))


def chat_task(body: dict[str, Any], served: Served) -> Task:
    """Read a request of /v1/chat/completions; arguments and errors as of `completion_task`."""
    fields = Fields(body, _USED | {"messages", "max_completion_tokens"}, OFF_IN_CHAT)
    messages = fields.required("messages", (list,), "a list of messages")
    if not messages:
        raise ApiError("messages is []; it must hold at least one message", param="messages")
    plain = [_message(place, message) for place, message in enumerate(messages)]
    with _as_api_errors("messages"):
        prompt = served.tokenizer.encode(served.tokenizer.chat(plain))
    room = max(1, min(served.limits.max_tokens, served.engine.context - len(prompt)))
    most = fields.count("max_completion_tokens", fields.count("max_tokens", room))
    stops = chat_stops(served.model, served.tokenizer)
    return _task(fields, served, [prompt], stops, most)


def _task(
    fields: Fields,
    served: Served,
    prompts: list[list[int]],
    stop_ids: Collection[int],
    max_tokens: int,
) -> Task:
    """Read the fields that both endpoints have, and check all against the limits."""
    _check_model(fields, served)
    limits, stops = served.limits, fields.take("stop", (str, list), _STOP_WORDS, [])
    stops = [stops] if isinstance(stops, str) else stops
    _at_most("stop", len(stops), limits.max_stops, "stop strings")
    _at_most("max_tokens", max_tokens, limits.max_tokens, "tokens per answer")
    count = fields.count("n", 1)
    _at_most("n", count * len(prompts), limits.max_choices, "texts per request")
    sampling = {name: fields.get(name, default) for name, default in _SAMPLING.items()}
    sampling["temperature"] = fields.get("temperature", 1.0)
    with _as_api_errors("stop"):
        TextWriter(served.tokenizer, stops)
    with _as_api_errors():
        config = GenerationConfig(max_new_tokens=max_tokens, stop_ids=stop_ids, **sampling)
    for prompt in prompts:
        if not prompt:
            raise ApiError("the prompt is empty; give at least one character", param="prompt")
        try:
            served.engine.check(prompt, max_tokens)
        except InputError as error:
            code = "context_length_exceeded" if "context" in str(error) else None
            raise ApiError(f"the prompt: {error}", code=code) from None
    places = [place for place in range(len(prompts)) for _ in range(count)]
    choices = [(place, _seeded(config, row)) for row, place in enumerate(places)]
    options = fields.take("stream_options", (dict,), "an object", {})
    if not options.keys() <= {"include_usage", "include_obfuscation"}:
        text = f"stream_options is {shown(options, 60)}; it takes include_usage alone"
        raise ApiError(text, param="stream_options")
    stream = fields.take("stream", (bool,), "true or false", False)
    return Task(prompts, choices, stops, stream, options.get("include_usage") is True)


def _seeded(config: GenerationConfig, row: int) -> GenerationConfig:
    """Return the config of a request's text: with a seed, each has its own (see `row_seed`)."""
    seed = config.seed
    return config if seed is None else replace(config, seed=row_seed(seed, row))


def _check_model(fields: Fields, served: Served) -> None:
    name = fields.take("model", (str,), "a text", served.name)
    if name != served.name:
        raise ApiError(
            f"model is {shown(name, 60)}; this server has {shown(served.name)} alone",
            404, param="model", code="model_not_found",
        )  # fmt: skip


def _at_most(name: str, value: int, most: int, what: str) -> None:
    if value > most:
        raise ApiError(
            f"{name} asks for {shown(value, 20)} {what}; the limit is {most}", param=name
        )


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int for one in value)


def _message(place: int, message: object) -> dict[str, str]:
    """Return a message as a chat template takes it: its content is one text."""
    where = f"messages[{place}]"
    if not isinstance(message, dict) or message.get("role") not in [*_ROLES]:
        raise ApiError(
            f'{where} is {shown(message, 60)}; it must be {{"role": ..., "content": ...}} with the '
            f"role {few(_ROLES)}", param=where,
        )  # fmt: skip
    more = {k: v for k, v in message.items() if v is not None and k not in ("role", "content")}
    if more.keys() - {"name", "refusal"}:
        raise ApiError(f"{where} holds {few(map(shown, more))}; only text is offered", param=where)
    return {"role": _ROLES[message["role"]], "content": _text(where, message.get("content"))}


def _text(where: str, content: object) -> str:
    """Return a content's text: it is one, or a list of parts of the type text."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts: Sequence[object] = [
        one.get("text") if isinstance(one, dict) and one.get("type") == "text" else None
        for one in parts
    ]
    if not all(isinstance(text, str) for text in texts):
        raise ApiError(
            f"{where}.content is {shown(content, 60)}; it must be a text, or a list of "
            '{"type": "text", "text": ...}: this model reads text alone', param=where,
        )  # fmt: skip
    return "".join(map(str, texts))


@contextmanager
def _as_api_errors(param: str | None = None) -> Iterator[None]:
    """Turn the package's own errors into the client's."""
    try:
        yield
    except (InputError, TokenizerError) as error:
        text = str(error)
        short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        raise ApiError(short, param=param or text.partition(" is ")[0]) from None
