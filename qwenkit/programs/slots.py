"""The kinds of arguments, and the names that stand for the slots of a template."""

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from qwenkit.programs.program import Text

WORDS = """
    apple bread river stone cloud green table chair window garden paper music yellow summer winter
    monkey tiger banana lemon orange pencil rocket planet silver dog cat sun moon tree bird fish
    house road train ship level noon radar kayak civic stats mom dad pop wow hello world python
    code data loop list book letter coffee butter happy pretty silly small tall sky egg ice owl
    umbrella island ocean uncle idea area east north south west tea sea see bee Anna Bob Carl Dora
    Eve Frank Grace Hugo Paris Rome London Sunday March the a an and of in on is it to at by
""".split()

# One program takes the same place in each pool, so that names which belong together come together.
NAMES = {
    slot: pool.split()
    for slot, pool in {
        "n": "n number num n value n x number",
        "m": "m other m m other m y other",
        "a": "a x first a a num1 x first",
        "b": "b y second b b num2 y second",
        "c": "c z third c c num3 z third",
        "k": "k count size k k n k step",
        "low": "low start lo minimum low lower",
        "high": "high end hi maximum high upper",
        "start": "start low first begin start",
        "stop": "stop high last end stop",
        "numbers": "numbers nums values xs numbers lst items data",
        "items": "items values xs elements lst items data things",
        "more": "more others ys rest other more extra",
        "left": "left a first xs list1 a one",
        "right": "right b second ys list2 b two",
        "text": "text s string text s sentence txt string",
        "other": "other t other_text other t second",
        "word": "word w word text s string",
        "words": "words strings words word_list names items",
        "letter": "letter char ch c character letter",
        "lines": "lines rows lines texts lines strings",
        "path": "path filename file_name path file_path",
        "d": "d data mapping d dictionary table dct",
        "e": "e other extra d2 other second dct2",
        "key": "key k key name key",
        "value": "value v value val value",
        "matrix": "matrix grid m rows table matrix",
        "pairs": "pairs items pairs tuples data",
        "lists": "lists nested lists groups list_of_lists",
        "score": "score points mark score n",
        "year": "year y year n",
        "default": "default fallback default other",
        "target": "target wanted x goal target value",
        "limit": "limit n maximum limit top",
        "width": "width w a width",
        "height": "height h b height",
        "bill": "bill amount total bill",
        "percent": "percent rate pct",
        "nested": "nested items lst data nested",
        "celsius": "celsius c temperature degrees celsius",
        "fahrenheit": "fahrenheit f temperature degrees fahrenheit",
        "kelvin": "kelvin k temperature degrees kelvin",
        "kilometers": "km kilometers distance kilometers",
        "miles": "miles distance miles",
        "minutes": "minutes mins minutes",
        "seconds": "seconds secs seconds total_seconds",
        "hours": "hours hours h",
        "meters": "meters m distance",
        "kilograms": "kg kilograms weight",
        "grams": "grams g weight",
        "inches": "inches length inches",
        "centimeters": "cm centimeters length",
        "degrees": "degrees angle deg",
        "base": "base b base x",
        "exponent": "exponent e exp n",
        "radius": "radius r radius",
        "side": "side s edge length",
        "prices": "prices items amounts costs values",
        "rate": "rate tax_rate rate tax_rate",
        "price": "price amount price cost",
        "age": "age years age",
    }.items()
}
LOCALS = {
    slot: pool.split()
    for slot, pool in {
        "total": "total result total s acc",
        "count": "count total counter count result",
        "result": "result result out output res answer",
        "best": "best largest result best current",
        "x": "x x item number value element num",
        "y": "y y b other second",
        "i": "i i index j pos",
        "j": "j j k",
        "ch": "ch char c letter ch",
        "w": "word w word item part",
        "k": "key k key name",
        "v": "value v value val",
        "line": "line line row text",
        "row": "row row line r",
        "seen": "seen seen found known",
        "counts": "counts freq counter counts result",
        "parts": "parts words pieces tokens",
        "file": "file f file handle",
        "left": "left low lo start",
        "right": "right high hi end",
        "mid": "mid middle mid",
        "rest": "rest others rest",
        "head": "head first head",
        "new": "new copy result out",
        "temp": "temp tmp old",
    }.items()
}


class Kind(NamedTuple):
    """A kind of argument: its annotation, and a sample of it."""

    annotation: str
    sample: Callable[[Random], Any]


