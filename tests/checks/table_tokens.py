"""Answers to the exercises of notebook 02."""

import functools
import re
from collections import Counter
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


def _by_text(word, merges):
    text = " ".join(word)
    for pair in merges:
        text = text.replace(" ".join(pair), "".join(pair))
    return text.split()


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


# train(words, count)
def _pairs(words, weigh=True, each=list):
    pairs = {}
    for pieces, times in words.items():
        for pair in each(pairwise(pieces)):
            pairs[pair] = pairs.get(pair, 0) + (times if weigh else 1)
    return pairs


def _learn(
    words, count, *, best=None, end=2, joined=_merge, more=0, show=lambda pair, n: pair, **changes
):
    """Learn as the solution does, or with one thing changed."""
    words = {tuple(word): times for word, times in words.items()}
    found = []
    for _ in range(count + more):
        pairs = _pairs(words, **changes)
        if not pairs:
            break
        pair = best(pairs) if best else max(pairs, key=pairs.get)
        if pairs[pair] < end:
            break
        found.append(show(pair, pairs[pair]))
        words = {tuple(joined(pieces, pair)): times for pieces, times in words.items()}
    return found


def _with_a_counter(words, count):
    pieces, times, merges = [*map(list, words)], [*words.values()], []
    while len(merges) < count:
        counter = Counter()
        for one, n in zip(pieces, times, strict=True):
            for pair in pairwise(one):
                counter[pair] += n
        best = counter.most_common(1)
        if not best or best[0][1] == 1:
            return merges
        merges.append(best[0][0])
        for one in pieces:
            place = 0
            while place + 1 < len(one):
                if (one[place], one[place + 1]) == merges[-1]:
                    one[place : place + 2] = [one[place] + one[place + 1]]
                place += 1
    return merges


def _with_every_word(words, count):
    """Write each word as often as it occurs."""
    texts, merges = [[*word] for word, times in words.items() for _ in range(times)], []
    for _ in range(count):
        seen = [pair for text in texts for pair in pairwise(text)]
        best = max(seen, key=seen.count, default=None)
        if best is None or seen.count(best) < 2:
            break
        merges += [best]
        texts = [_merge(text, best) for text in texts]
    return tuple(merges)


def _joined_once(pieces, pair):
    pieces = list(pieces)
    places = [place for place, one in enumerate(pairwise(pieces)) if one == pair]
    if places:
        pieces[places[0] : places[0] + 2] = ["".join(pair)]
    return pieces


def _joined_as_text(pieces, pair):
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split()


def _one_count(words, count):
    pairs = _pairs(words)
    ranked = sorted(pairs, key=pairs.get, reverse=True)
    return [pair for pair in ranked if pairs[pair] >= 2][:count]


def _one_text(words, count):
    """Count in all words, one after the other."""
    text, merges = [one for word, n in words.items() for _ in range(n) for one in word], []
    for _ in range(count):
        pairs = Counter(pairwise(text))
        if not pairs or pairs.most_common(1)[0][1] < 2:
            break
        merges.append(pairs.most_common(1)[0][0])
        text = _merge(text, merges[-1])
    return merges


def _pieces_of(words, count):
    merges = _learn(words, count)
    return [piece for word in words for piece in _in_a_loop(word, merges)]


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
    "encode": [_in_a_loop, _by_rank, _recursively],
    "train": [_learn, _with_a_counter, _with_every_word],
    "safe_turn": [
        _by_ids, _by_template,
        lambda t, text: torch.cat([t(OPENING), t(text, special=False), t(CLOSING)], dim=1),
    ],
    "text_of": [
        lambda p: b"".join(p).decode(errors="replace"),
        lambda p: str(functools.reduce(bytes.__add__, p, b""), "utf-8", "replace"),
        lambda p: bytes(n for x in p for n in x).decode("utf8", "replace"),
    ],
    "neighbors": [
        _in_python, lambda t, n, count: (t @ t[n] / t.norm(dim=-1)).index_fill(0,
            torch.tensor(n), -torch.inf).topk(count).indices.tolist(),
        lambda t, n, count: F.cosine_similarity(t, t[[n]]).argsort(descending=True)[1 : count + 1],
    ],
}  # fmt: skip
WRONG = {
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
        ("first merge missing", lambda word, merges: _course(word, merges)),
        ("first merge missing", lambda word, merges: _course([*word], merges)),
        ("replaced in a text", lambda word, merges: _by_text(word, merges)),
        ("only the first merge",
            lambda word, merges: _course((*word,), merges, keep=list), "a list"),
        ("not joined", lambda word, merges: _course((*word,), merges, pair="".join), "a tuple"),
        ("last merge missing", lambda word, merges: _in_a_loop(word, merges[:-1])),
        ("one string", lambda word, merges: word),
        ("all joined", lambda word, merges: [word]),
        ("one string", lambda word, merges: " ".join(_in_a_loop(word, merges))),
        ("kind", lambda word, merges: _in_a_loop(word, merges)[:-1] or ["?"]),
    ],
    "train": [
        ("words not weighted", lambda *given: _learn(*given, weigh=False)),
        ("once per word", lambda *given: _learn(*given, each=dict.fromkeys)),
        ("across words", _one_text),
        ("nothing joined", _one_count),
        ("nothing joined", lambda *given: _learn(*given, joined=lambda pieces, pair: pieces)),
        ("joined once per word", lambda *given: _learn(*given, joined=_joined_once)),
        ("replaced in a text", lambda *given: _learn(*given, joined=_joined_as_text)),
        ("ties: the last", lambda *given: _learn(*given, best=lambda pairs:
            sorted(pairs, key=pairs.get)[-1])),
        ("ties: by the alphabet", lambda *given: _learn(*given, best=lambda pairs:
            sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[0][0])),
        ("ties: by the alphabet", lambda *given: _learn(*given, best=lambda pairs:
            max((n, pair) for pair, n in pairs.items())[1])),
        ("ties: the longest", lambda *given: _learn(*given, best=lambda pairs:
            max(pairs, key=lambda pair: (pairs[pair], sum(map(len, pair)))))),
        ("pairs that occur once", lambda *given: _learn(*given, end=1)),
        ("ends too early", lambda *given: _learn(*given, end=3)),
        ("least frequent", lambda *given: _learn(*given, end=0, best=lambda pairs:
            min(pairs, key=pairs.get))),
        ("one merge", lambda words, count: _learn(words, count)[:1]),
        ("one merge too many", lambda *given: _learn(*given, more=1)),
        ("one merge too few", lambda *given: _learn(*given, more=-1)),
        ("count ignored", lambda words, count: _learn(words, 500)),
        ("joined pairs", lambda *given: _learn(*given, show=lambda pair, n: "".join(pair))),
        ("with counts", lambda *given: _learn(*given, show=lambda pair, n: (pair, n))),
        ("the words", _pieces_of),
        ("last first", lambda *given: [*reversed(_learn(*given))]),
        ("error: an attribute", lambda words, count: words.split()),
        ("values", lambda words, count: [("a", "b")] * min(count, 5)),
        ("no return", lambda *given: print(_learn(*given))),
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
