"""Text to token ids and back: a thin layer over the `tokenizers` library.

Qwen's tokenizer is a byte-level BPE: every text becomes tokens, and no token is "unknown". Special
tokens such as `<|im_start|>` are single ids that ordinary text never gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
import torch
from jaxtyping import Int
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from torch import Tensor

from qwenkit.errors import ConfigError, TokenizerError, shown
from qwenkit.files import read_json_object, replacing, write_json

_VISIBLE = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}


class Tokenizer:
    """The tokenizer of a checkpoint folder.

    Attributes:
        special: special token -> id, as `<|im_end|>` -> 151645.
        num_tokens: one more than the largest id; the rest of a model's vocabulary is padding.
        rows: ids that the model has rows for, where those are fewer than `num_tokens`; else None.
        chat_template: the folder's own chat template (Jinja), or None.

    Args:
        folder: holds tokenizer.json; the chat template comes from its tokenizer_config.json or
            chat_template.jinja.

    Raises:
        TokenizerError: no tokenizer.json, or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder).expanduser()
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"{path} does not exist; qwenkit reads the tokenizer from it")
        try:
            self.backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception
            raise TokenizerError(f"{path} cannot be read ({error}); fetch it again") from None
        added = self.backend.get_added_tokens_decoder()
        self.special = {token.content: number for number, token in sorted(added.items())}
        self.num_tokens = _count(self.backend)
        if not self.num_tokens:
            raise TokenizerError(f"{path} holds no tokens; fetch it again")
        self.rows: int | None = None  # load_pretrained sets it
        self.chat_template = _chat_template(folder)

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any string.
            special: whether `<|im_end|>` and the like become special tokens; False: they are
                ordinary characters, as they should be in text from untrusted sources.

        Raises:
            TokenizerError: not a str, not valid Unicode, or a token that the model has no row for.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"text is a {type(text).__name__}; it must be a str")
        self.backend.encode_special_tokens = not special
        try:
            ids = list(self.backend.encode(text, add_special_tokens=False).ids)
        except (UnicodeEncodeError, TypeError):  # the library's answers to half a surrogate pair
            wrong = "text is not valid Unicode: it holds half of a surrogate pair"
            raise TokenizerError(wrong) from None
        return self._with_rows(ids)

    def _with_rows(self, ids: list[int]) -> list[int]:
        """Return the ids; refuse one that was added to the tokenizer alone."""
        largest = max(ids, default=0) if self.rows is not None else 0
        if self.rows is not None and largest >= self.rows:
            raise TokenizerError(
                f"the text holds {shown(self.backend.id_to_token(largest))} (id {largest}), which "
                f"was added to the tokenizer alone: the model's ids end at {self.rows - 1}"
            )
        return ids

    def __call__(self, text: str, special: bool = True) -> Int[Tensor, "1 T"]:
        """Return the ids of a text as the (1, T) tensor that a model takes."""
        return torch.tensor([self.encode(text, special)], dtype=torch.int64)

    def decode(self, ids: Iterable[int] | Tensor, skip_special: bool = False) -> str:
        """Return the text of ids; bytes of an incomplete character become U+FFFD.

        Raises:
            TokenizerError: an id that is not a token.
        """
        return str(self.backend.decode(self._ids(ids), skip_special_tokens=skip_special))

    def token_strings(self, ids: Iterable[int] | Tensor) -> list[str]:
        r"""Return a short string per token, to show: · space, ↵ newline, → tab, \xNN a byte."""
        return [self._visible(number) for number in self._ids(ids)]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Return a conversation as the single text that the model reads.

        Args:
            messages: each {"role": "system" | "user" | "assistant", "content": ...}.
            add_generation_prompt: whether to open the assistant's turn at the end.
            tools: JSON schemas of functions the model may call.

        Raises:
            TokenizerError: no chat template, an invalid message, or a template that fails.
        """
        if self.chat_template is None:
            raise TokenizerError("this checkpoint has no chat template; an Instruct model has one")
        if isinstance(messages, str) or not isinstance(messages, Sequence):
            raise TokenizerError(f"messages is {messages!r}; it must be a list of messages")
        for message in messages:
            if not isinstance(message, Mapping) or "role" not in message:
                raise TokenizerError(
                    f"message is {message!r}; it must be a dict of role and content"
                )
        try:
            template = _environment().from_string(self.chat_template)
            return template.render(
                messages=list(messages),
                tools=None if tools is None else list(tools),
                add_generation_prompt=add_generation_prompt,
            )
        except Exception as error:  # a template is a program: it may fail in any way
            raise TokenizerError(f"the chat template failed: {error}") from None

    def special_id(self, token: str) -> int:
        """Return the id of a special token.

        Raises:
            TokenizerError: this vocabulary does not have it.
        """
        if token not in self.special:
            raise TokenizerError(f"this vocabulary has no special token {token}")
        return self.special[token]

    def fim(self, prefix: str, suffix: str) -> str:
        """Return the prompt that asks for the text between prefix and suffix (fill-in-the-middle).

        Source: Hui et al. 2024, "Qwen2.5-Coder Technical Report", section 3.1.

        Raises:
            TokenizerError: the vocabulary has no FIM tokens.
        """
        before, after, middle = names = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
        missing = [name for name in names if name not in self.special]
        if missing:
            raise TokenizerError(f"this vocabulary has no {', '.join(missing)}; FIM needs them")
        return f"{before}{prefix}{after}{suffix}{middle}"

    @property
    def fim_stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a filled-in text, besides the usual ones: a new file, or a new gap."""
        names = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
        return tuple(self.special[f"<|{n}|>"] for n in names if f"<|{n}|>" in self.special)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json, and the chat template if there is one, into a folder."""
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "tokenizer.json") as temporary:
            self.backend.save(str(temporary))
        settings = {"tokenizer_class": "Qwen2Tokenizer", "clean_up_tokenization_spaces": False}
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        write_json(folder / "tokenizer_config.json", settings)

    def _ids(self, ids: Iterable[int] | Tensor) -> list[int]:
        numbers = ids.reshape(-1).tolist() if isinstance(ids, Tensor) else ids
        if not isinstance(numbers, Iterable):
            raise TokenizerError(f"ids is {ids!r}; it must be a list or tensor of ids")
        checked = []
        for number in numbers:
            if isinstance(number, bool) or not hasattr(number, "__index__"):
                raise TokenizerError(f"ids holds {number!r}; an id is an integer")
            number = int(number)
            in_range = 0 <= number < self.num_tokens
            if not in_range or self.backend.id_to_token(number) is None:
                raise TokenizerError(f"id {number} is not a token; ids are below {self.num_tokens}")
            checked.append(number)
        return checked

    def _visible(self, number: int) -> str:
        token = self.backend.id_to_token(number) or ""
        if token in self.special or not set(token) <= _BYTE_OF.keys():  # not byte-level: as it is
            return token
        text = bytes(_BYTE_OF[char] for char in token).decode("utf-8", errors="backslashreplace")
        return "".join(_VISIBLE.get(char, char) for char in text)

    def __repr__(self) -> str:
        return f"Tokenizer({self.num_tokens:,} tokens, {len(self.special)} special)"


def _count(backend: tokenizers.Tokenizer) -> int:
    """Return one more than the largest id; 0 for a vocabulary of no tokens."""
    size = int(backend.get_vocab_size(with_added_tokens=True))
    if size and backend.id_to_token(size - 1) is not None and backend.id_to_token(size) is None:
        return size  # no gaps, as in every Qwen: the whole vocabulary need not be listed
    return max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for.

    Printable Latin-1 characters stand for their own bytes; the other bytes take the characters
    from U+0100 upwards, in order (Radford et al. 2019, GPT-2).

    >>> byte_alphabet()["A"], byte_alphabet()["Ġ"]  # Ġ stands for the space
    (65, 32)
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + number): byte for number, byte in enumerate(others)}


_BYTE_OF = byte_alphabet()


def _chat_template(folder: Path) -> str | None:
    """Read the template: its own file in newer checkpoints, a JSON value in older ones."""
    own, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if own.is_file():
            return own.read_text(encoding="utf-8")
        template = read_json_object(settings).get("chat_template") if settings.is_file() else None
    except ConfigError as error:
        raise TokenizerError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{own} cannot be read: {error}") from None
    if isinstance(template, list):  # several templates by name
        named = [entry for entry in template if isinstance(entry, dict)]
        template = next((e.get("template") for e in named if e.get("name") == "default"), None)
    return template if isinstance(template, str) else None


class _Generation(Extension):
    """Lets templates mark what the assistant said, for training; here the mark does nothing."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: Parser) -> list[Node]:
        """Return what is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    """Return a Jinja sandbox: a template is downloaded, and must not run code here."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
