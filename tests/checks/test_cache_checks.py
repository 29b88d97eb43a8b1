"""The checks of notebook 10: right answers in several styles, and each wrong one by its name."""

from itertools import takewhile

import pytest
import torch
import torch.nn.functional as F

from qwenkit.checks import cache
from qwenkit.model import KVCache, attention_mask
from qwenkit.model.mask import positions

CHECKS = {
    "step": cache.step,
    "room": cache.room,
    "kept": cache.kept,
    "offsets": cache.offsets,
}


def judged(check, function):
    found = CHECKS[check](function)
    starts = {"right": "Right: ", "not yet": "Not yet: ", "empty": "Still empty"}
    assert str(found).startswith(starts[found.outcome])
    return found.outcome, found.mistake


# --- right, however it is written ---


def _grouped(q, x):
    return q.unflatten(1, (x.shape[1], -1)).squeeze(-2)  # (B, KV, H/KV, D)


def _read(q, keys, values):
    """One new token's z, without repeating a head."""
    shares = (_grouped(q, keys) @ keys.mT / q.shape[-1] ** 0.5).float().softmax(-1).to(q.dtype)
    return (shares @ values).flatten(1, 2)[:, :, None]


def _step_grouped(q, k, v, keys, values):
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), -2)
    return _read(q, keys, values), keys, values


def _step_fused(q, k, v, keys, values):
    keys, values = torch.cat((keys, k), 2), torch.cat((values, v), 2)
    return [F.scaled_dot_product_attention(q, keys, values, enable_gqa=True), keys, values]


