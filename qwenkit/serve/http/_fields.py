"""Reading the fields of a request: each is used, harmless, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from qwenkit.errors import few, shown
from qwenkit.serve.http._errors import ApiError

# They say who asks, or how the answer is stored and billed: the text is the same without them.
IGNORED = frozenset({
    "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier",
    "store", "user",
})  # fmt: skip
# Fields of OpenAI's that are not offered, and the values with which they change nothing.
_PENALTIES: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},),
}  # fmt: skip
OFF_IN_COMPLETIONS = {**_PENALTIES, "best_of": (1,), "echo": (False,), "logprobs": (False,)}
OFF_IN_CHAT = {
    **_PENALTIES, "logprobs": (False,), "top_logprobs": (0,), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "reasoning_effort": ("none",),
}  # fmt: skip


def read_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds.

    Raises:
        ApiError: the body is not one.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number of JSON")

    try:
        found = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ApiError(f"the body is not JSON ({reason}); send an object") from None
    if not isinstance(found, dict):
        raise ApiError(f"the body is {shown(found, 60)}; send a JSON object with the fields")
    return found


class Fields:
    """The fields of a request, by name; null is as good as absent.

    Args:
        body: as it came.
        used: names of the fields that are offered.
        off: name -> values with which a field that is not offered changes nothing.

    Raises:
        ApiError: a field that is none of these, and would change the answer.
    """

    def __init__(
        self, body: Mapping[str, Any], used: frozenset[str], off: Mapping[str, tuple[Any, ...]]
    ) -> None:
        self._values = {name: value for name, value in body.items() if value is not None}
        for name, value in self._values.items():
            if name in off and value not in off[name]:
                allowed = " or ".join(json.dumps(one) for one in off[name])
                raise ApiError(
                    f"{name} is {shown(value, 60)}, which is not offered here; leave it out, "
                    f"or send {allowed}", param=name, code="unsupported_parameter",
                )  # fmt: skip
            if name not in used | off.keys() | IGNORED:
                raise ApiError(
                    f"{shown(name, 60)} is not a field of this endpoint; it takes "
                    f"{few(sorted(used), most=30)}", code="unknown_parameter",
                )  # fmt: skip

    def get(self, name: str, default: Any) -> Any:
        """Return a field as it came, or the default."""
        return self._values.get(name, default)

    def take(self, name: str, kinds: tuple[type, ...], words: str, default: Any = None) -> Any:
        """Return a field's value, or the default.

        Args:
            name: of the field.
            kinds: the types that it may have; true and false are no integers.
            words: what that is, for the error.
            default: where the field is absent.

        Raises:
            ApiError: the value is of another type.
        """
        value = self._values.get(name, default)
        right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        if name in self._values and not right:
            raise ApiError(f"{name} is {shown(value, 60)}; it must be {words}", param=name)
        return value

    def required(self, name: str, kinds: tuple[type, ...], words: str) -> Any:
        """Return a field's value; as `take`, but it must be there."""
        if name not in self._values:
            raise ApiError(f"{name} is missing; it must be {words}", param=name)
        return self.take(name, kinds, words)

    def count(self, name: str, default: int) -> int:
        """Return a field that is an integer of at least 1."""
        words = "an integer of at least 1"
        value: int = self.take(name, (int,), words, default)
        if value < 1:
            raise ApiError(f"{name} is {shown(value, 60)}; it must be {words}", param=name)
        return value
