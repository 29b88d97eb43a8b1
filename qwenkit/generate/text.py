"""From tokens to text, as it comes: whole characters, and an end at the first stop string."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from qwenkit.errors import InputError
from qwenkit.fast import ClosedLoop
from qwenkit.generate.config import GenerationConfig
from qwenkit.generate.steps import Step, begun
from qwenkit.model import QwenForCausalLM
from qwenkit.progress import counted
from qwenkit.tokenizer import Tokenizer

BROKEN = "\ufffd"  # what bytes become that are not a whole character, or not yet


class TextWriter:
    """Turns one text's tokens into characters, and looks for stop strings.

    A token may end within a character, and a stop string may begin in one token and end in the
    middle of another. So `add` keeps back what may still change, or be the start of a stop string.

    Attributes:
        stopped: whether a stop string was complete; the text ends before it.

    Args:
        tokenizer: of the model.
        stop_strings: the text ends before the one that is complete first; of two that end with the
            same character, before the longer.

    Raises:
        InputError: stop strings that are not texts, are empty, or hold special tokens.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stops = _checked(stop_strings, tokenizer)
        self._ids: list[int] = []  # tokens since the last that ended with a whole character
        self._read = 0  # how many of their characters were passed on
        self._held = ""  # characters that may be the start of a stop string

    def add(self, token_id: int) -> str:
        """Take one more token; return the text that is now certain, perhaps none."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids, skip_special=True)
        whole = text.rstrip(BROKEN)
        fresh, self._read = whole[self._read :], len(whole)
        if whole == text:
            self._ids, self._read = [], 0
        return self._pass_on(fresh)

    def end(self) -> str:
        """Return what was kept back; no more tokens come."""
        if self.stopped:
            return ""
        rest = self._tokenizer.decode(self._ids, skip_special=True)[self._read :]
        self._ids, self._read = [], 0
        text = self._pass_on(rest)  # bytes of a character that was never finished
        held, self._held = self._held, ""
        return text + held

    def _pass_on(self, fresh: str) -> str:
        text = self._held + fresh
        place = _first(self._stops, text)
        if place is None:
            place = len(text) - max((_begun(stop, text) for stop in self._stops), default=0)
        else:
            self.stopped = True
        self._held = "" if self.stopped else text[place:]
        return text[:place]


def _checked(stop_strings: Sequence[str], tokenizer: Tokenizer) -> tuple[str, ...]:
    fits = isinstance(stop_strings, Collection) and not isinstance(stop_strings, str | bytes)
    if not fits or not all(isinstance(stop, str) and stop for stop in stop_strings):
        raise InputError(
            f"stop_strings is {stop_strings!r}; it must be a list of texts, none of them empty, "
            'such as ["\\n\\n"]'
        )
    for stop in stop_strings:
        token = next((token for token in tokenizer.hidden if token in stop), None)
        if token is not None:
            what = "a special token" if token == stop else f"with the special token {token}"
            raise InputError(
                f"stop_strings holds {stop!r}, {what}, which is not text; put its id, "
                f"{tokenizer.special[token]}, into stop_ids"
            )
    return tuple(stop_strings)


def _first(stops: Sequence[str], text: str) -> int | None:
    """Return where the stop string begins that is complete first, or None."""
    found = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    return min(found)[1] if found else None


def _begun(stop: str, text: str) -> int:
    """Return how many characters at the end of a text may be the start of a stop string."""
    return max(size for size in range(len(stop)) if text.endswith(stop[:size]))


def written(steps: Iterator[Step], writer: TextWriter) -> Iterator[str]:
    """Yield the text of steps piece by piece; end once a stop string is complete."""
    for step in steps:
        piece = "" if step.is_stop else writer.add(step.token_id)
        if piece:
            yield piece
        if writer.stopped:
            return
    rest = writer.end()
    if rest:
        yield rest


def stream(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    stop_strings: Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Return an iterator over the continuation of a prompt, in pieces of whole characters.

    Arguments are checked at once, tokens computed when asked for.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        prompt: a text, or what `Tokenizer.chat` and `Tokenizer.fim` return.
        stop_strings: the text ends before the first of them, wherever the tokens begin and end, and
            no further token is computed. Text that may still turn out to be the start of
            one is kept back until it is certain.
        stop_ids: tokens that stop the text; None: the model's own, and the tokenizer's eos.
        options: as for `generate`.

    Raises:
        InputError: an argument out of its range.
    """
    return _pieces(None, model, tokenizer, prompt, stop_strings, stop_ids, **options)


def _pieces(
    loop: ClosedLoop | None,
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    stop_strings: Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Return what `stream` does; `loop`: as for `continued`."""
    writer = TextWriter(tokenizer, stop_strings)
    stops = default_stops(model, tokenizer) if stop_ids is None else stop_ids
    return written(begun(loop, model, tokenizer(prompt), stop_ids=stops, **options), writer)


def default_stops(model: QwenForCausalLM, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that stop generation: the model's own, and the tokenizer's eos.

    A base model that was tuned for chat may name `<|im_end|>` only in its tokenizer's files.
    """
    eos = tokenizer.eos_id
    return frozenset(model.stop_ids) | (frozenset() if eos is None else {eos})


def chat_stops(model: QwenForCausalLM, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that stop a reply in a chat: `default_stops`, and `<|im_end|>`.

    A base model's own may lack what ends a turn.
    """
    end = tokenizer.special.get("<|im_end|>")
    return default_stops(model, tokenizer) | (frozenset() if end is None else {end})


def complete(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int = 64,
    *,
    stream: bool = False,
    **options: Any,
) -> str:
    """Return the model's continuation of a prompt, without the prompt.

    Args:
        model: a language model.
        tokenizer: its tokenizer.
        prompt: as in `stream`.
        max_new_tokens: at most this many.
        stream: also print the text as it comes.
        options: as in `stream`.

    Raises:
        InputError: an argument out of its range.
    """
    loop = None if stream else ClosedLoop()  # to print may run any code
    pieces = _pieces(loop, model, tokenizer, prompt, max_new_tokens=max_new_tokens, **options)
    return whole(pieces, stream, max_new_tokens)


def whole(pieces: Iterable[str], stream: bool, most: int | None) -> str:
    """Return the whole text; print its pieces as they come, or show how many there are."""
    return "".join(printed(pieces) if stream else counted("Generating", pieces, most, "piece"))


def printed(pieces: Iterable[str]) -> Iterator[str]:
    """Print the pieces of a text and yield each; print a newline at the end."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
            yield piece
    finally:  # after Ctrl-C, too
        print()


def fill(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    before: str,
    after: str,
    max_new_tokens: int = 64,
    *,
    stop_ids: Collection[int] | None = None,
    **options: Any,
) -> str:
    """Return what the model puts between two texts: fill in the middle, as editors ask for it.

    Args:
        model: one that was trained to fill in, as Qwen2.5-Coder was.
        tokenizer: its tokenizer.
        before: the text up to the gap.
        after: the text from the gap on.
        max_new_tokens: at most this many.
        stop_ids: tokens that stop generation, with `Tokenizer.fim_stop_ids`; None: as in `stream`.
        options: as for `complete`.

    Raises:
        InputError: an argument out of its range.
        TokenizerError: the vocabulary has no FIM tokens.
    """
    prompt = tokenizer.fim(before, after)
    own = default_stops(model, tokenizer) if stop_ids is None else stop_ids
    stops = GenerationConfig(stop_ids=own).stops(model).union(tokenizer.fim_stop_ids)
    return complete(model, tokenizer, prompt, max_new_tokens, stop_ids=stops, **options)