def _step_in_loops(q, k, v, keys, values):
    grown = []
    for old, new in ((keys, k), (values, v)):
        buffer = old.new_empty(*old.shape[:2], old.shape[2] + 1, old.shape[3])
        buffer[:, :, :-1], buffer[:, :, -1:] = old, new
        grown.append(buffer)
    keys, values = grown
    z, run = torch.empty_like(q), q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            scores = keys[b, h // run].float() @ q[b, h, 0].float() / q.shape[-1] ** 0.5
            z[b, h, 0] = (scores.softmax(0) @ values[b, h // run].float()).to(q.dtype)
    return z, keys, values


def _room_by_counting(c, free, batch, size):
    tokens, used = 0, 0
    for _ in range(100_000):
        used += batch * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * size * 2
        if used > free:
            break
        tokens += 1
    return tokens


def _room_by_the_config(c, free, batch, size):
    return free // batch // c.kv_bytes_per_token({2: "bfloat16", 4: "float32"}[size])


def _kept_in_a_loop(old, new):
    count = 0
    while count < len(old) and count < len(new) - 1 and old[count] == new[count]:
        count += 1
    return count


def _head(old, new):
    pairs = zip(old, new, strict=False)
    return [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _kept_by_trying(old, new):
    return max(n for n in range(len(new)) if n <= len(old) and old[:n] == new[:n])


def _offsets_of_the_package(real, new):
    past = real.shape[1] - new
    return positions(new, past, real), attention_mask(new, past, real=real)[:, 0]


def _offsets_in_loops(real, new):
    where, allowed = [], []
    for row in real.tolist():
        slots = range(len(row) - new, len(row))
        where.append([sum(row[:slot]) for slot in slots])
        allowed.append([[s <= slot and row[s] for s in range(len(row))] for slot in slots])
    return torch.tensor(where), torch.tensor(allowed)


def _offsets_by_blanks(real, new):
    slots = torch.arange(real.shape[1])
    asks = slots[-new:]
    blanks = (~real).sum(1, keepdim=True)
    causal = slots[None] <= asks[:, None]
    return asks - blanks, causal[None] & (slots >= blanks)[:, None]


RIGHT = {
    "step": [_step_grouped, _step_fused, _step_in_loops],
    "room": [_room_by_counting, _room_by_the_config,
             lambda c, free, n, size: free // (
                 n * c.num_hidden_layers * 2 * c.num_key_value_heads * c.head_dim * size)],
    "kept": [_kept_in_a_loop,
             lambda old, new: len(_head(old, new[:-1])),
             _kept_by_trying],
    "offsets": [_offsets_of_the_package, _offsets_in_loops, _offsets_by_blanks],
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "function"), [(check, each) for check, all_of in RIGHT.items() for each in all_of]
)
def test_right_however_it_is_written(check, function):
    assert judged(check, function) == ("right", None)


@pytest.mark.parametrize("check", CHECKS)
def test_an_empty_stub_is_told_so(check):
    assert judged(check, lambda *arguments: None) == ("empty", None)


def test_the_course_knows_the_exercises():
    assert list(cache.EXERCISES) == ["10.1", "10.2", "10.3", "10.4"]
    assert [CHECKS[name](lambda *given: None).exercise for name in CHECKS] == list(cache.EXERCISES)


# --- wrong, and named ---


def _changed_step(read=lambda q, k, v: _read(q, k, v), keep=lambda old, new, q: _both(old, new)):
    """A step that reads or keeps otherwise."""

    def step(q, k, v, keys, values):
        z = read(q, _both(keys, k), _both(values, v))
        return z, keep(keys, k, q), keep(values, v, q)

    return step


def _both(old, new):
    return torch.cat([old, new], dim=2)


def _appended_after_reading(q, k, v, keys, values):
    z = _read(q, keys, values) if keys.shape[2] else torch.zeros_like(q)
    return z, _both(keys, k), _both(values, v)


def _in_place_of_the_first(q, k, v, keys, values):
    old_keys, old_values = keys[:, :, 1:], values[:, :, 1:]
    return _step_grouped(q, k, v, old_keys, old_values)


def _in_place_of_the_last(q, k, v, keys, values):
    kept = max(keys.shape[2] - 1, 0)
    return _step_grouped(q, k, v, keys[:, :, :kept], values[:, :, :kept])


def _in_turn(q, k, v):
    groups = q.shape[1] // k.shape[1]
    k, v = torch.cat([k] * groups, dim=1), torch.cat([v] * groups, dim=1)
    return _read(q, k, v)


def _room_of(numbers, down=lambda free, each: free // each):
    """Room for tokens of which each layer keeps `numbers(config)` numbers."""
    return lambda c, free, batch, size: down(
        free, batch * c.num_hidden_layers * numbers(c) * size
    )  # fmt: skip


def _kv(c):
    return 2 * c.num_key_value_heads * c.head_dim


def _prefix(old, new):
    return len(_head(old, new))


def _capped_prefix(old, new):
    return len(_head(old, new[:-1]))


def _substring(old, new):
    return max(
        n for n in range(len(old) + 1) for i in range(len(old) - n + 1)
        for j in range(len(new) - n + 1) if old[i : i + n] == new[j : j + n]
    )  # fmt: skip


def _slots(real, new):
    return torch.arange(real.shape[1])[None, -new:].repeat(len(real), 1)


def _where(real, new):
    return _offsets_by_blanks(real, new)[0]


def _may(real, new):
    return _offsets_by_blanks(real, new)[1]


def _triangle(real, new):
    return torch.arange(real.shape[1]) <= torch.arange(new)[:, None]


def _causal(real, new):
    slots = torch.arange(real.shape[1])
    return (slots <= slots[-new:, None]).repeat(len(real), 1, 1)


WRONG = {
    "step": [
        ("does not read itself", _appended_after_reading),
        ("does not read itself", _changed_step(
            read=lambda q, k, v: F.scaled_dot_product_attention(
                q, k[:, :, :-1], v[:, :, :-1], enable_gqa=True))),
        ("old tokens forgotten", _changed_step(
            read=lambda q, k, v: _read(q, k[:, :, -1:], v[:, :, -1:]))),
        ("first key only", _changed_step(read=lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True))),
        ("not kept", _changed_step(keep=lambda old, new, q: old)),
        ("only the new is kept", _changed_step(keep=lambda old, new, q: new)),
        ("in front", _changed_step(keep=lambda old, new, q: _both(new, old))),
        ("in front", lambda q, k, v, keys, values: _step_fused(q, keys, values, k, v)),
        ("oldest dropped", _in_place_of_the_first),
        ("newest overwritten", _in_place_of_the_last),
        ("repeated in the cache", _changed_step(
            keep=lambda old, new, q: _both(old, new).repeat_interleave(
                q.shape[1] // old.shape[1], dim=1))),
        ("kv heads cycled", _changed_step(read=_in_turn)),
        ("keys and values swapped", lambda *given: [_step_fused(*given)[i] for i in (0, 2, 1)]),
        ("keys are passed on", _changed_step(read=lambda q, k, v: _read(q, k, k))),
        ("no scale", _changed_step(read=lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, scale=1.0, enable_gqa=True))),
        ("error", lambda q, k, v, keys, values: _step_grouped(
            q, k, v, torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1))),
        ("kind", lambda *given: _step_fused(*given)[0]),
    ],
    "room": [
        ("query heads", _room_of(lambda c: 2 * c.num_attention_heads * c.head_dim)),
        ("hidden size", _room_of(lambda c: 2 * c.hidden_size)),
        ("C / H", _room_of(
            lambda c: 2 * c.num_key_value_heads * c.hidden_size // c.num_attention_heads)),
        ("keys or values", _room_of(lambda c: c.num_key_value_heads * c.head_dim)),
        ("queries too", _room_of(lambda c: _kv(c) + c.num_attention_heads * c.head_dim)),
        ("one layer", lambda c, free, batch, size: free // (batch * _kv(c) * size)),
        ("numbers, not bytes",
         lambda c, free, batch, size: free // (batch * _kv(c) * c.num_hidden_layers)),
        ("one text", lambda c, free, batch, size: _room_by_the_config(c, free, 1, size)),
        ("all texts together", lambda c, free, n, size: n * _room_by_the_config(c, free, n, size)),
        ("a part of a token", _room_of(_kv, lambda free, each: free / each)),
        ("rounded up", _room_of(_kv, lambda free, each: (free + each - 1) // each)),
        ("rounded up", _room_of(_kv, lambda free, each: int(free / each + 0.5))),
        ("bytes", lambda c, free, batch, size: KVCache(c).config.kv_bytes_per_token(
            {2: "bfloat16", 4: "float32"}[size]) * batch),
    ],
    "kept": [
        ("nothing left to feed", _prefix),
        ("goes on after the difference",
         lambda old, new: [a == b for a, b in zip(old, new[:-1], strict=False)].count(True)),
        ("goes on after the difference",
         lambda old, new: [a == b for a, b in zip(old, new, strict=False)].count(True)),
        ("anywhere", _substring),
        ("anywhere", lambda old, new: min(_substring(old, new), len(new) - 1)),
        ("anywhere", lambda old, new: len(set(old).intersection(new))),
        ("from the end", lambda old, new: _prefix(list(reversed(old)), list(reversed(new)))),
        ("one too many", lambda old, new: min(len(new), _capped_prefix(old, new) + 1)),
        ("one too few", lambda old, new: max(_prefix(old, new), 1) - 1),
        ("what goes", lambda old, new: len(old[_capped_prefix(old, new) :])),
        ("what is fed", lambda old, new: len(new[_capped_prefix(old, new) :])),
        ("all or nothing", lambda old, new: len(old) * (old == new[: len(old)] and old != new)),
        ("the tokens themselves", lambda old, new: _head(old, new[:-1])),
        ("values", lambda old, new: len(new) // 2),
    ],
    "offsets": [
        ("padding ignored", lambda real, new: (_slots(real, new), _causal(real, new))),
        ("padding counted", lambda real, new: (_slots(real, new), _may(real, new))),
        ("positions from 0",
         lambda real, new: (torch.arange(new).repeat(len(real), 1), _may(real, new))),
        ("counted from 1",
         lambda real, new: (real.long().cumsum(1)[:, -new:], _may(real, new))),
        ("all positions", lambda real, new: (torch.cumsum(real, 1) - 1, _may(real, new))),
        ("mask without offset",
         lambda real, new: (_where(real, new), _triangle(real, new)[None] * real[:, None])),
        ("padding may be read", lambda real, new: (_where(real, new), _causal(real, new))),
        ("sees the future",
         lambda real, new: (_where(real, new), torch.stack([real] * new, dim=1))),
        ("not itself", lambda real, new: (
            _where(real, new),
            _may(real, new) & (torch.arange(real.shape[1]) != _slots(real, new)[..., None]))),
        ("turned round", lambda real, new: (_where(real, new), _may(real, new).logical_not())),
        ("shape", lambda real, new: (_where(real, new), _may(real, new)[:, None])),
        ("dtype", lambda real, new: (_where(real, new), _may(real, new).long())),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "name", "function"),
    [(check, *pair) for check, pairs in WRONG.items() for pair in pairs],
)
def test_a_wrong_idea_is_named(check, name, function):
    assert judged(check, function) == ("not yet", name)


def test_every_named_mistake_is_tried():
    tables = {
        "step": cache.STEP_MISTAKES,
        "room": cache.ROOM_MISTAKES,
        "kept": cache.KEPT_MISTAKES,
        "offsets": cache.OFFSET_MISTAKES,
    }
    for check, mistakes in tables.items():
        assert {one.name for one in mistakes} - {name for name, _ in WRONG[check]} == set()


def test_hints_give_no_code_away():
    tables = (cache.STEP_MISTAKES, cache.ROOM_MISTAKES, cache.KEPT_MISTAKES, cache.OFFSET_MISTAKES)
    hints = [one.hint for table in tables for one in table]
    assert not [hint for hint in hints if "cat(" in hint or "cumsum" in hint or "zip(" in hint]