def integers(rng: Random, least: int = 0, low: int = -9, high: int = 20) -> list[int]:
    """Return a short list of integers, some of them equal."""
    size = max(least, rng.choice((0, 1, 3, 4, 5, 6)))
    top = rng.choice((low + 4, high))
    return [rng.randint(low, top) for _ in range(size)]


def words(rng: Random, least: int = 0, most: int = 6) -> list[str]:
    """Return a few words."""
    return [rng.choice(WORDS) for _ in range(rng.randint(least, most))]


def text(rng: Random) -> str:
    """Return a word, a few words, or nothing."""
    found = " ".join(words(rng, rng.random() > 0.08, 5))
    form = rng.randrange(5)
    found = found.upper() if form == 0 else found.capitalize() if form == 1 else found
    return found + rng.choice("!?.") if form > 2 and rng.random() < 0.3 else found


def mapping(rng: Random, least: int = 0) -> dict[str, int]:
    """Return a few words with numbers."""
    return {word: rng.randint(0, 12) for word in words(rng, least, 4)}


def matrix(rng: Random) -> list[list[int]]:
    """Return rows of equal length."""
    columns = rng.randint(1, 4)
    return [[rng.randint(0, 9) for _ in range(columns)] for _ in range(rng.randint(1, 3))]


def text_file(rng: Random) -> Text:
    """Return a file of a few lines, some of them empty."""
    lines = [" ".join(words(rng, rng.random() > 0.15, 4)) for _ in range(rng.randint(0, 5))]
    return Text("".join(f"{line}\n" for line in lines))


KINDS = {
    "int": Kind("int", lambda rng: rng.randint(-20, 60)),
    "pos": Kind("int", lambda rng: rng.randint(1, 40)),
    "nat": Kind("int", lambda rng: rng.randint(0, 12)),
    "small": Kind("int", lambda rng: rng.randint(0, 5)),
    "one": Kind("int", lambda rng: rng.randint(1, 5)),
    "big": Kind("int", lambda rng: rng.randint(0, 10 ** rng.randint(1, 6))),
    "float": Kind("float", lambda rng: rng.randint(-40, 200) / 2),
    "value": Kind("float", lambda rng: float(rng.randint(0, 20) * rng.choice((1, 5, 9)))),
    "size": Kind("float", lambda rng: rng.randint(1, 40) / 2),
    "rate": Kind("float", lambda rng: rng.choice((0.0, 0.125, 0.25, 0.5))),
    "bool": Kind("bool", lambda rng: rng.random() < 0.5),
    "ints": Kind("list[int]", integers),
    "ints1": Kind("list[int]", lambda rng: integers(rng, 1)),
    "ints2": Kind("list[int]", lambda rng: integers(rng, 2)),
    "nats": Kind("list[int]", lambda rng: integers(rng, 0, 0)),
    "sorted": Kind("list[int]", lambda rng: sorted(integers(rng, 1))),
    "unique": Kind("list[int]", lambda rng: rng.sample(range(-9, 20), rng.randint(2, 6))),
    "floats1": Kind("list[float]", lambda rng: [n / 2 for n in integers(rng, 1)]),
    "text": Kind("str", text),
    "text1": Kind("str", lambda rng: text(rng) or "a"),
    "word": Kind("str", lambda rng: rng.choice(WORDS)),
    "letter": Kind("str", lambda rng: rng.choice("aeiounrstlpbc")),
    "words": Kind("list[str]", words),
    "words1": Kind("list[str]", lambda rng: words(rng, 1)),
    "lines": Kind("list[str]", lambda rng: text_file(rng).contents.splitlines()),
    "dict": Kind("dict[str, int]", mapping),
    "dict1": Kind("dict[str, int]", lambda rng: mapping(rng, 1)),
    "names": Kind("dict[str, str]", lambda rng: dict(zip(words(rng), words(rng), strict=False))),
    "matrix": Kind("list[list[int]]", matrix),
    "lists": Kind("list[list[int]]", lambda rng: [integers(rng) for _ in range(rng.randrange(4))]),
    "pairs": Kind(
        "list[tuple[str, int]]", lambda rng: [(w, rng.randint(0, 9)) for w in words(rng, 0, 4)]
    ),
    "set": Kind("set[int]", lambda rng: set(integers(rng, 0, 0, 9))),
    "path": Kind("str", text_file),
}
