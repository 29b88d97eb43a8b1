"""Answers to exercise 11.4, an answer from a list."""

import math

import torch


# right, no matter how it is written
def _with_a_mask(score, pieces, allowed, end, numbers):
    ids, text, probability = [], "", 1.0
    for number in numbers:
        keep = [bool(p) and any(a.startswith(text + p) for a in allowed) for p in pieces]
        keep[end] = text in allowed
        probs = score(ids).masked_fill(~torch.tensor(keep), -math.inf).softmax(-1)
        ends = probs.cumsum(-1)
        token = int((ends <= number * ends[-1]).sum())
        probability *= float(probs[token])
        if token == end:
            break
        ids.append(token)
        text += pieces[token]
    return text, probability


def _candidates(text, pieces, allowed, end):
    found = {i for i, p in enumerate(pieces) if p and any(a.find(text + p) == 0 for a in allowed)}
    return sorted((found - {end}) | ({end} if text in allowed else set()))


def _in_lists(score, pieces, allowed, end, numbers, log=0.0):
    ids = []
    for number in numbers:
        text = "".join(pieces[i] for i in ids)
        left = _candidates(text, pieces, allowed, end)
        powers = [math.exp(score(ids)[i]) for i in left]
        total, place = 0.0, 0
        for place, power in enumerate(powers):  # noqa: B007
            total += power / sum(powers)
            if number < total:
                break
        log += math.log(powers[place] / sum(powers))
        if left[place] == end:
            return "".join(pieces[i] for i in ids), math.exp(log)
        ids = [*ids, left[place]]
    return "".join(pieces[i] for i in ids), math.exp(log)


def _recursive(score, pieces, allowed, end, numbers, ids=(), text="", probability=1.0):
    if not numbers:
        return text, probability
    left = torch.tensor(_candidates(text, pieces, allowed, end))
    probs = torch.zeros(len(pieces)).index_copy(0, left, score(list(ids))[left].softmax(0))
    token = int(torch.searchsorted(probs.cumsum(0), numbers[0], right=True).clamp(max=max(left)))
    probability = probability * probs[token]
    if token == end:
        return text, probability
    more = [*ids, token], text + pieces[token], probability
    return _recursive(score, pieces, allowed, end, numbers[1:], *more)


# wrong, each in one step
def _never_stops(append):
    def choose(score, pieces, allowed, end, numbers):
        ids, text, probability = [], "", 1.0
        for number in numbers:
            keep = [bool(p) and any(a.startswith(text + p) for a in allowed) for p in pieces]
            keep[end] = text in allowed
            probs = score(ids).masked_fill(~torch.tensor(keep), -math.inf).softmax(-1)
            token = min(int((probs.cumsum(-1) <= number).sum()), len(pieces) - 1)
            probability *= float(probs[token])
            if append or token != end:
                ids.append(token)
                text += pieces[token]
        return text, probability

    return choose


def _loop(
    allow=lambda text, piece, allowed: piece and any(a.startswith(text + piece) for a in allowed),
    may_end=lambda text, allowed: text in allowed,
    probs_of=lambda logits, keep: torch.where(keep, logits, -math.inf).softmax(0),
    pick=lambda probs, u: int(torch.searchsorted(probs.cumsum(0), u, right=True)),
    context=list,
    number=lambda numbers, i: numbers[i],
    probability=lambda probs, logits, token: float(probs[token]),
    early=False,
    answer=lambda text, ps, ids, ended: (text, math.prod(ps)),
):
    def choose(score, pieces, allowed, end, numbers):
        text, ids, ps, ended = "", [], [], False
        for i in range(len(numbers)):
            if early and text in allowed:
                return answer(text, ps, ids, True)
            keep = torch.tensor([bool(allow(text, piece, allowed)) for piece in pieces])
            keep[end] = bool(may_end(text, allowed))
            logits = score(context(ids))
            probs = probs_of(logits, keep)
            token = min(pick(probs, number(numbers, i)), len(pieces) - 1)
            ps.append(probability(probs, logits, token))
            if token == end:
                ended = True
                break
            ids.append(token)
            text = text + pieces[token]
        return answer(text, ps, ids, ended)

    return choose


