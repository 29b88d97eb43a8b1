"""Exercise 10.3, the cached loop: run on a small model that counts, right and with mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial, wraps
from typing import Any

import torch
from torch import Tensor

from qwenkit.checks._judge import Mistake
from qwenkit.checks._whole_model import random_weights
from qwenkit.config import QwenConfig
from qwenkit.model import KVCache, QwenForCausalLM

Ids = list[int]
Loop = Callable[..., Any]


class TooMuchWork(RuntimeError):
    """The tokens are right, but the model was called more often, or with more tokens."""


@lru_cache(maxsize=1)
def model_that_counts() -> QwenForCausalLM:
    """Return a small model with random weights; position and padding matter to what it writes."""
    config = QwenConfig(23, 16, 24, 2, 4, 2, rope_theta=100.0)
    model = QwenForCausalLM(config)
    model.load_state_dict(random_weights(config))
    return model.requires_grad_(False)


@contextmanager
def _counted(model: QwenForCausalLM) -> Iterator[list[int]]:
    """Note how many new tokens of each text go through a model in each call."""
    calls: list[int] = []

    def note(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append((given[0] if given else named["input_ids"]).shape[-1])

    hook = model.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def measured(function: Loop) -> Loop:
    """Turn a loop into a function of prompts, steps and stop ids, which also minds the calls."""

    @wraps(function)
    def run(prompts: list[Ids], steps: int, stop_ids: tuple[int, ...]) -> Any:
        model, key = model_that_counts(), tuple(tuple(prompt) for prompt in prompts)
        with torch.no_grad(), _counted(model) as calls:
            found = function(model, prompts, steps, stop_ids)
        if isinstance(found, list | tuple):
            found = [_as_ints(row) for row in found]
        wanted, needed = _wanted(key, steps, stop_ids)
        if found == wanted and calls != needed:
            done, enough = (" ".join(map(str, one)) for one in (calls, needed))
            raise TooMuchWork(
                f"the tokens are right, but the calls of the model read {done} new tokens; "
                f"{enough} would do"
            )
        return found

    return run


@lru_cache(maxsize=32)
def _wanted(prompts: tuple[Any, ...], steps: int, stop_ids: Any) -> tuple[list[Ids], list[int]]:
    """Return the right tokens, and how many new ones each call needs."""
    model = model_that_counts()
    with torch.no_grad(), _counted(model) as needed:
        rows = cached_loop()(model, [list(prompt) for prompt in prompts], steps, stop_ids)
    return rows, needed


def _as_ints(row: Any) -> Any:
    """Return ids that are a tensor, or tensors in a list, as a list of integers."""
    if isinstance(row, list | tuple):
        return [one.item() if isinstance(one, Tensor) and one.numel() == 1 else one for one in row]
    return row.tolist() if isinstance(row, Tensor) and row.dim() == 1 else row


# --- the loop, and what can go wrong in it ---


def _left(prompt: Ids, width: int) -> tuple[Ids, list[int]]:
    padding = [0] * (width - len(prompt))
    return [*padding, *prompt], [*padding, *[1] * len(prompt)]


def _right(prompt: Ids, width: int) -> tuple[Ids, list[int]]:
    padding = [0] * (width - len(prompt))
    return [*prompt, *padding], [*[1] * len(prompt), *padding]


def _by_id(prompt: Ids, width: int) -> tuple[Ids, list[int]]:
    ids, _ = _left(prompt, width)
    return ids, [int(token != 0) for token in ids]


def cached_loop(
    pad: Callable[[Ids, int], tuple[Ids, list[int]]] = _left,
    mask: Callable[[Tensor, Tensor], Tensor | None] = lambda ids, real: real,
    added: Callable[[Tensor], Tensor] = torch.ones_like,
    room: Callable[[int, int], int] = lambda width, steps: width + steps,
    place: int = -1,
    more: int = 0,
    ended: Callable[[list[bool]], bool] = all,
    done: Callable[[Ids, Sequence[int]], bool] = lambda row, stops: row[-1] in stops,
    goes_on: bool = False,
    last_fed: bool = False,
    result: Callable[[list[Ids], list[Ids], Sequence[int]], Any] = lambda prompts, rows, stops: (
        rows
    ),
    feed: Callable[[Tensor, Tensor], Tensor] = lambda old, new: new,
    batch: Callable[[int], int] = lambda size: size,
) -> Loop:
    """Return a cached greedy loop; the arguments are what can go wrong in it."""

    def loop(
        model: QwenForCausalLM, prompts: list[Ids], steps: int, stop_ids: Sequence[int]
    ) -> Any:
        width = max(len(prompt) for prompt in prompts)
        ids, real = map(torch.tensor, zip(*(pad(one, width) for one in prompts), strict=True))
        cache = KVCache(model.config, batch(len(prompts)), room(width, steps))
        rows: list[Ids] = [[] for _ in prompts]
        new = ids
        for _ in range(steps + more):
            logits = model(new, cache=cache, attention_mask=mask(ids, real))
            best = logits[:, place].argmax(dim=-1, keepdim=True)  # (B, 1)
            for row, token in zip(rows, best[:, 0].tolist(), strict=True):
                if goes_on or not row or not done(row, stop_ids):
                    row.append(token)
            if ended([done(row, stop_ids) for row in rows]):
                break
            new = feed(new, best)
            ids, real = torch.cat([ids, best], dim=1), torch.cat([real, added(best)], dim=1)
        if last_fed:
            model(best, cache=KVCache(model.config, len(prompts), 1))
        return result(prompts, rows, stop_ids)

    return loop


def _without_cache(model: QwenForCausalLM, prompts: list[Ids], steps: int, stops: Any) -> Any:
    """Run the whole text through the model for each token."""
    return _recomputed(model, prompts, steps, stops, lambda cache: None)


def _recomputed(
    model: QwenForCausalLM,
    prompts: list[Ids],
    steps: int,
    stops: Sequence[int],
    used: Callable[[KVCache], KVCache | None],
) -> Any:
    width = max(len(prompt) for prompt in prompts)
    ids, real = map(torch.tensor, zip(*(_left(one, width) for one in prompts), strict=True))
    rows: list[Ids] = [[] for _ in prompts]
    for _ in range(steps):
        cache = used(KVCache(model.config, len(prompts), width + steps))
        best = model(ids, cache=cache, attention_mask=real)[:, -1].argmax(dim=-1, keepdim=True)
        for row, token in zip(rows, best[:, 0].tolist(), strict=True):
            if not row or row[-1] not in stops:
                row.append(token)
        if all(row[-1] in stops for row in rows):
            break
        ids, real = torch.cat([ids, best], dim=1), torch.cat([real, torch.ones_like(best)], dim=1)
    return rows


def _one_by_one(model: QwenForCausalLM, prompts: list[Ids], steps: int, stops: Any) -> Any:
    return [cached_loop()(model, [prompt], steps, stops)[0] for prompt in prompts]


def _no_prefill(model: QwenForCausalLM, prompts: list[Ids], steps: int, stops: Any) -> Any:
    """Feed the prompts token by token."""
    width = max(len(prompt) for prompt in prompts)
    ids, real = map(torch.tensor, zip(*(_left(one, width) for one in prompts), strict=True))
    cache = KVCache(model.config, len(prompts), width + steps)
    for place in range(width):
        real_so_far = real[:, : place + 1]
        logits = model(ids[:, place : place + 1], cache=cache, attention_mask=real_so_far)
    rows: list[Ids] = [[] for _ in prompts]
    for step in range(steps):
        best = logits[:, -1].argmax(dim=-1, keepdim=True)
        for row, token in zip(rows, best[:, 0].tolist(), strict=True):
            if not row or row[-1] not in stops:
                row.append(token)
        if all(row[-1] in stops for row in rows) or step == steps - 1:
            break
        real = torch.cat([real, torch.ones_like(best)], dim=1)
        logits = model(best, cache=cache, attention_mask=real)
    return rows


def _new_cache_each_time(
    model: QwenForCausalLM, prompts: list[Ids], steps: int, stops: Any, masked: bool = True
) -> Any:
    """Forget everything but the newest token."""
    width = max(len(prompt) for prompt in prompts)
    new, real = map(torch.tensor, zip(*(_left(one, width) for one in prompts), strict=True))
    rows: list[Ids] = [[] for _ in prompts]
    for _ in range(steps):
        mask = real if masked else None
        new = model(new, attention_mask=mask)[:, -1].argmax(dim=-1, keepdim=True)
        real = torch.ones_like(new)
        for row, token in zip(rows, new[:, 0].tolist(), strict=True):
            if not row or row[-1] not in stops:
                row.append(token)
        if all(row[-1] in stops for row in rows):
            break
    return rows


def _cut(model: QwenForCausalLM, prompts: list[Ids], steps: int, stops: Any) -> Any:
    shortest = min(len(prompt) for prompt in prompts)
    return cached_loop()(model, [prompt[:shortest] for prompt in prompts], steps, stops)


def _filled(prompts: list[Ids], rows: list[Ids], stops: Sequence[int]) -> list[Ids]:
    """Fill finished rows up with zeros."""
    longest = max(len(row) for row in rows)
    return [row + [0] * (longest - len(row)) for row in rows]


def _until_stop(prompts: list[Ids], rows: list[Ids], stops: Sequence[int]) -> list[Ids]:
    return [[token for token in row if token not in stops] for row in rows]


def _whole_text_fed(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=1)


def _once_stopped(row: Ids, stops: Sequence[int]) -> bool:
    return any(token in stops for token in row)


def _never(found: list[bool]) -> bool:
    return False


LOOP_MISTAKES: tuple[tuple[str, str, Loop], ...] = (
    ("no cache", "the tokens are right, and each call takes the whole text again. Which tokens are "
        "new to the cache after the first call?",
        _without_cache),
    ("one prompt at a time", "the tokens are right, but each prompt has calls of its own. All of "
        "them fit into one batch.",
        _one_by_one),
    ("no prefill", "the tokens are right, but the prompt goes in token by token. The first call "
        "can take all of it.",
        _no_prefill),
    ("no prefill", "the tokens are right, but each prompt goes in alone, token by token. The first "
        "call can take all of them.",
        lambda model, prompts, steps, stops:
            [_no_prefill(model, [prompt], steps, stops)[0] for prompt in prompts]),
    ("last token fed", "the tokens are right, but after the last token there is one more call, and "
        "nobody uses its logits.",
        cached_loop(last_fed=True)),
    ("finished, and not ended", "the tokens are right, but the calls go on when every text has "
        "stopped.",
        cached_loop(ended=_never)),
    ("right padding", "your padding is on the right, so a shorter prompt's last logits are those "
        "of padding. On which side do all prompts end together?",
        cached_loop(_right)),
    ("no attention mask", "right for prompts of one length. With padding, the tokens attend to it: "
        "tell the model which tokens are real.",
        cached_loop(mask=lambda ids, real: None)),
    *(("padding known by its id", "where a text contains token 0, your mask takes it for padding. "
        "Padding is known by its position, not by its id.", wrong)
        for wrong in (cached_loop(_by_id), cached_loop(mask=lambda ids, real: (ids != 0).long()))),
    ("new tokens masked", "you add zeros to the mask for the new tokens. They are real.",
        cached_loop(added=torch.zeros_like)),
    ("mask not extended", "your mask stays as wide as the prompts. It needs a column for every "
        "token in the cache, and for the new ones.",
        cached_loop(added=lambda best: best[:, :0])),
    ("stop token dropped", "your rows end before the stop token. It belongs to the result, as the "
        "last one.",
        cached_loop(result=_until_stop)),
    ("no stop", "your rows go on after a stop token. What must a finished row not get any more?",
        cached_loop(ended=_never, goes_on=True)),
    *(("finished rows go on", "a finished row gets more tokens as long as another one is still "
        "running.", wrong)
        for wrong in (cached_loop(goes_on=True), cached_loop(goes_on=True, done=_once_stopped))),
    ("first stop ends all", "the first stop token ends all texts. The others should go on.",
        cached_loop(ended=any)),
    ("the first text ends all", "all texts end when the first one does.",
        cached_loop(ended=lambda found: found[0])),
    ("a stop token in the prompt", "a stop token inside a prompt ends the text. Only a new one "
        "may.",
        lambda model, prompts, steps, stops: [
            row[:1] if set(prompt) & {*stops} else row for prompt, row in
            zip(prompts, cached_loop()(model, prompts, steps, stops), strict=True)]),
    ("one token too many", "there is one token too many. The first call already gives one.",
        cached_loop(more=1, room=lambda width, steps: width + steps + 1)),
    ("one token too few", "there is one token too few. Every call gives one, the first too.",
        cached_loop(more=-1)),
    ("prompt in the result", "your rows begin with their prompts. Return the new tokens alone.",
        cached_loop(result=lambda prompts, rows, stops:
            [prompt + row for prompt, row in zip(prompts, rows, strict=True)])),
    ("first position", "you choose from the logits of the first position. Which position predicts "
        "what comes next?",
        cached_loop(place=0)),
    *(("only the newest token", "after the first call the model sees the newest token and nothing "
        "else. One cache must serve all calls, and be passed to each.", wrong)
        for wrong in (_new_cache_each_time, partial(_new_cache_each_time, masked=False))),
    ("everything fed again", "each call feeds the whole text, and the cache has it already. Then "
        "it holds every token several times.",
        cached_loop(mask=lambda ids, real: None, feed=_whole_text_fed,
            room=lambda width, steps: (width + steps) * (steps + 1))),
    ("prompts cut", "you cut all prompts to the shortest one. Fill up the short ones instead.",
        _cut),
    ("rows filled up", "you fill finished rows up with zeros. Rows may differ in length.",
        cached_loop(result=_filled)),
    ("the first text for all", "every row is the first text's.",
        cached_loop(result=lambda prompts, rows, stops: [rows[0] for _ in rows])),
    ("only the first text", "you return the row of the first text alone. Return a list with a row "
        "for each prompt.",
        cached_loop(result=lambda prompts, rows, stops: rows[0])),
    ("a batch of one", "your cache is made for a single text. It needs a row for each prompt.",
        cached_loop(batch=lambda size: 1)),
    ("no room for new tokens", "your cache has room for the prompts alone. How many tokens will be "
        "in it at the end?",
        cached_loop(room=lambda width, steps: width)),
    ("no room for the prompts", "your cache has room for the new tokens alone. How many tokens "
        "will be in it at the end?",
        cached_loop(room=lambda width, steps: steps)),
    ("joined", "you return all tokens in one list. Return a row for each prompt.",
        cached_loop(result=lambda prompts, rows, stops: [one for row in rows for one in row])),
)  # fmt: skip


@lru_cache(maxsize=1)
def loop_mistakes() -> tuple[Mistake, ...]:
    """Return the mistakes as functions of prompts, steps and stop ids."""
    return tuple(Mistake(name, hint, _once(measured(wrong))) for name, hint, wrong in LOOP_MISTAKES)


def _once(function: Loop) -> Loop:
    """Return a function that computes each answer, or raises each error, after the first time."""
    known: dict[str, Any] = {}

    def remembered(*given: Any) -> Any:
        key = repr(given)
        if key not in known:
            try:
                known[key] = function(*given)
            except Exception as error:
                known[key] = error
        if isinstance(known[key], Exception):
            raise known[key]
        return known[key]

    return remembered
