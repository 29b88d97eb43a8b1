"""Answers to the exercises of notebook 02."""

import functools
import re
from itertools import pairwise

import torch
import torch.nn.functional as F
from table_start import loaded


# encode(word, merges)
def _merge(pieces, pair, key=tuple):
    out = []
    for piece in pieces:
        out.append(piece)
        if key(out[-2:]) == key(pair):
            out[-2:] = ["".join(pair)]
    return out


def _by_rank(word, merges):
    """As most tokenizers do it: look for the pair learned first, join it, look again."""
    pieces = list(word)
    while known := [pair for pair in pairwise(pieces) if pair in merges]:
        place = list(pairwise(pieces)).index(min(known, key=merges.index))
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces


def _in_a_loop(word, merges, key=tuple):
    pieces = [*word]
    for pair in merges:
        pieces = _merge(pieces, pair, key)
    return pieces


def _course(pieces, merges, keep=tuple, pair=tuple):
    """Merge as the notebook does: a slice of a tuple is compared with the pair."""
    for one in map(pair, merges):
        joined, place = [], 0
        while place < len(pieces):
            size = 2 if pieces[place : place + 2] == one else 1
            joined.append("".join(pieces[place : place + size]))
            place += size
        pieces = keep(joined)
    return pieces


def _recursively(word, merges):
    def cut(pieces, rest):
        return cut(_merge(pieces, rest[0]), rest[1:]) if rest else tuple(pieces)

    return cut(word, merges)


def _greedy(word, merges):
    known = sorted(("".join(pair) for pair in merges), key=len, reverse=True)
    return re.findall("|".join([*map(re.escape, known), "."]), word)


def _from_the_left(word, merges):
    pieces = list(word)
    while known := [place for place, pair in enumerate(pairwise(pieces)) if pair in merges]:
        pieces[known[0] : known[0] + 2] = ["".join(pieces[known[0] : known[0] + 2])]
    return pieces


def _single(word, merges):
    pieces = list(word)
    for pair in merges:
        if pair in list(pairwise(pieces)):
            place = list(pairwise(pieces)).index(pair)
            pieces[place : place + 2] = ["".join(pair)]
    return pieces


# safe_turn(tokenizer, text)
OPENING, CLOSING = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def _by_ids(tokenizer, text):
    start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
    line = tokenizer.encode("\n")
    user, assistant = tokenizer.encode("user\n"), tokenizer.encode("assistant\n")
    return [start, *user, *tokenizer.encode(text, False), end, *line, start, *assistant]


def _by_template(tokenizer, text):
    before, after = tokenizer.chat([{"role": "user", "content": "\x00"}]).split("\x00")
    return tokenizer.encode(before) + tokenizer.encode(text, False) + tokenizer.encode(after)


def _chat(text):
    return f"{OPENING}{text}{CLOSING}"


def _framed(change=str, before=OPENING, after=CLOSING, special=(True, False, True)):
    """Return the ids of a message in its frame; `special`: which parts may have special tokens."""
    return lambda tokenizer, text: [
        number
        for part, allowed in zip((before, change(text), after), special, strict=True)
        for number in tokenizer.encode(part, allowed)
    ]


# neighbors(table, number, count)
def _cosine(a, b):
    return F.cosine_similarity(a.float(), b.float(), dim=0).item()


def _dot(rows, place, number):
    return (rows[place] @ rows[number]).item()


def _ranked(score):
    """Return a ranking of the other rows by `score(table, row, number)`."""
    return lambda table, number, count: sorted(
        set(range(len(table))) - {number}, key=lambda row: -score(table.float(), row, number)
    )[:count]