RIGHT = [_with_a_mask, _in_lists, _recursive, lambda *given: list(_with_a_mask(*given))]
WRONG = [
    ("probability of the model",
        _loop(probability=lambda probs, logits, token: float(logits.softmax(0)[token]))),
    ("not normalized", _loop(probs_of=lambda x, keep: torch.where(keep, x.softmax(0), 0.0))),
    ("probability of the model",
        _loop(probs_of=lambda x, keep: torch.where(keep, x.softmax(0), 0.0),
            pick=lambda p, u: int(torch.searchsorted(p.cumsum(0), u * p.sum(), right=True)))),
    ("zero for minus infinity", _loop(probs_of=lambda x, keep: (x * keep).softmax(0))),
    ("nothing is masked", _loop(allow=lambda *_: True, may_end=lambda *_: True)),
    ("nothing is masked", _loop(probs_of=lambda x, keep: x.softmax(0))),
    ("end at any time", _loop(may_end=lambda *_: True)),
    ("end never", _loop(may_end=lambda *_: False)),
    ("stops at once", _loop(early=True)),
    ("stops at once", _loop(early=True, may_end=lambda *_: False)),
    ("goes on after the end", _never_stops(append=True)),
    ("goes on after the end", _never_stops(append=False)),
    ("whole answers only", _loop(allow=lambda text, piece, allowed: text + piece in allowed)),
    ("the text so far is ignored", _loop(allow=lambda text, piece, allowed:
        piece and any(a.startswith(piece) for a in allowed))),
    ("prefix the wrong way around", _loop(allow=lambda text, piece, allowed:
        piece and any((text + piece).startswith(a) for a in allowed))),
    ("anywhere in the text", _loop(allow=lambda text, piece, allowed:
        piece and any(text + piece in a for a in allowed))),
    ("empty pieces", _loop(allow=lambda text, piece, allowed:
        any(a.startswith(text + piece) for a in allowed))),
    ("single characters", _loop(allow=lambda text, piece, allowed:
        len(piece) == 1 and any(a[len(text) :][:1] == piece and a.startswith(text)
            for a in allowed))),
    ("greedy", _loop(pick=lambda probs, u: int(probs.argmax()))),
    ("the same number", _loop(number=lambda numbers, i: numbers[0])),
    ("numbers from the end", _loop(number=lambda numbers, i: numbers[::-1][i])),
    ("number reversed", _loop(pick=lambda probs, u:
        int(torch.searchsorted(probs.cumsum(0), 1 - u, right=True)))),
    ("the model sees nothing", _loop(context=lambda ids: [])),
    ("the model sees the last token only", _loop(context=lambda ids: ids[-1:])),
    ("the end is not counted", _loop(answer=lambda text, ps, ids, ended:
        (text, math.prod(ps[:-1] if ended else ps)))),
    ("logarithm", _loop(answer=lambda text, ps, *_: (text, math.log(math.prod(ps))))),
    ("added", _loop(answer=lambda text, ps, *_: (text, sum(ps)))),
    ("mean", _loop(answer=lambda text, ps, *_: (text, sum(ps) / len(ps)))),
    ("last step only", _loop(answer=lambda text, ps, *_: (text, ps[-1]))),
    ("first step only", _loop(answer=lambda text, ps, *_: (text, ps[0]))),
    ("ids", _loop(answer=lambda text, ps, ids, _: (ids, math.prod(ps)))),
    ("text alone", _loop(answer=lambda text, *_: text)),
    ("probability alone", _loop(answer=lambda text, ps, *_: math.prod(ps))),
    ("exchanged", _loop(answer=lambda text, ps, *_: (math.prod(ps), text))),
    ("the end in the text", _loop(answer=lambda text, ps, ids, ended:
        (text + "<end>" if ended else text, math.prod(ps)))),
    ("error", lambda score, pieces, allowed, end, numbers: score(pieces)),
    ("kind", lambda *given: {"text": _with_a_mask(*given)[0]}),
    ("values", lambda score, pieces, allowed, end, numbers: (allowed[0], 1.0)),
]  # fmt: skip
