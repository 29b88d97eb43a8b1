"""Answers to the exercises of notebook 10."""

import itertools
from itertools import takewhile

import answers_cache_loop
import answers_cache_step
import torch

from qwenkit.model import attention_mask
from qwenkit.model.mask import positions


# right, no matter how it is written
def _kept_in_a_loop(old, new):
    count = 0
    while count < len(old) and count < len(new) - 1 and old[count] == new[count]:
        count += 1
    return count


def _head(old, new):
    pairs = zip(old, new, strict=False)
    return [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _prefix(old, new):
    return len(_head(old, new))


def _capped_prefix(old, new):
    return _prefix(old, new[:-1])


def _offsets_in_loops(real, new):
    where, allowed = [], []
    for row in real.tolist():
        slots = range(len(row) - new, len(row))
        where.append([sum(row[:slot]) for slot in slots])
        allowed.append([[s <= slot and row[s] for s in range(len(row))] for slot in slots])
    return torch.tensor(where), torch.tensor(allowed)


def _offsets_by_padding(real, new):
    slots = torch.arange(real.shape[1])
    queries = slots[-new:]
    padding = (~real).sum(1, keepdim=True)
    causal = slots[None] <= queries[:, None]
    return queries - padding, causal[None] & (slots >= padding)[:, None]


RIGHT = {
    "step": answers_cache_step.RIGHT,
    "offsets": [
        lambda real, new: (positions(new, real.shape[1] - new, real),
            attention_mask(new, real.shape[1] - new, real=real)[:, 0]),
        _offsets_in_loops, _offsets_by_padding,
        lambda real, new: (real.sum(1, keepdim=True) - new + torch.arange(new), _mask(real, new)),
    ],
    "loop": answers_cache_loop.RIGHT,
    "kept": [
        _kept_in_a_loop, _capped_prefix,
        lambda old, new: max(n for n in range(len(new)) if n <= len(old) and old[:n] == new[:n]),
    ],
}  # fmt: skip


# wrong, and named
def _substring(old, new):
    return max(
        n for n in range(len(old) + 1) for i in range(len(old) - n + 1)
        for j in range(len(new) - n + 1) if old[i : i + n] == new[j : j + n]
    )  # fmt: skip


def _head_of_equal(old, new):
    pairs = zip(old, new, strict=True)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], list(pairs))))


def _equal(old, new):
    return [a == b for a, b in zip(old, new, strict=False)].count(True)


def _slots(real, new):
    return torch.arange(real.shape[1])[None, -new:].repeat(len(real), 1)


def _mask(real, new):
    return _offsets_by_padding(real, new)[1]


def _other(where=lambda *given: _offsets_by_padding(*given)[0], mask=_mask):
    """Return the offsets with other positions, or with another mask."""
    return lambda real, new: (where(real, new), mask(real, new))


def _causal(real, new):
    slots = torch.arange(real.shape[1])
    return (slots <= slots[-new:, None]).repeat(len(real), 1, 1)