_in_python = _ranked(lambda rows, row, number: _cosine(rows[row], rows[number]))
GIVEN = {"safe_turn": lambda: loaded()[1:]}
RIGHT = {
    "text_of": [
        lambda p: b"".join(p).decode(errors="replace"),
        lambda p: str(functools.reduce(bytes.__add__, p, b""), "utf-8", "replace"),
        lambda p: bytes(n for x in p for n in x).decode("utf8", "replace"),
    ],
    "encode": [_in_a_loop, _by_rank, _recursively],
    "safe_turn": [
        _by_ids, _by_template,
        lambda t, text: torch.cat([t(OPENING), t(text, special=False), t(CLOSING)], dim=1),
    ],
    "neighbors": [
        _in_python, lambda t, n, count: (t @ t[n] / t.norm(dim=-1)).index_fill(0,
            torch.tensor(n), -torch.inf).topk(count).indices.tolist(),
        lambda t, n, count: F.cosine_similarity(t, t[[n]]).argsort(descending=True)[1 : count + 1],
    ],
}  # fmt: skip
WRONG = {
    "text_of": [
        ("each token alone", lambda p: "".join(str(x, "utf-8", "replace") for x in p)),
        ("broken bytes left out", lambda p: str(b"".join(p), "utf-8", "ignore")),
        ("each alone, broken bytes left out",
            lambda p: "".join(str(x, "utf-8", "ignore") for x in p)),
        ("strict", lambda p: str(b"".join(p), "utf-8")),
        ("one character per byte", lambda p: "".join(chr(n) for x in p for n in x)),
        ("spaces between", lambda p: str(b" ".join(p), "utf-8", "replace")),
        ("str of bytes", lambda p: "".join(f"{x}" for x in p)),
        ("still bytes", lambda p: bytes(n for x in p for n in x)),
        ("a list of texts", lambda p: [str(x, "utf-8", "replace") for x in p]),
        ("ASCII", lambda p: b"".join(p).decode("ascii", "replace")),
        ("ASCII", lambda p: "".join(x.decode("ascii", "replace") for x in p)),
        ("spaces cut off", lambda p: b"".join(p).decode("utf-8", "replace").strip()),
        ("error: bytes and text", lambda p: "".join(p).decode("utf-8")),
        ("no return", lambda p: print(b"".join(p).decode("utf-8", "replace"))),
        ("error: an attribute", lambda p: p.decode("utf-8", "replace")),
    ],
    "encode": [
        ("longest piece first", _greedy),
        ("leftmost pair first", _from_the_left),
        ("in reverse", lambda word, merges: _in_a_loop(word, merges[::-1])),
        ("latest learned first", lambda word, merges: _by_rank(word, tuple(reversed(merges)))),
        ("each merge once", _single),
        ("only the first merge", lambda word, merges: _merge(list(word), merges[0])),
        ("from single characters each time",
            lambda word, merges: [_merge(list(word), pair) for pair in merges][-1]),
        ("compared by spelling", lambda word, merges: _in_a_loop(word, merges, key="".join)),
        ("not joined", lambda word, merges: [*word]),
        ("not a tuple first", lambda word, merges: _course(word, merges)),
        ("not a tuple first", lambda word, merges: _course([*word], merges)),
        ("only the first merge",
            lambda word, merges: _course((*word,), merges, keep=list), "not a list"),
        ("not joined", lambda word, merges: _course((*word,), merges, pair="".join), "a tuple"),
        ("last merge missing", lambda word, merges: _in_a_loop(word, merges[:-1])),
        ("one string", lambda word, merges: word),
        ("all joined", lambda word, merges: [word]),
        ("one string", lambda word, merges: " ".join(_in_a_loop(word, merges))),
        ("kind", lambda word, merges: _in_a_loop(word, merges)[:-1] or ["?"]),
    ],
    "safe_turn": [
        ("injection", lambda t, text: t.encode(_chat(text))),
        ("injection", lambda t, text: t.encode(t.chat([{"role": "user", "content": text}]))),
        ("injection", lambda t, text: t(_chat(text))),
        ("all plain text", lambda t, text: t.encode(_chat(text), special=False)),
        ("all plain text", lambda t, text: [number
            for part in re.split(r"(?<=user\n)", _chat(text), maxsplit=1)
            for number in t.encode(part, False)]),
        ("the wrong part", _framed(special=(False, True, False))),
        ("special tokens deleted",
            _framed(lambda text: re.sub(r"<\|(im_start|im_end|endoftext)\|>", "", text))),
        ("text changed", _framed(str.strip)),
        ("assistant not opened", _framed(after="<|im_end|>\n")),
        ("user not ended", _framed(after="\n<|im_start|>assistant\n")),
        ("no line ends", _framed(after="<|im_end|>\n<|im_start|>assistant")),
        ("text, not ids", lambda t, text: _chat(text)),
        ("shape", _framed(before="<|im_start|>It is the user who says:\n")),
        ("line end in the text", lambda t, text: t.encode("<|im_start|>user")
            + t.encode("\n" + text, False) + t.encode(CLOSING)),
        ("another role", _framed(before="<|im_start|>system\n")),
        ("no user turn", _framed(before="")),
        ("only the message", lambda t, text: t.encode(text, special=False)),
        ("three lists",
            lambda t, text: [t.encode(OPENING), t.encode(text, False), t.encode(CLOSING)]),
    ],
    "neighbors": [
        ("itself", lambda t, n, count: (t @ t[n] / t.norm(dim=-1)).topk(count).indices),
        ("dot product", _ranked(_dot)),
        ("dot product", lambda t, n, count: (t @ t[n] / t[n].norm()).topk(count + 1).indices[1:]),
        ("dot product, with itself", lambda t, n, count: (t @ t[n]).topk(count).indices),
        ("distance", _ranked(lambda rows, p, n: -torch.dist(rows[p], rows[n]).item())),
        ("farthest", _ranked(lambda rows, p, n: -_cosine(rows[p], rows[n]))),
        ("least similar first", lambda *given: list(reversed(_in_python(*given)))),
        ("sign lost", _ranked(lambda rows, p, n: _cosine(rows[p], rows[n]) ** 2)),
        ("columns", _ranked(lambda rows, p, n: _dot(rows / rows.norm(dim=0), p, n))),
        ("cosines, not ids",
            lambda t, n, count: [_cosine(t[p], t[n]) for p in _in_python(t, n, count)]),
        ("cosines, not ids", lambda t, n, count: F.cosine_similarity(t, t[n], -1).topk(count)[0]),
        ("all rows", lambda table, n, count: _in_python(table, n, 99)),
        ("values", lambda table, n, count: list(range(count))),
        ("with itself, one too many",
            lambda t, n, count: F.cosine_similarity(t, t[[n]]).topk(count + 1).indices),
        ("one too few",
            lambda t, n, count: F.cosine_similarity(t, t[[n]]).topk(count).indices[1:]),
        ("no return", lambda *given: print(_in_python(*given))),
    ],
}  # fmt: skip
