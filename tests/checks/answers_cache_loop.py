"""Answers to exercise 10.3, the cached loop."""

import itertools
from dataclasses import dataclass
from typing import Any

import torch

from qwenkit.generate import generate_batch
from qwenkit.model import KVCache


# right, no matter how it is written
def _all_rows_to_the_end(model, prompts, steps, stop_ids):
    """Feed finished rows on, and cut each at its stop token afterwards."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    real = torch.zeros_like(ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = True
    cache = KVCache(model.config, len(prompts), width + steps)
    columns, done, new = [], torch.zeros(len(prompts), dtype=torch.bool), ids
    while len(columns) < steps and not done.all():
        new = model(new, cache=cache, attention_mask=real.long())[:, -1:].argmax(-1)
        columns.append(new[:, 0])
        done |= torch.isin(new[:, 0], torch.tensor(stop_ids, dtype=torch.int64))
        real = torch.nn.functional.pad(real, (0, 1), value=True)
    rows = torch.stack(columns, dim=1).tolist()
    ends = [next((i for i, t in enumerate(row) if t in stop_ids), steps) for row in rows]
    return [row[: end + 1] for row, end in zip(rows, ends, strict=True)]


def _rows_leave_the_batch(model, prompts, steps, stop_ids):
    width = max(len(one) for one in prompts)
    ids = torch.tensor([[22] * (width - len(one)) + one for one in prompts])
    real = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    cache = KVCache(model.config, batch_size=len(prompts), max_length=width + steps)
    found, active = [[] for _ in prompts], list(range(len(prompts)))
    for _ in range(steps):
        logits = model(ids, cache=cache, attention_mask=real, logits_to_keep=1)[:, 0]
        for row, scores in zip(active, logits, strict=True):
            found[row].append(scores.argmax())  # a tensor
        kept = [i for i, row in enumerate(active) if int(found[row][-1]) not in stop_ids]
        if not kept:
            break
        cache.reorder(kept)
        active = [active[i] for i in kept]
        ids = torch.tensor([[found[row][-1]] for row in active])
        real = torch.cat([real[kept], torch.ones(len(kept), 1, dtype=torch.int64)], dim=1)
    return tuple(found)


def _by_the_package(model, prompts, steps, stop_ids):
    return generate_batch(model, prompts, max_new_tokens=steps, stop_ids=stop_ids)


# a loop that a beginner could write, with one idea after another exchanged
@dataclass
class Idea:
    """What differs from the right loop; each field is tried alone, or two together."""

    side: str = "left"
    mask: str = "as padded"
    cached: bool = True
    room: str = "all"
    rows: Any = None
    steps: int = 0
    at: int = -1
    fed: str = "newest"
    last_too: bool = False
    check: str = "newest"
    stop_when: Any = all
    keep_stop: bool = True
    result: Any = None


def _loop(**changed):
    idea = Idea(**changed)

    def loop(model, prompts, steps, stop_ids):
        width = max(len(one) for one in prompts)
        ids, real = [], []
        for one in prompts:
            pad = [0] * (width - len(one))
            ids.append(pad + one if idea.side == "left" else one + pad)
            known = [0] * len(pad) + [1] * len(one)
            real.append(known if idea.side == "left" else known[::-1])
        ids, real = torch.tensor(ids), torch.tensor(real)
        if idea.mask == "by id":
            real = (ids != 0).long()
        room = {"all": width + steps + idea.steps, "prompt": width, "new": steps, "much": 999}
        cache = KVCache(model.config, idea.rows or len(prompts), room[idea.room])
        out, new = [[] for _ in prompts], ids
        done = [False] * len(prompts)
        if steps + idea.steps < 1:
            return out
        for step in itertools.count():
            if idea.fed == "new cache":
                cache = KVCache(model.config, len(prompts), 999)
                real = real[:, -new.shape[1] :]
            given = {"cache": cache} if idea.cached else {}
            if idea.mask != "none":
                given["attention_mask"] = real
            best = model(new, **given)[:, idea.at].argmax(-1)
            for row, token in enumerate(best.tolist()):
                if done[row] and idea.check != "goes on":
                    continue
                if token in stop_ids and not idea.keep_stop:
                    done[row] = True
                    continue
                out[row].append(token)
                seen = prompts[row] + out[row] if idea.check == "prompt" else [token]
                done[row] = done[row] or any(one in stop_ids for one in seen)
            finished = idea.stop_when(done) or step == steps - 1 + idea.steps
            if finished and not idea.last_too:
                break
            one = torch.zeros_like(best) if idea.mask == "zeros" else torch.ones_like(best)
            if idea.mask != "not extended":
                real = torch.cat([real, one[:, None]], dim=1)
            ids = torch.cat([ids, best[:, None]], dim=1)
            new = {"all": ids, "prompt": new}.get(idea.fed, best[:, None])
            if finished:
                model(new, cache=KVCache(model.config, len(prompts), 1))
                break
        return idea.result(out, prompts) if idea.result else out

    return loop


def _each_alone(model, prompts, steps, stop_ids):
    return [_loop()(model, [one], steps, stop_ids)[0] for one in prompts]


def _token_by_token(model, prompts, steps, stop_ids):
    found = []
    for prompt in prompts:
        cache, row = KVCache(model.config, 1, len(prompt) + steps), []
        for token in prompt:
            logits = model(torch.tensor([[token]]), cache=cache)
        while True:
            row.append(int(logits[0, -1].argmax()))
            if len(row) == steps or row[-1] in stop_ids:
                break
            logits = model(torch.tensor([[row[-1]]]), cache=cache)
        found.append(row)
    return found


def _batch_token_by_token(model, prompts, steps, stop_ids):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    real = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    cache, rows = KVCache(model.config, len(prompts), width + steps), [[] for _ in prompts]
    for at in range(width + steps - 1):
        logits = model(ids[:, at : at + 1], cache=cache, attention_mask=real[:, : at + 1])
        if at < width - 1:
            continue
        best = logits[:, -1].argmax(-1)
        for row, token in zip(rows, best.tolist(), strict=True):
            if not (row and row[-1] in stop_ids):
                row.append(token)
        if all(row[-1] in stop_ids for row in rows):
            break
        ids = torch.cat([ids, best[:, None]], dim=1)
        real = torch.cat([real, torch.ones_like(best)[:, None]], dim=1)
    return rows


def _writes_into_the_prompts(model, prompts, steps, stop_ids):
    width = max(len(one) for one in prompts)
    given = [list(one) for one in prompts]
    for one in prompts:
        while len(one) < width:
            one.insert(0, 0)
    return _loop()(model, given, steps, stop_ids)


def _as_tensor(model, prompts, steps, stop_ids):
    found = _loop(stop_when=lambda done: False, check="goes on")(model, prompts, steps, stop_ids)
    return torch.tensor(found)


def _zeros_after(out, prompts):
    width = max(map(len, out))
    return [row + [0] * (width - len(row)) for row in out]


def _cut_to_the_shortest(model, prompts, steps, stop_ids):
    length = min(len(one) for one in prompts)
    return _loop()(model, [one[:length] for one in prompts], steps, stop_ids)


def _never(done):
    return False


RIGHT = [_all_rows_to_the_end, _rows_leave_the_batch, _by_the_package, _loop(), _loop(room="much")]
WRONG = [
    ("no cache", _loop(cached=False, fed="all")),
    ("one prompt at a time", _each_alone),
    ("no prefill", _batch_token_by_token),
    ("no prefill", _token_by_token),
    ("last token fed", _loop(last_too=True)),
    ("finished, and not ended", _loop(stop_when=_never)),
    ("right padding", _loop(side="right")),
    ("no attention mask", _loop(mask="none")),
    ("padding known by its id", _loop(mask="by id")),
    ("padding known by its id", lambda model, prompts, steps, stops: _masked_by_id_each_time(
        model, prompts, steps, stops)),
    ("new tokens masked", _loop(mask="zeros")),
    ("mask not extended", _loop(mask="not extended")),
    ("stop token dropped", _loop(keep_stop=False)),
    ("no stop", _loop(check="goes on", stop_when=_never)),
    ("finished rows go on", _loop(check="goes on")),
    ("first stop ends all", _loop(stop_when=any)),
    ("the first text ends all", _loop(stop_when=lambda done: done[0])),
    ("a stop token in the prompt", _loop(check="prompt")),
    ("one token too many", _loop(steps=1)),
    ("one token too few", _loop(steps=-1)),
    ("prompt in the result", _loop(result=lambda out, prompts:
        [one + row for one, row in zip(prompts, out, strict=True)])),
    ("first position", _loop(at=0)),
    ("only the newest token", _loop(fed="new cache")),
    ("only the newest token", _loop(fed="new cache", mask="none")),
    ("everything fed again", _loop(fed="all", mask="none", room="much")),
    ("prompts cut", _cut_to_the_shortest),
    ("rows filled up", _loop(result=_zeros_after)),
    ("the first text for all", _loop(result=lambda out, prompts: [out[0]] * len(out))),
    ("only the first text", _loop(result=lambda out, prompts: out[0])),
    ("a batch of one", _loop(rows=1)),
    ("no room for new tokens", _loop(room="prompt")),
    ("no room for the prompts", _loop(room="new")),
    ("joined", _loop(result=lambda out, prompts: [token for row in out for token in row])),
    ("changes its input", _writes_into_the_prompts),
    ("kind", _as_tensor),
    ("error", _loop(fed="prompt")),
    ("error", _loop(fed="all")),
    ("kind", lambda model, prompts, steps, stops: model(torch.tensor(prompts))),
    ("values", _loop(result=lambda out, prompts: [row[::-1] for row in out])),
]  # fmt: skip


def _masked_by_id_each_time(model, prompts, steps, stop_ids):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    cache, rows, new = (
        KVCache(model.config, len(prompts), width + steps),
        [[] for _ in prompts],
        ids,
    )
    for _ in range(steps):
        new = model(new, cache=cache, attention_mask=(ids != 0).long())[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], dim=1)
        for row, token in zip(rows, new[:, 0].tolist(), strict=True):
            if not (row and row[-1] in stop_ids):
                row.append(token)
        if all(row[-1] in stop_ids for row in rows):
            break
    return rows