WRONG = {
    "step": answers_cache_step.WRONG,
    "offsets": [
        ("padding ignored", lambda real, new: (_slots(real, new), _causal(real, new))),
        ("padding counted", _other(_slots)),
        ("positions from 0", _other(lambda real, new: torch.arange(new).repeat(len(real), 1))),
        ("counted from 1", _other(lambda real, new: real.long().cumsum(1)[:, -new:])),
        ("all positions", _other(lambda real, new: torch.cumsum(real, 1) - 1)),
        ("mask without offset", _other(mask=lambda r, new: r[:, None].tile(1, new, 1).tril())),
        ("padding visible", _other(mask=_causal)),
        ("sees the future", _other(mask=lambda real, new: torch.stack([real] * new, dim=1))),
        ("not itself", _other(mask=lambda r, new: _mask(r, new).tril(r.shape[1] - new - 1))),
        ("inverted", _other(mask=lambda real, new: _mask(real, new).logical_not())),
        ("columns compared with positions", _other(mask=lambda real, new: real[:, None]
            & (torch.arange(real.shape[1]) <= _offsets_by_padding(real, new)[0][:, :, None]))),
        ("columns compared with positions", _other(mask=lambda real, new:
            torch.arange(real.shape[1]) <= _offsets_by_padding(real, new)[0][:, :, None])),
        ("only later tokens", _other(mask=lambda real, new:
            real[:, None] & (torch.arange(real.shape[1]) >= _slots(real, new)[..., None]))),
        ("padding instead of tokens",
            _other(mask=lambda real, new: _causal(real, new) & ~real[:, None])),
        ("the first text's padding", lambda real, new:
            _offsets_by_padding(real[:1].expand(len(real), -1), new)),
        ("the first text's padding", _other(mask=lambda real, new: _causal(real, new) & real[0])),
        ("positions of the first columns",
            _other(lambda real, new: torch.cumsum(real, 1)[:, :new] - 1)),
        ("scores instead of True", _other(mask=lambda real, new:
            torch.where(_mask(real, new), 0.0, float("-inf")))),
        ("0 and 1", _other(mask=lambda real, new: _mask(real, new).int().long())),
        ("0 and 1", _other(mask=lambda real, new: 1.0 * _mask(real, new))),
        ("positions as floats",
            _other(lambda real, new: (real.float().cumsum(1) - 1)[:, -new:])),
        ("mask first", lambda real, new: _offsets_by_padding(real, new)[::-1]),
        ("a mask with heads", _other(mask=lambda real, new: _mask(real, new).unsqueeze(1))),
        ("kind", lambda real, new: _mask(real, new)),
        ("shape", _other(mask=lambda real, new: _mask(real, new)[0])),
        ("error", _other(mask=lambda real, new: _causal(real, new) & real[:, :new])),
    ],
    "loop": answers_cache_loop.WRONG,
    "kept": [
        ("nothing left to feed", _prefix),
        ("continues after the difference", lambda old, new: _equal(old, new[:-1])),
        ("continues after the difference", _equal),
        ("at any position", _substring),
        ("at any position", lambda old, new: min(_substring(old, new), len(new) - 1)),
        ("at any position", lambda old, new: len(set(old).intersection(new))),
        ("from the end", lambda old, new: _prefix(list(reversed(old)), list(reversed(new)))),
        ("one too many", lambda old, new: min(len(new), _capped_prefix(old, new) + 1)),
        ("one too few", lambda old, new: max(_prefix(old, new), 1) - 1),
        ("what is dropped", lambda old, new: len(old[_capped_prefix(old, new) :])),
        ("what is fed", lambda old, new: len(new[_capped_prefix(old, new) :])),
        ("all or nothing", lambda old, new: len(old) * (old == new[: len(old)] and old != new)),
        ("the tokens themselves", lambda old, new: _head(old, new[:-1])),
        ("past the end", lambda old, new:
            next(i for i in itertools.count() if old[i] != new[i])),
        ("past the end", lambda old, new:
            next((i for i in range(len(old)) if old[i] != new[i]), len(old))),
        ("past the end", lambda old, new:
            next((i for i in range(len(new)) if old[i] != new[i]), len(new))),
        ("past the end", lambda old, new:
            next((i for i in range(len(new) - 1) if old[i] != new[i]), len(new) - 1)),
        ("no return at the end", lambda old, new:
            next((i for i, pair in enumerate(zip(old, new, strict=False)) if len({*pair}) > 1),
                None)),
        ("lists of one length only", lambda old, new: _head_of_equal(old, new)),
        ("lists of one length only", lambda old, new: min(_head_of_equal(old, new), len(new) - 1)),
        ("the old text shortened", lambda old, new: _prefix(old[:-1], new)),
        ("the old text shortened", lambda old, new: _prefix(old[:-1], new[:-1])),
        ("not compared", lambda old, new: min(len(old), len(new))),
        ("not compared", lambda old, new: min(len(old), len(new) - 1)),
        ("not compared", lambda old, new: len(new) - 1),
        ("not compared", lambda old, new: len(old)),
        ("nothing kept", lambda old, new: 0),
        ("values", lambda old, new: len(new) // 2),
        ("kind", lambda old, new: torch.tensor(_capped_prefix(old, new))),
    ],
}  # fmt: skip
