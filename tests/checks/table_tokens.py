"""Answers to the exercises of notebook 02."""

import functools
import re
from itertools import pairwise

import pytest
import torch

from qwenkit.pretrained import resolve
from qwenkit.tokenizer import Tokenizer


@functools.cache
def _tokenizer():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QWENKIT_MODEL", raising=False)
        return (Tokenizer(resolve()),)


# --- text_of(pieces) ---


def _text_by_adding(pieces):
    whole = b""
    for piece in pieces:
        whole += piece
    return str(whole, "utf-8", "replace")


# --- encode(word, merges) ---


def _merge(pieces, pair):
    out = []
    for piece in pieces:
        out.append(piece)
        if tuple(out[-2:]) == pair:
            out[-2:] = ["".join(pair)]
    return out


def _by_rank(word, merges):
    """As most tokenizers do it: look for the pair learned first, join it, look again."""
    pieces = list(word)
    while len(pieces) > 1:
        ranks = [merges.index(pair) if pair in merges else 1000 for pair in pairwise(pieces)]
        if min(ranks) == 1000:
            break
        place = ranks.index(min(ranks))
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces


def _in_a_loop(word, merges):
    pieces = [*word]
    for pair in merges:
        pieces = _merge(pieces, pair)
    return pieces


def _recursively(word, merges):
    def cut(pieces, rest):
        return cut(_merge(pieces, rest[0]), rest[1:]) if rest else tuple(pieces)

    return cut(word, merges)


def _greedy(word, merges):
    known = sorted(("".join(pair) for pair in merges), key=len, reverse=True)
    return re.findall("|".join([*map(re.escape, known), "."]), word)


def _from_the_left(word, merges):
    pieces, place = list(word), 0
    while place < len(pieces) - 1:
        if (pieces[place], pieces[place + 1]) in merges:
            pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
            place = 0
        else:
            place += 1
    return pieces


def _single(word, merges):
    pieces = list(word)
    for pair in merges:
        if pair in list(pairwise(pieces)):
            place = list(pairwise(pieces)).index(pair)
            pieces[place : place + 2] = ["".join(pair)]
    return pieces


def _spelled(word, merges):
    """Join pieces that spell the pair."""
    pieces = list(word)
    for pair in merges:
        place = 0
        while place < len(pieces) - 1:
            if "".join(pieces[place : place + 2]) == "".join(pair):
                pieces[place : place + 2] = ["".join(pair)]
            place += 1
    return pieces


def _stops_early(word, merges):
    for pair in merges:
        return _merge(list(word), pair)


def _forgets(word, merges):
    for pair in merges:
        pieces = _merge(list(word), pair)
    return pieces


# --- safe_turn(tokenizer, text) ---

OPENING, CLOSING = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def _by_ids(tokenizer, text):
    start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
    line = tokenizer.encode("\n")
    user, assistant = tokenizer.encode("user\n"), tokenizer.encode("assistant\n")
    return [start, *user, *tokenizer.encode(text, False), end, *line, start, *assistant]


def _by_template(tokenizer, text):
    before, after = tokenizer.chat([{"role": "user", "content": "\x00"}]).split("\x00")
    return tokenizer.encode(before) + tokenizer.encode(text, False) + tokenizer.encode(after)


def _as_tensors(tokenizer, text):
    parts = [tokenizer(OPENING), tokenizer(text, special=False), tokenizer(CLOSING)]
    return torch.cat(parts, dim=1)


def _chat(text):
    return f"{OPENING}{text}{CLOSING}"


def _framed(change=lambda text: text, before=OPENING, after=CLOSING):
    return lambda tokenizer, text: (
        tokenizer.encode(before) + tokenizer.encode(change(text), False) + tokenizer.encode(after)
    )


def _in_parts(*special):
    """Return the ids of the three parts, each with special tokens or without."""
    return lambda tokenizer, text: [
        number
        for part, allowed in zip((OPENING, text, CLOSING), special, strict=True)
        for number in tokenizer.encode(part, allowed)
    ]


def _without_special_tokens(text):
    for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        text = text.replace(name, "")
    return text


# --- neighbors(table, number, count) ---


def _cosine(a, b):
    a, b = a.float(), b.float()
    return (a @ b / (a.norm() * b.norm())).item()


def _dot(rows, place, number):
    return (rows[place] @ rows[number]).item()


def _in_python(table, number, count):
    others = [place for place in range(len(table)) if place != number]
    return sorted(others, key=lambda place: -_cosine(table[place], table[number]))[:count]


def _by_topk(table, number, count):
    scores = table @ table[number] / table.norm(dim=-1)
    scores[number] = -float("inf")
    return scores.topk(count).indices.tolist()


def _without_the_first(table, number, count):
    alike = torch.nn.functional.cosine_similarity(table, table[number][None])
    return alike.argsort(descending=True)[1 : count + 1]


