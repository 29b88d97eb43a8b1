"""Rendering messages as text with a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwenkit.errors import TokenizerError
from qwenkit.tokenizer._sandbox import render
from qwenkit.tokenizer._templates import choose

# Arguments of transformers' apply_chat_template, which are not variables of a template.
_THEIRS = (
    "continue_final_message", "tokenize", "return_tensors", "return_dict", "padding", "truncation",
    "max_length", "return_assistant_tokens_mask", "sanitize_control_tokens", "tokenizer_kwargs",
)  # fmt: skip
_REASONING = ("reasoning_content", "thinking", "reasoning")  # the first is what templates read


class ChatText(str):
    """The text of a chat: its template has already written the BOS, if any."""

    __slots__ = ()

    def __add__(self, more: str) -> ChatText:
        """Return the chat with the beginning of the reply."""
        return ChatText(str(self) + more)


def chat_text(
    templates: Mapping[str, str],
    named: Mapping[str, str],
    messages: object,
    chat_template: str | None,
    known: Mapping[str, Any],
    variables: Mapping[str, Any],
) -> ChatText:
    """Return what the template makes of messages; see `Tokenizer.chat`."""
    for name in _THEIRS:
        if name in variables:
            raise TokenizerError(f"{name} is not an argument of chat; it returns the text")
    for name in ("tools", "documents"):
        _check_list(name, known[name])
    template = choose(templates, chat_template, known["tools"] is not None)
    try:
        values = _plain({**known, **variables})
        given = {"messages": _messages(messages)}
    except RecursionError:
        raise TokenizerError("the messages are nested too deeply, or hold themselves") from None
    try:
        return ChatText(render(template, {**named, **given, **values}))
    except Exception as error:  # a template is a program: it may fail in any way
        raise TokenizerError(f"the chat template failed: {error!s:.500}") from None


def _messages(messages: object) -> list[dict[str, Any]]:
    """Return messages as transformers hands them to a template.

    Keys that are None are left out, and a model's reasoning is given under all of its names.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise TokenizerError(f"messages is {messages!r:.200}; it must be a list of messages")
    found = []
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message:
            raise TokenizerError(
                f"message is {message!r:.200}; it must be a dict of role and content"
            )
        plain = {key: value for key, value in _plain(message).items() if value is not None}
        thought = next((plain[name] for name in _REASONING if name in plain), None)
        if thought is not None:
            plain = {"thinking": thought, **plain, "reasoning_content": thought}
        found.append(plain)
    return found


def _check_list(name: str, value: object) -> None:
    listed = value if isinstance(value, list | tuple) else (None,)
    if value is not None and not all(isinstance(one, Mapping) for one in listed):
        raise TokenizerError(f"{name} is {value!r:.200}; it must be a list of dicts, or None")


def _plain(value: Any) -> Any:
    """Return a value as plain JSON types; a template must not reach an object's methods."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):  # a subclass may have methods of its own
            return kind(value) if kind is not str else str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return f"<{type(value).__name__}>"
