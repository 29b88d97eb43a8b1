"""Special tokens named in files other than tokenizer.json: bos, eos, pad, and added ones.

Read in the order of transformers: tokenizer_config.json, and where it has no added_tokens_decoder
the older special_tokens_map.json and added_tokens.json as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from qwenkit.errors import TokenizerError
from qwenkit.tokenizer._files import ADDED, DECODER, SETTINGS, SPECIAL_MAP, parsed

# transformers' names for them, in its order: new tokens get their ids in this order.
NAMED = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_DEFAULT = "<|endoftext|>"  # of Qwen2Tokenizer, where a file does not mention one of these
_WITH_DEFAULT = ("eos_token", "unk_token", "pad_token")
# Of an added token, each true or false.
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_AROUND = ("add_bos_token", "add_eos_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")  # the newer name first


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens as a folder's settings have them.

    Attributes:
        added: id -> entry as in tokenizer.json's added_tokens.
        decides: whether the flags in `added` win over those in tokenizer.json.
        named: name -> token, such as eos_token -> `<|im_end|>`; None: there is none.
        extra: further special tokens.
        first, last: whether bos and eos are put around a text (for vocab.json alone).
        split: whether special tokens in a text are always ordinary text, whatever is asked for.
        prefix_space: whether a space is put before each word that has none, as transformers 5 does.
    """

    added: dict[int, dict[str, Any]]
    decides: bool
    named: dict[str, str | None]
    extra: list[str]
    first: bool
    last: bool
    split: bool
    prefix_space: bool

    def texts(self, backend: tokenizers.Tokenizer) -> dict[str, str]:
        """Return name -> token, with Qwen2's defaults for what the files do not mention."""
        found = {name: token for name, token in self.named.items() if token is not None}
        known = backend.token_to_id(_DEFAULT) is not None
        missing = [name for name in _WITH_DEFAULT if known and name not in self.named]
        return found | dict.fromkeys(missing, _DEFAULT)


def read_special(files: Mapping[str, bytes]) -> SpecialTokens:
    """Read the special tokens of a tokenizer's settings.

    Raises:
        TokenizerError: a file that is not JSON, or an invalid token.
    """
    config = parsed(files, SETTINGS)
    values = dict(config)
    if DECODER not in config:
        values |= parsed(files, SPECIAL_MAP)
    odd = [name for name in _AROUND if not isinstance(config.get(name), bool | None)]
    if odd:
        raise TokenizerError(f"{SETTINGS}: {odd[0]} is {config[odd[0]]!r:.80}; it must be a bool")
    found: Any = next((values[name] for name in _LISTS if values.get(name)), [])
    if not isinstance(found, list | dict):
        raise TokenizerError(f"{SETTINGS}: the list of special tokens is {found!r:.80}")
    named = {n: value for n, value in values.items() if n in NAMED or _is_named(n, value)}
    if isinstance(found, dict):  # each with a name of its own
        named |= found
    added = _added(config, files, _contents([*named.values(), *found]))
    order = [*(name for name in NAMED if name in named), *(n for n in named if n not in NAMED)]
    return SpecialTokens(
        added=added,
        decides=DECODER in config,
        named={name: _token(name, named[name]) for name in order},
        extra=[t for t in (_token("extra", f) for f in found) if t is not None]
        if isinstance(found, list)
        else [],
        first=bool(config.get(_AROUND[0])),
        last=bool(config.get(_AROUND[1])),
        split=bool(config.get("split_special_tokens")),
        prefix_space=config.get("add_prefix_space") is True,
    )


def _is_named(name: str, value: object) -> bool:
    """Tell whether a setting is a token of some other name, such as image_token."""
    is_token = isinstance(value, str) or (isinstance(value, dict) and "content" in value)
    return name.endswith("_token") and name not in _AROUND and is_token


def _contents(values: list[Any]) -> set[str]:
    found = [value.get("content") if isinstance(value, dict) else value for value in values]
    return {text for text in found if isinstance(text, str)}


def _added(
    config: Mapping[str, Any], files: Mapping[str, bytes], special: set[str]
) -> dict[int, dict[str, Any]]:
    """Read the tokens that are added to the vocabulary, by id."""
    added: dict[int, dict[str, Any]] = {}
    if DECODER not in config:
        for text, number in parsed(files, ADDED).items():
            flags = {"content": text, "special": text in special, "normalized": text not in special}
            _put(added, ADDED, number, flags)
        return dict(sorted(added.items()))
    listed = config[DECODER]
    if not isinstance(listed, dict):
        raise TokenizerError(f"{SETTINGS}: {DECODER} must hold tokens by their ids")
    for number, token in listed.items():
        _put(added, SETTINGS, int(number) if number.isdecimal() else number, token)
    return dict(sorted(added.items()))


def _put(added: dict[int, dict[str, Any]], name: str, number: Any, token: Any) -> None:
    if type(number) is not int or number < 0:
        raise TokenizerError(f"{name}: the id of {token!r:.80} is {number!r:.80}, not an integer")
    if number in added:
        raise TokenizerError(f"{name}: two tokens have the id {number}")
    text = token.get("content") if isinstance(token, dict) else None
    if not isinstance(text, str) or any(type(token.get(f, False)) is not bool for f in FLAGS):
        raise TokenizerError(f"{name}: token {number} is {token!r:.80}; it needs a content")
    special = token.get("special", False)  # AddedToken's own defaults
    flags = {f: token.get(f, not special if f == "normalized" else False) for f in FLAGS}
    added[number] = {"id": number, "content": text, **flags}


def _token(name: str, value: Any) -> str | None:
    """Return a token given by its text, or by its text and flags; None for none.

    Qwen2Tokenizer gives the tokens that have a name the default flags, whatever the files say.
    """
    if value is None:
        return None
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text:
        raise TokenizerError(f"{SETTINGS}: {name} is {value!r:.80}; it must be a token's text")
    return text
