"""The checks of notebook 02: each wrong idea is named, however it is written."""

import re
from itertools import pairwise

import pytest
import torch

from qwenkit.checks import tokens
from qwenkit.pretrained import resolve
from qwenkit.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QWENKIT_MODEL", raising=False)
        return Tokenizer(resolve())


# --- 1: bytes to text ---


def _text_by_adding(pieces):
    whole = b""
    for piece in pieces:
        whole += piece
    return str(whole, "utf-8", "replace")


TEXT_RIGHT = {
    "join": lambda pieces: b"".join(pieces).decode(errors="replace"),
    "adding": _text_by_adding,
    "numbers": lambda pieces: bytes(n for piece in pieces for n in piece).decode("utf8", "replace"),
}
TEXT_WRONG = {
    "each token alone": lambda pieces: "".join(str(p, "utf-8", "replace") for p in pieces),
    "broken bytes left out": lambda pieces: str(b"".join(pieces), "utf-8", "ignore"),
    "each alone, broken bytes left out": lambda p: "".join(str(x, "utf-8", "ignore") for x in p),
    "strict": lambda pieces: str(b"".join(pieces), "utf-8"),
    "one letter a byte": lambda pieces: "".join(chr(n) for piece in pieces for n in piece),
    "spaces between": lambda pieces: str(b" ".join(pieces), "utf-8", "replace"),
    "Python's way of writing bytes": lambda pieces: "".join(f"{piece}" for piece in pieces),
    "still bytes": lambda pieces: bytes(n for piece in pieces for n in piece),
    "kind": lambda pieces: [str(piece, "utf-8", "replace") for piece in pieces],
}


# --- 2: cut a new word ---


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


def _latest(word, merges):
    return _by_rank(word, tuple(reversed(merges)))


def _single(word, merges):
    pieces = list(word)
    for pair in merges:
        if pair in list(pairwise(pieces)):
            place = list(pairwise(pieces)).index(pair)
            pieces[place : place + 2] = ["".join(pair)]
    return pieces


def _spelled(word, merges):
    """Text with bars between pieces; what spells the pair is joined."""
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


def _drops_the_last(word, merges):
    return _in_a_loop(word, merges)[:-1] or ["?"]


ENCODE_RIGHT = {"loop": _in_a_loop, "by rank": _by_rank, "recursion, a tuple": _recursively}
ENCODE_WRONG = {
    "longest piece first": _greedy,
    "leftmost pair first": _from_the_left,
    "in reverse": lambda word, merges: _in_a_loop(word, merges[::-1]),
    "latest learned first": _latest,
    "each merge once": _single,
    "only the first merge": _stops_early,
    "from single letters each time": _forgets,
    "compared by spelling": _spelled,
    "not joined": lambda word, merges: [*word],
    "one string": lambda word, merges: " ".join(_in_a_loop(word, merges)),
    "kind": _drops_the_last,
}


# --- 3: a stranger's message ---


def _by_ids(tokenizer, text):
    start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
    line = tokenizer.encode("\n")
    user, assistant = tokenizer.encode("user\n"), tokenizer.encode("assistant\n")
    return [start, *user, *tokenizer.encode(text, False), end, *line, start, *assistant]


def _by_template(tokenizer, text):
    whole = tokenizer.chat([{"role": "user", "content": "\x00"}])
    before, after = whole.split("\x00")
    return tokenizer.encode(before) + tokenizer.encode(text, False) + tokenizer.encode(after)


def _as_tensors(tokenizer, text):
    parts = [
        tokenizer("<|im_start|>user\n"),
        tokenizer(text, special=False),
        tokenizer("<|im_end|>\n<|im_start|>assistant\n"),
    ]
    return torch.cat(parts, dim=1)


def _chat(text, role="user", opened=True):
    end = "<|im_start|>assistant\n" if opened else ""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n{end}"


def _framed(change=lambda text: text, before="<|im_start|>user\n", after=None):
    after = "<|im_end|>\n<|im_start|>assistant\n" if after is None else after
    return lambda tokenizer, text: (
        tokenizer.encode(before) + tokenizer.encode(change(text), False) + tokenizer.encode(after)
    )


def _inside_out(tokenizer, text):
    before, after = _chat("\x00").split("\x00")
    parts = tokenizer.encode(before, False), tokenizer.encode(text), tokenizer.encode(after, False)
    return [number for part in parts for number in part]


def _no_marks(text):
    for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        text = text.replace(name, "")
    return text


