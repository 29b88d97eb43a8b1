"""Text to token ids and back: a thin layer over the `tokenizers` library.

Qwen's tokenizer is a byte-level BPE: every text becomes tokens, and no token is "unknown". Special
tokens such as `<|im_start|>` are single ids that ordinary text never gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import tokenizers
import torch
from jaxtyping import Int
from torch import Tensor

from qwenkit.errors import TokenizerError, shown
from qwenkit.files import saving
from qwenkit.progress import stage
from qwenkit.tokenizer._chat import ChatText, chat_text
from qwenkit.tokenizer._files import PIPELINE, as_folder
from qwenkit.tokenizer._guard import is_broken, refusing
from qwenkit.tokenizer._pipeline import byte_alphabet
from qwenkit.tokenizer._reading import build, read_source
from qwenkit.tokenizer._saving import changed_files, write_files
from qwenkit.tokenizer._special import read_special
from qwenkit.tokenizer._templates import DEFAULT, read_templates

_VISIBLE = {" ": "·", "\n": "↵", "\t": "→", "\r": "␍"}
_BYTE_OF = byte_alphabet()
LONG = 1_000_000  # characters; shorter texts take less than a second


class Tokenizer:
    """The tokenizer of a checkpoint folder, as transformers reads it, or of a GGUF file.

    Attributes:
        special: special token -> id, such as `<|im_end|>` -> 151645. All added tokens are special
            here: `<tool_call>` too is one id that ordinary text does not give.
        hidden: those of them that `decode(..., skip_special=True)` leaves out.
        named: name in the settings -> token, such as eos_token -> `<|im_end|>`; for templates.
        num_tokens: one more than the largest id; the rest of a model's vocabulary is padding.
        rows: how many ids the model has embeddings for, if fewer than `num_tokens`; else None.
        chat_templates: the folder's chat templates (Jinja) by name, usually one, "default".

    Args:
        folder: holds tokenizer.json, or vocab.json and merges.txt; and usually
            tokenizer_config.json. Truncation and padding in tokenizer.json are ignored. Or a GGUF
            file, or a folder that holds one and none of these files.

    Raises:
        TokenizerError: no such files, or damaged ones.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = as_folder(folder)
        self._files = read_source(folder)
        settings = read_special(self._files)
        self.backend = build(folder, self._files, settings)
        self.named = settings.texts(self.backend)
        added = sorted(self.backend.get_added_tokens_decoder().items())
        self.special = {token.content: number for number, token in added}
        self.hidden = frozenset(token.content for _, token in added if token.special)
        self.num_tokens = _count(self.backend)
        if not self.num_tokens:
            raise TokenizerError(f"{folder / PIPELINE} holds no tokens; fetch it again")
        self.rows: int | None = None  # load_pretrained sets it
        self.chat_templates = read_templates(self._files)

    @property
    def chat_template(self) -> str | None:
        """The chat template called default, or None; it can be set."""
        return self.chat_templates.get(DEFAULT)

    @chat_template.setter
    def chat_template(self, template: str | None) -> None:
        if template is not None and not isinstance(template, str):
            raise TokenizerError(f"chat_template is {template!r:.80}; it must be a str or None")
        others = {n: text for n, text in self.chat_templates.items() if n != DEFAULT}
        self.chat_templates = others if template is None else {DEFAULT: template, **others}

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if the settings name one."""
        return self._named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text or a turn of a chat, if the settings name one."""
        return self._named_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        """The token of padding, if the settings name one."""
        return self._named_id("pad_token")

    def encode(
        self, text: str, special: bool = True, *, add_special_tokens: bool | None = None
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any string.
            special: whether `<|im_end|>` and the like become special tokens; False: they are
                ordinary characters, as they should be in text from untrusted sources.
            add_special_tokens: whether to put a BOS first if the tokenizer is set to do so, as
                DeepSeek's are; None: yes, except for what `chat` returns, whose template writes its
                own, and with special=False.

        Raises:
            TokenizerError: not a str, not valid Unicode, or a token that the model has no row for.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"text is a {type(text).__name__}; it must be a str")
        if not isinstance(special, bool):
            raise TokenizerError(f"special is a {type(special).__name__}; it must be True or False")
        if add_special_tokens is None:
            add_special_tokens = special and not isinstance(text, ChatText)
        return self._encoded([text], special, add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """Return the ids of many texts at once, without a BOS; arguments as in `encode`."""
        is_list = isinstance(texts, Sequence) and not isinstance(texts, str)
        if not is_list or not all(isinstance(text, str) for text in texts):
            raise TokenizerError(f"texts is {texts!r:.80}; it must be a list of str")
        return self._encoded(list(texts), special, False)

    def _encoded(self, texts: list[str], special: bool, add: bool) -> list[list[int]]:
        backend = self.backend if special else _without_added_tokens(self.backend)
        if any(is_broken(text) for text in texts):
            raise TokenizerError("text is not valid Unicode: it has an unpaired surrogate")
        with refusing("the tokenizer cannot encode this text"):
            with stage("Tokenizing the text") if sum(map(len, texts)) > LONG else nullcontext():
                found = backend.encode_batch_fast(texts, add_special_tokens=add)
            return [self._with_rows(list(one.ids)) for one in found]

    def _with_rows(self, ids: list[int]) -> list[int]:
        """Return the ids; refuse one that was added only to the tokenizer."""
        largest = max(ids, default=0) if self.rows is not None else 0
        if self.rows is not None and largest >= self.rows:
            raise TokenizerError(
                f"the text holds {shown(self.backend.id_to_token(largest))} (id {largest}), which "
                f"was added only to the tokenizer: the model's ids end at {self.rows - 1}"
            )
        return ids

    def __call__(
        self, text: str, special: bool = True, *, add_special_tokens: bool | None = None
    ) -> Int[Tensor, "1 T"]:
        """Return the ids of a text as the (1, T) tensor that a model takes; as in `encode`."""
        ids = self.encode(text, special, add_special_tokens=add_special_tokens)
        return torch.tensor([ids], dtype=torch.int64)

    def decode(self, ids: Iterable[int] | Tensor, skip_special: bool = False) -> str:
        """Return the text of ids; bytes of an incomplete character become U+FFFD.

        Raises:
            TokenizerError: an id that is not a token.
        """
        numbers = self._ids(ids)
        with refusing("the tokenizer cannot decode these ids"):
            return str(self.backend.decode(numbers, skip_special_tokens=skip_special))

    def token_strings(self, ids: Iterable[int] | Tensor) -> list[str]:
        r"""Return a short string per token, to show: · space, ↵ newline, → tab, \xNN a byte."""
        return [self._visible(number) for number in self._ids(ids)]

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """Return a conversation as the single text that the model reads.

        Args:
            messages: each {"role": "system" | "user" | "assistant", "content": ...}.
            add_generation_prompt: whether to open the assistant's turn at the end.
            tools: JSON schemas of functions the model may call. A template named tool_use is then
                used, if there is one.
            documents: texts to answer from, for templates that use them.
            chat_template: the name of one of `chat_templates`, or a template.
            variables: others for the template, such as enable_thinking=False.

        Raises:
            TokenizerError: no chat template, an invalid message, or a template that fails or takes
                too long.
        """
        known = {"tools": tools, "documents": documents}
        given = known | {"add_generation_prompt": add_generation_prompt}
        return chat_text(self.chat_templates, self.named, messages, chat_template, given, variables)

    def special_id(self, token: str) -> int:
        """Return the id of a special token.

        Raises:
            TokenizerError: this vocabulary does not have it.
        """
        if not isinstance(token, str) or token not in self.special:
            raise TokenizerError(f"this vocabulary has no special token {token!s:.80}")
        return self.special[token]

    @property
    def document_end(self) -> int:
        """The token between documents in training: `<|endoftext|>`, or else the settings' eos.

        Raises:
            TokenizerError: this vocabulary has neither.
        """
        if "<|endoftext|>" not in self.special and self.eos_id is not None:
            return self.eos_id
        return self.special_id("<|endoftext|>")

    def fim(self, prefix: str, suffix: str) -> str:
        """Return the prompt that asks for the text between prefix and suffix (fill-in-the-middle).

        Source: Hui et al. 2024, "Qwen2.5-Coder Technical Report", section 3.1.

        Raises:
            TokenizerError: the vocabulary has no FIM tokens, or prefix or suffix is not a str.
        """
        if not isinstance(prefix, str) or not isinstance(suffix, str):
            raise TokenizerError("prefix and suffix are the texts around the gap; each is a str")
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
        """Write the tokenizer's files into a folder, in one step.

        What was not changed since it was read is written as it was, byte for byte, including
        settings that qwenkit does not use. Another tokenizer's files there are removed.

        Raises:
            CheckpointError: writing fails; what was there is then unchanged.
        """
        with saving(as_folder(folder)) as save:
            save.obsolete |= self._write(save.path)

    def _write(self, staging: Path) -> set[str]:
        """Write the files into the staging folder of a save; return the names it makes obsolete."""
        read = read_special(self._files)
        unchanged = build(staging, self._files, read).to_str() == self.backend.to_str()
        pipeline = None if unchanged else self.backend
        return write_files(changed_files(self._files, pipeline, self.chat_templates), staging)

    def _named_id(self, name: str) -> int | None:
        token = self.named.get(name)
        return None if token is None else self.backend.token_to_id(token)

    def _ids(self, ids: Iterable[int] | Tensor) -> list[int]:
        if isinstance(ids, Tensor) and ids.is_meta:
            raise TokenizerError("ids is a tensor on the meta device, which holds no values")
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


def _without_added_tokens(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return the same pipeline, for which `<|im_end|>` and the like are ordinary text.

    The library's own switch does not cover tokens that are not special, such as `<tool_call>`.
    """
    plain = tokenizers.Tokenizer(backend.model)  # shares the vocabulary: nothing is copied
    if backend.normalizer is not None:
        plain.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        plain.pre_tokenizer = backend.pre_tokenizer
    return plain