def _ranked(score, others_only=True):
    def ranked(table, number, count):
        places = [p for p in range(len(table)) if p != number or not others_only]
        rows = table.float()
        return sorted(places, key=lambda p: -score(rows, p, number))[:count]

    return ranked


def _columns(rows, place, number):
    return _dot(rows / rows.norm(dim=0), place, number)


def _cosine_values(table, number, count):
    alike = torch.nn.functional.cosine_similarity(table, table[number], dim=-1)
    return alike.topk(count).values


GIVEN = {"safe_turn": _tokenizer}
RIGHT = {
    "text_of": [
        lambda pieces: b"".join(pieces).decode(errors="replace"),
        _text_by_adding,
        lambda pieces: bytes(n for piece in pieces for n in piece).decode("utf8", "replace"),
    ],
    "encode": [_in_a_loop, _by_rank, _recursively],
    "safe_turn": [_by_ids, _by_template, _as_tensors],
    "neighbors": [_by_topk, _in_python, _without_the_first],
}  # fmt: skip
WRONG = {
    "text_of": [
        ("each token alone", lambda pieces: "".join(str(p, "utf-8", "replace") for p in pieces)),
        ("broken bytes left out", lambda pieces: str(b"".join(pieces), "utf-8", "ignore")),
        ("each alone, broken bytes left out",
            lambda p: "".join(str(x, "utf-8", "ignore") for x in p)),
        ("strict", lambda pieces: str(b"".join(pieces), "utf-8")),
        ("one character per byte",
            lambda pieces: "".join(chr(n) for piece in pieces for n in piece)),
        ("spaces between", lambda pieces: str(b" ".join(pieces), "utf-8", "replace")),
        ("str of bytes", lambda pieces: "".join(f"{piece}" for piece in pieces)),
        ("still bytes", lambda pieces: bytes(n for piece in pieces for n in piece)),
        ("kind", lambda pieces: [str(piece, "utf-8", "replace") for piece in pieces]),
    ],
    "encode": [
        ("longest piece first", _greedy),
        ("leftmost pair first", _from_the_left),
        ("in reverse", lambda word, merges: _in_a_loop(word, merges[::-1])),
        ("latest learned first", lambda word, merges: _by_rank(word, tuple(reversed(merges)))),
        ("each merge once", _single),
        ("only the first merge", _stops_early),
        ("from single characters each time", _forgets),
        ("compared by spelling", _spelled),
        ("not joined", lambda word, merges: [*word]),
        ("one string", lambda word, merges: " ".join(_in_a_loop(word, merges))),
        ("kind", lambda word, merges: _in_a_loop(word, merges)[:-1] or ["?"]),
    ],
    "safe_turn": [
        ("injection", lambda tokenizer, text: tokenizer.encode(_chat(text))),
        ("injection", lambda tokenizer, text:
            tokenizer.encode(tokenizer.chat([{"role": "user", "content": text}]))),
        ("injection", lambda tokenizer, text: tokenizer(_chat(text))),
        ("all plain text", lambda tokenizer, text: tokenizer.encode(_chat(text), special=False)),
        ("all plain text", _in_parts(False, False, False)),
        ("the wrong part", _in_parts(False, True, False)),
        ("special tokens deleted", _framed(_without_special_tokens)),
        ("text changed", _framed(str.strip)),
        ("assistant not opened", _framed(after="<|im_end|>\n")),
        ("user not ended", _framed(after="\n<|im_start|>assistant\n")),
        ("no line ends", _framed(after="<|im_end|>\n<|im_start|>assistant")),
        ("text, not ids", lambda tokenizer, text: _chat(text)),
        ("shape", _framed(before="<|im_start|>the user\n")),
    ],
    "neighbors": [
        ("itself", lambda table, number, count:
            (table @ table[number] / table.norm(dim=-1)).topk(count).indices),
        ("dot product", _ranked(_dot)),
        ("dot product", lambda table, number, count:
            (table @ table[number] / table[number].norm()).topk(count + 1).indices[1:]),
        ("dot product, with itself", _ranked(_dot, others_only=False)),
        ("distance", _ranked(lambda rows, p, n: -torch.dist(rows[p], rows[n]).item())),
        ("farthest", _ranked(lambda rows, p, n: -_cosine(rows[p], rows[n]))),
        ("least similar first", lambda *given: list(reversed(_in_python(*given)))),
        ("sign lost", _ranked(lambda rows, p, n: _cosine(rows[p], rows[n]) ** 2)),
        ("columns", _ranked(_columns)),
        ("cosines, not ids", lambda table, number, count:
            [_cosine(table[p], table[number]) for p in _in_python(table, number, count)]),
        ("cosines, not ids", _cosine_values),
        ("all rows", lambda table, number, count: _in_python(table, number, 99)),
        ("values", lambda table, number, count: list(range(count))),
    ],
}  # fmt: skip