TURN_RIGHT = {"ids": _by_ids, "template": _by_template, "tensors": _as_tensors}
TURN_WRONG = {
    "injection": lambda tokenizer, text: tokenizer.encode(_chat(text)),
    "injection, by the template": lambda tokenizer, text: tokenizer.encode(
        tokenizer.chat([{"role": "user", "content": text}])
    ),
    "injection, as a tensor": lambda tokenizer, text: tokenizer(_chat(text)),
    "all letters": lambda tokenizer, text: tokenizer.encode(_chat(text), special=False),
    "all letters, in parts": lambda tokenizer, text: [
        number for part in re.split(r"(?<=user\n)", _chat(text), maxsplit=1)
        for number in tokenizer.encode(part, False)
    ],
    "the wrong part": _inside_out,
    "marks deleted": _framed(_no_marks),
    "text changed": _framed(str.strip),
    "assistant not opened": _framed(after="<|im_end|>\n"),
    "user not ended": _framed(after="\n<|im_start|>assistant\n"),
    "no line ends": _framed(after="<|im_end|>\n<|im_start|>assistant"),
    "text, not ids": lambda tokenizer, text: _chat(text),
    "shape": _framed(before="<|im_start|>the user\n"),
}  # fmt: skip


# --- 4: neighbours ---


def _cosine(a, b):
    a, b = a.float(), b.float()
    return (a @ b / (a.norm() * b.norm())).item()


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
    scaled = rows / rows.norm(dim=0)
    return (scaled[place] @ scaled[number]).item()


NEAR_RIGHT = {"topk": _by_topk, "python": _in_python, "a tensor": _without_the_first}
NEAR_WRONG = {
    "itself": lambda table, number, count: _by_topk_with_itself(table, number, count),
    "dot product": _ranked(lambda rows, p, n: (rows[p] @ rows[n]).item()),
    "dot product, as a tensor": lambda table, number, count: (
        (table @ table[number] / table[number].norm()).topk(count + 1).indices[1:]
    ),
    "dot product, with itself": _ranked(lambda rows, p, n: (rows[p] @ rows[n]).item(), False),
    "distance": _ranked(lambda rows, p, n: -torch.dist(rows[p], rows[n]).item()),
    "farthest": _ranked(lambda rows, p, n: -_cosine(rows[p], rows[n])),
    "least alike first": lambda *a: list(reversed(_in_python(*a))),
    "sign lost": _ranked(lambda rows, p, n: _cosine(rows[p], rows[n]) ** 2),
    "columns": _ranked(_columns),
    "cosines, not ids": lambda table, number, count: [
        _cosine(table[p], table[number]) for p in _in_python(table, number, count)
    ],
    "cosines, not ids, as a tensor": lambda table, number, count: (
        torch.nn.functional.cosine_similarity(table, table[number], dim=-1).topk(count).values
    ),
    "all rows": lambda table, number, count: _in_python(table, number, 99),
    "values": lambda table, number, count: list(range(count)),
}


def _by_topk_with_itself(table, number, count):
    return (table @ table[number] / table.norm(dim=-1)).topk(count).indices


# --- every exercise alike ---

CHECKS = {
    "02.1": (tokens.text_of, TEXT_RIGHT, TEXT_WRONG),
    "02.2": (tokens.encode, ENCODE_RIGHT, ENCODE_WRONG),
    "02.3": (tokens.safe_turn, TURN_RIGHT, TURN_WRONG),
    "02.4": (tokens.neighbours, NEAR_RIGHT, NEAR_WRONG),
}
RIGHT = [(e, style) for e, (_, right, _) in CHECKS.items() for style in right]
WRONG = [(e, name) for e, (_, _, wrong) in CHECKS.items() for name in wrong]


@pytest.fixture
def verdict(tokenizer):
    def ask(exercise, learner):
        check = CHECKS[exercise][0]
        return check(learner, tokenizer) if exercise == "02.3" else check(learner)

    return ask


@pytest.mark.parametrize(("exercise", "style"), RIGHT)
def test_right_in_any_style(exercise, style, verdict):
    found = verdict(exercise, CHECKS[exercise][1][style])
    assert (found.outcome, found.mistake) == ("right", None), str(found)


@pytest.mark.parametrize(("exercise", "name"), WRONG)
def test_each_mistake_is_named(exercise, name, verdict):
    found = verdict(exercise, CHECKS[exercise][2][name])
    assert found.mistake == name.split(", by")[0].split(", as")[0].split(", in ")[0], str(found)
    assert str(found).startswith("Not yet: ")


@pytest.mark.parametrize("exercise", CHECKS)
def test_an_empty_stub_is_told_so_kindly(exercise, verdict):
    assert str(verdict(exercise, lambda *arguments: None)).startswith("Still empty")
    assert "without brackets" in str(verdict(exercise, [1, 2]))


def test_every_exercise_is_listed():
    assert list(tokens.EXERCISES) == list(CHECKS)
