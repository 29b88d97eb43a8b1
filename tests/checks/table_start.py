"""Answers to the exercises of notebook 00."""

import functools

import pytest
import torch

import qwenkit as qk


@functools.cache
def loaded():
    """Return the embedded model and its tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QWENKIT_MODEL", raising=False)
        return qk.load_pretrained(device="cpu")


# most_likely_next(model, tokenizer, text)
def _logits(m, t, text):
    return m(t(text))[0]


def _in_steps(model, tokenizer, text):
    with torch.no_grad():
        logits = model(tokenizer(text))
    probabilities = torch.softmax(logits[0, -1], dim=0)
    return tokenizer.decode([int(probabilities.argmax())])


def _read(at):
    return lambda m, t, text: t.decode([int(_logits(m, t, text)[at].argmax())])


# continue_ids(model, ids, count, stop)
def _by_cat(model, ids, count, stop):
    text = torch.tensor(ids)[None]
    while text.shape[1] < len(ids) + count:
        text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
        if text[0, -1].item() in stop:
            break
    return text[0, len(ids) :].tolist()


def _on_a_copy(model, ids, count, stop):
    ids, start = list(ids), len(ids)
    for _ in range(count):
        ids.append(model(torch.tensor(ids).unsqueeze(0))[0][-1].topk(1).indices.item())
        if ids[-1] in stop:
            return ids[start:]
    return ids[start:]


def _recursive(model, ids, count, stop):
    if count == 0:
        return []
    chosen = int(model(torch.tensor([ids]))[0, -1].softmax(-1).argmax())
    return [chosen, *([] if chosen in stop else _recursive(model, [*ids, chosen], count - 1, stop))]


def _into_the_input(model, ids, count, stop):
    new = []
    for _ in range(count):
        new.append(model(torch.tensor([ids]))[0, -1].argmax().item())
        ids.append(new[-1])
        if new[-1] in stop:
            break
    return new


def _asks_first(model, ids, count, stop):
    ids, start = list(ids), len(ids)
    while ids[-1] not in stop and len(ids) < start + count:
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
    return ids[start:]


def _any_stop(model, ids, count, stop):
    ids, start = list(ids), len(ids)
    while len(ids) < start + count:
        ids.append(model(torch.tensor([ids]))[0, -1].argmax().item())
        if any(one in stop for one in ids):
            break
    return ids[start:]


def _counted_with_the_prompt(model, ids, count, stop):
    text = list(ids)
    while len(text) < count:
        text.append(model(torch.tensor([text]))[0, -1].argmax().item())
        if text[-1] in stop:
            break
    return text[len(ids) :]


def _stops_late(model, ids, count, stop):
    text, done = list(ids), False
    for _ in range(count):
        text.append(model(torch.tensor([text]))[0, -1].argmax().item())
        if done:
            break
        done = text[-1] in stop
    return text[len(ids) :]


def _loop(feed=lambda ids, new: ids + new, pick=lambda x: x[0, -1].argmax().item(), more=0):
    """Return a loop that feeds, picks or counts in another way."""

    def loop(model, ids, count, stop):
        new = []
        for _ in range(count + more):
            new.append(pick(model(torch.tensor([feed(ids, new)]))))
            if new[-1] in stop:
                break
        return new

    return loop


def _before_appending(model, ids, count, stop):
    new = []
    for _ in range(count):
        chosen = model(torch.tensor([ids + new]))[0, -1].argmax().item()
        if chosen in stop:
            break
        new.append(chosen)
    return new


def _returns_in_the_loop(model, ids, count, stop):
    new = []
    for _ in range(count):
        new.append(model(torch.tensor([ids + new]))[0, -1].argmax().item())
        return new
    return new


GIVEN = {"most_likely_next": loaded}
RIGHT = {
    "most_likely_next": [
        _in_steps,
        lambda m, t, text: t.decode(_logits(m, t, text)[None, -1].topk(1).indices[0]),
        lambda m, t, text:
            t.decode([next(qk.generate(m, t(text), max_new_tokens=1)).token_id]),
    ],
    "continue_ids": [_by_cat, _on_a_copy, _recursive, _loop()],
}  # fmt: skip
WRONG = {
    "most_likely_next": [
        ("an id", lambda *given: int(_logits(*given)[-1].argmax())),
        ("an id", lambda *given: _logits(*given)[-1].argmax()),
        ("an id", lambda *given: [int(_logits(*given)[-1].argmax())]),
        ("first position", _read(0)),
        ("second to last position", _read(-2)),
        ("all positions", lambda m, t, text: t.decode(_logits(m, t, text)[None].argmax(-1))),
        ("with the prompt", lambda *given: given[2] + _in_steps(*given)),
        ("last token of the text", lambda m, t, text: t.decode(t.encode(text)[-1:])),
        ("least likely", lambda m, t, text: t.decode([int((-_logits(m, t, text))[-1].argmax())])),
        ("the score", lambda *given: float(_logits(*given)[-1].max())),
        ("values", lambda *given: "no token at all"),
        ("error", lambda m, t, text: t.decode(m(text).argmax())),
        ("all scores", lambda *given: int(_logits(*given).argmax())),
        ("all scores", lambda *given: _logits(*given).argmax(dim=0)),
        ("all scores", lambda m, t, text: m(t(text)).argmax(dim=1)),
        ("no return", lambda *given: print(_in_steps(*given))),
    ],
    "continue_ids": [
        ("changes its input", _into_the_input),
        ("with the prompt", lambda m, ids, *more: ids + _loop()(m, ids, *more)),
        ("never stops", lambda m, ids, count, stop: _loop()(m, ids, count, [])),
        ("stop token dropped", _before_appending),
        ("one past the stop token", _stops_late),
        ("stopped by the prompt", _asks_first),
        ("stopped by the prompt", _any_stop, "anywhere"),
        ("the same text each time", _loop(feed=lambda ids, new: ids)),
        ("only the last token fed", _loop(feed=lambda ids, new: new[-1:] if new else ids)),
        ("only the new tokens fed", _loop(feed=lambda ids, new: new if new else ids)),
        ("put in front", _loop(feed=lambda ids, new: new[::-1] + ids)),
        ("first position", _loop(pick=lambda x: x[0, 0].argmax().item())),
        ("second to last position",
            _loop(pick=lambda x: x[0, max(-2, -x.shape[1])].argmax().item())),
        ("least likely", _loop(pick=lambda x: (-x[0, -1]).argmax().item())),
        ("scores, not ids", _loop(feed=lambda ids, new: ids, pick=lambda x: x[0, -1].max().item())),
        ("tensors, not integers", _loop(pick=lambda x: x[0, -1].argmax())),
        ("tensors, not integers", _loop(pick=lambda x: x[:, -1:].argmax(-1))),
        ("one step", _returns_in_the_loop),
        ("only the last id", lambda *given: (_loop()(*given) or [None])[-1]),
        ("one token too many", _loop(more=1)),
        ("one token too few", _loop(more=-1)),
        ("cut at count", _counted_with_the_prompt),
        ("forbidden", lambda model, ids, count, stop:
            _loop()(model, ids, count, stop) if not hasattr(model, "generate") else model.generate),
        ("error", lambda model, ids, count, stop: [model(ids).argmax()]),
        ("error", _loop(pick=lambda x: x[-1].argmax(-1).item())),
        ("no return", lambda *given: print(_loop()(*given))),
    ],
}  # fmt: skip
