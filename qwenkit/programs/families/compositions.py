"""Families made of parts: filter then count, map then sum, filter then map, split then join.

Their names say the parts, as "count(filter(even))". Some are held out from training altogether.
"""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from qwenkit.programs.families.parts import (
    NUMBER_CHANGES,
    NUMBER_CONDITIONS,
    WORD_CHANGES,
    WORD_CONDITIONS,
    Change,
    Condition,
    changed,
)
from qwenkit.programs.family import Family, family
from qwenkit.programs.slots import WORDS

HELD_OUT = {
    "count(filter(odd))", "count(filter(above))", "sum(filter(multiple))", "sum(filter(negative))",
    "product(filter(even))", "max(filter(odd))", "min(filter(positive))", "any(negative)",
    "all(even)", "first(filter(below))", "list(filter(nonzero))", "sum(map(cube))",
    "sum(map(absolute))", "list(map(double))", "list(map(square, filter(odd)))",
    "sum(map(square, filter(even)))", "sum(map(double, filter(positive)))",
    "list(map(times, filter(above)))", "count(filter(ends))", "list(filter(capitalized))",
    "any(palindrome)", "count(filter(longer, split))", "list(map(upper, filter(shorter)))",
    "list(map(reverse, filter(starts)))", "join(map(reverse))", "join(filter(longer))",
}  # fmt: skip

NUMBER_NAMES = "{0}_of_{1} list_{0}_of_{1} {1}_{0} {0}_if_{1}"
WORD_NAMES = "{0}_words_{1} {0}_{1} list_{0}_{1} {0}_if_{1}"
NUMBERS = list(range(-9, 21))


def lists(condition: Condition, pool: Sequence[Any]) -> Callable[..., tuple[list[Any]]]:
    """Return a sampler of lists in which some values, or all, meet a condition."""

    def inputs(rng: Random, k: Any = None) -> tuple[list[Any]]:
        fitting = [one for one in pool if condition.holds(one, k)]
        others = [one for one in pool if one not in fitting]
        values = rng.choices(rng.choice((fitting, others, pool)), k=rng.choice((0, 2, 3, 4, 5)))
        if rng.random() < 0.3:
            values.insert(rng.randint(0, len(values)), rng.choice(fitting))
        if k in pool and rng.random() < 0.3:  # tells > from >=
            values.append(k)
        return (values,)

    return inputs


def texts(condition: Condition) -> Callable[..., tuple[str]]:
    """Return a sampler of texts in which some words meet a condition."""
    words = lists(condition, WORDS)
    return lambda rng, k=None: (" ".join(words(rng, k)[0]),)


class Fold(NamedTuple):
    """What is made of the things for which a condition holds.

    The wordings use $xs (the list), and the words of a `Condition`; TEST stands for its test.
    """

    name: str
    names: str
    returns: str
    phrasings: str
    bodies: str
    reference: Callable[[list[Any]], Any]


FOLDS = [
    Fold(
        "count(filter({}))",
        "count_{} how_many_{} number_of_{} num_{}",
        "int",
        """
        # the number of {things} in $xs
        = how many of the {nouns} in $xs {plural}
        Count the {things} in [$xs|a list|a list of {nouns}].
        Count the {nouns} in a list that {plural}.
        """,
        """
        return sum(1 for $x in $xs if TEST)
        ---
        return len([$x for $x in $xs if TEST])
        ---
        $count = 0
        for $x in $xs:
            if TEST:
                $count += 1
        return $count
        """,
        len,
    ),
    Fold(
        "list(filter({}))",
        "filter_{} keep_{} only_{} select_{}",
        "list[ELEMENT]",
        """
        = a list of the {things} in $xs
        = the {nouns} in $xs that {plural}
        Keep only the {things} of [$xs|a list].
        Given a list of {nouns}, return those that {plural}.
        """,
        """
        return [$x for $x in $xs if TEST]
        ---
        return list(filter(lambda $x: TEST, $xs))
        ---
        $result = []
        for $x in $xs:
            if TEST:
                $result.append($x)
        return $result
        """,
        list,
    ),
    Fold(
        "first(filter({}))",
        "first_{} find_first_{} first_of_{} get_first_{}",
        "ELEMENT | None",
        """
        = the first {noun} in $xs that {singular}, or None
        = the first of the {things} in $xs, or None if there are none
        Find the first {noun} in a list that {singular}; if there is none, return None.
        Search $xs for the first {noun} that {singular}; None if there is no such {noun}.
        """,
        """
        for $x in $xs:
            if TEST:
                return $x
        return None
        ---
        return next(($x for $x in $xs if TEST), None)
        """,
        lambda found: found[0] if found else None,
    ),
    Fold(
        "any({})",
        "any_{} has_{} contains_{} some_{}",
        "bool",
        """
        ? any {noun} in $xs {singular}
        ? at least one of the {nouns} in $xs {singular}
        Tell whether a list contains a {noun} that {singular}.
        """,
        """
        return any(TEST for $x in $xs)
        ---
        for $x in $xs:
            if TEST:
                return True
        return False
        """,
        bool,
    ),
]
NUMBER_FOLDS = [
    *FOLDS,
    Fold(
        "sum(filter({}))",
        "sum_{} sum_of_{} add_{} total_of_{}",
        "int",
        """
        # the sum of the {things} in $xs
        # the sum of the numbers in $xs that {plural}
        Add up the {things} in [$xs|a list|a list of numbers].
        Given a list of numbers, return the sum of those that {plural}.
        """,
        """
        return sum($x for $x in $xs if TEST)
        ---
        $total = 0
        for $x in $xs:
            if TEST:
                $total += $x
        return $total
        """,
        sum,
    ),
    Fold(
        "product(filter({}))",
        "product_of_{} multiply_{} {}_product product_{}",
        "int",
        """
        # the product of the {things} in $xs
        # the product of the numbers in $xs that {plural}
        Multiply the {things} in [$xs|a list|a list of numbers] (1 if there are none).
        Given a list of numbers, return the product of those that {plural}.
        """,
        """
        $result = 1
        for $x in $xs:
            if TEST:
                $result *= $x
        return $result
        ---
        import math
        return math.prod($x for $x in $xs if TEST)
        """,
        math.prod,
    ),
    Fold(
        "max(filter({}))",
        "max_{} largest_{} largest_of_{} biggest_{}",
        "int | None",
        """
        = the largest of the {things} in $xs, or None if there are none
        = the largest number in $xs that {singular}, or None
        Find the largest number in a list that {singular}; None if there is none.
        Find the maximum of the {things} in $xs; without any, return None.
        """,
        """
        return max([$x for $x in $xs if TEST], default=None)
        ---
        $best = None
        for $x in $xs:
            if TEST and ($best is None or $x > $best):
                $best = $x
        return $best
        """,
        lambda found: max(found, default=None),
    ),
    Fold(
        "min(filter({}))",
        "min_{} smallest_{} smallest_of_{} least_{}",
        "int | None",
        """
        = the smallest of the {things} in $xs, or None if there are none
        = the smallest number in $xs that {singular}, or None
        Find the smallest number in a list that {singular}; None if there is none.
        Find the minimum of the {things} in $xs; without any, return None.
        """,
        """
        return min([$x for $x in $xs if TEST], default=None)
        ---
        $best = None
        for $x in $xs:
            if TEST and ($best is None or $x < $best):
                $best = $x
        return $best
        """,
        lambda found: min(found, default=None),
    ),
]
ALL = Fold(
    "all({})",
    "all_{} are_all_{} only_has_{} every_{}",
    "bool",
    """
    ? all {nouns} in $xs {plural}
    ? every {noun} in $xs {singular}
    Tell whether each {noun} in a list {singular}.
    """,
    """
    return all(TEST for $x in $xs)
    ---
    return len([$x for $x in $xs if TEST]) == len($xs)
    ---
    $count = 0
    for $x in $xs:
        if TEST:
            $count += 1
    return $count == len($xs)
    """,
    lambda found: found,
)


def _made(name: str, takes: str, weight: float, **table: Any) -> Family:
    if not takes.startswith("numbers"):  # words are named as such in a loop
        table["bodies"] = table["bodies"].replace("$x", "$w")
    return family(name, takes=takes, held_out=name in HELD_OUT, weight=weight, **table)


def folded(fold: Fold, condition: Condition, xs: str, noun: str) -> Family:
    """Return the family of a fold over what a condition keeps of a list."""
    words = {
        "things": condition.things, "plural": condition.plural, "singular": condition.singular,
        "noun": noun, "nouns": f"{noun}s",
    }  # fmt: skip
    kind = "ints" if noun == "number" else "words"
    element = "int" if noun == "number" else "str"

    def reference(values: list[Any], k: Any = None) -> Any:
        kept = [x for x in values if condition.holds(x, k)]
        return len(kept) == len(values) if fold is ALL else fold.reference(kept)

    return _made(
        fold.name.format(condition.name),
        f"{xs}:{kind} -> {fold.returns.replace('ELEMENT', element)}",
        0.5,
        names=_named(fold.names.replace("{}", "{0}"), condition),
        phrasings=fold.phrasings.format(**words).replace("$xs", f"${xs}"),
        bodies=fold.bodies.replace("TEST", condition.test).replace("$xs", f"${xs}"),
        reference=reference,
        inputs=lists(condition, NUMBERS if noun == "number" else WORDS),
        choices=condition.choices,
    )


def mapped(change: Change, xs: str, noun: str) -> Family:
    """Return the family of a list in which every element has been changed."""
    kind, element = ("ints", "int") if noun == "number" else ("words", "str")

    def reference(values: list[Any], m: Any = None) -> list[Any]:
        return [change.apply(x, m) for x in values]

    return _made(
        f"list(map({change.name}))",
        f"{xs}:{kind} -> list[{element}]",
        0.6,
        names=_named("list_{0} all_{0} make_{0} {0}_of_all", change),
        phrasings=f"""
        = a list of {changed(change, f"{noun}s in ${xs}")}
        {change.verb} every {noun} in [${xs}|a list]{change.after}.
        {change.verb} each {noun} of a list{change.after} and return the new list.
        Return a new list: {change.verb.lower()} each {noun} in ${xs}{change.after}.
        """,
        bodies=f"""
        return [{change.source} for $x in ${xs}]
        ---
        return list(map(lambda $x: {change.source}, ${xs}))
        ---
        $result = []
        for $x in ${xs}:
            $result.append({change.source})
        return $result
        """,
        reference=reference,
        choices=change.choices,
    )


def summed(change: Change) -> Family:
    """Return the family of the sum of changed numbers."""

    def reference(values: list[int], m: Any = None) -> int:
        return sum(change.apply(x, m) for x in values)

    return _made(
        f"sum(map({change.name}))",
        "numbers:ints -> int",
        0.6,
        names=_named("sum_of_{0} sum_{0} add_{0} total_of_{0}", change),
        phrasings=f"""
        # the sum of {changed(change, "numbers in $numbers")}
        # the sum of {changed(change, "elements of $numbers")}
        {change.verb} every number in $numbers{change.after} and add up the results.
        Add up {changed(change, "numbers in a list")}.
        """,
        bodies=f"""
        return sum({change.source} for $x in $numbers)
        ---
        $total = 0
        for $x in $numbers:
            $total += {change.source}
        return $total
        """,
        reference=reference,
        choices=change.choices,
    )


def kept_and_mapped(change: Change, condition: Condition, xs: str, noun: str) -> Family:
    """Return the family of a list of the changed elements for which a condition holds."""
    kind, element = ("ints", "int") if noun == "number" else ("words", "str")

    def reference(values: list[Any], k: Any = None, m: Any = None) -> list[Any]:
        return [change.apply(x, m) for x in values if condition.holds(x, k)]

    return _made(
        f"list(map({change.name}, filter({condition.name})))",
        f"{xs}:{kind} -> list[{element}]",
        0.25,
        names=_named(WORD_NAMES if noun == "word" else NUMBER_NAMES, change, condition),
        phrasings=f"""
        = a list of {changed(change, f"{condition.things} in ${xs}")}
        {change.verb} the {noun}s of a list that {condition.plural}{change.after}; drop the others.
        Keep the {noun}s that {condition.plural} and {_lower(change.verb)} each{change.after}.
        = {changed(change, f"{noun}s in ${xs} that {condition.plural}")}
        """,
        bodies=f"""
        return [{change.source} for $x in ${xs} if {condition.test}]
        ---
        $result = []
        for $x in ${xs}:
            if {condition.test}:
                $result.append({change.source})
        return $result
        """,
        reference=reference,
        inputs=lists(condition, NUMBERS if noun == "number" else WORDS),
        choices={**condition.choices, **change.choices},
    )


def kept_and_summed(change: Change, condition: Condition) -> Family:
    """Return the family of the sum of the changed numbers for which a condition holds."""

    def reference(values: list[int], k: Any = None, m: Any = None) -> int:
        return sum(change.apply(x, m) for x in values if condition.holds(x, k))

    return _made(
        f"sum(map({change.name}, filter({condition.name})))",
        "numbers:ints -> int",
        0.25,
        names=_named(
            "sum_of_{0}_of_{1} sum_{1}_{0} add_{0}_of_{1} total_{0}_of_{1}", change, condition
        ),
        phrasings=f"""
        # the sum of {changed(change, f"{condition.things} in $numbers")}
        Add up {changed(change, f"{condition.things} in a list")}.
        {change.verb} the numbers that {condition.plural}{change.after} and add up the results.
        # the sum of {changed(change, f"numbers that {condition.plural}")}
        """,
        bodies=f"""
        return sum({change.source} for $x in $numbers if {condition.test})
        ---
        $total = 0
        for $x in $numbers:
            if {condition.test}:
                $total += {change.source}
        return $total
        """,
        reference=reference,
        inputs=lists(condition, NUMBERS),
        choices={**condition.choices, **change.choices},
    )


def counted_in_text(condition: Condition) -> Family:
    """Return the family of the number of words of a text for which a condition holds."""

    def reference(text: str, k: Any = None) -> int:
        return sum(condition.holds(word, k) for word in text.split())

    return _made(
        f"count(filter({condition.name}, split))",
        "text:text -> int",
        0.5,
        names=_named("count_words_{0} words_{0} number_of_words_{0} how_many_words_{0}", condition),
        phrasings=f"""
        # the number of words in $text that {condition.plural}
        = how many words of $text {condition.plural}
        Count the {condition.things} in [$text|a sentence|a string].
        Split $text into words and count those that {condition.plural}.
        """,
        bodies=f"""
        return sum(1 for $x in $text.split() if {condition.test})
        ---
        $count = 0
        for $x in $text.split():
            if {condition.test}:
                $count += 1
        return $count
        ---
        return len([$x for $x in $text.split() if {condition.test}])
        """,
        reference=reference,
        inputs=texts(condition),
        choices=condition.choices,
    )


def rejoined(change: Change) -> Family:
    """Return the family of a text in which every word has been changed."""

    def reference(text: str, m: Any = None) -> str:
        return " ".join(change.apply(word, m) for word in text.split())

    return _made(
        f"join(map({change.name}))",
        "text:text -> str",
        0.5,
        names=_named("{0}_words words_{0} {0}_in_text each_word_{0}", change),
        phrasings=f"""
        {change.verb} every word of $text{change.after} and join the results with spaces.
        = {changed(change, "words in $text")}, joined by spaces
        Split a sentence into words, {_lower(change.verb)} each{change.after}, and join them again.
        {change.verb} each word in a string{change.after}, with single spaces between.
        """,
        bodies=f"""
        return " ".join({change.source} for $x in $text.split())
        ---
        return " ".join([{change.source} for $x in $text.split()])
        ---
        $result = []
        for $x in $text.split():
            $result.append({change.source})
        return " ".join($result)
        """,
        reference=reference,
        choices=change.choices,
    )


def kept_and_joined(condition: Condition) -> Family:
    """Return the family of a text reduced to the words for which a condition holds."""

    def reference(text: str, k: Any = None) -> str:
        return " ".join(word for word in text.split() if condition.holds(word, k))

    return _made(
        f"join(filter({condition.name}))",
        "text:text -> str",
        0.5,
        names=_named("keep_words_{0} text_of_words_{0} only_words_{0} join_words_{0}", condition),
        phrasings=f"""
        = the words of $text that {condition.plural}, joined by spaces
        Keep only the {condition.things} of a sentence[, joined by spaces|].
        Remove all words from $text except those that {condition.plural}.
        Split $text, keep the words that {condition.plural}, and join them with spaces.
        """,
        bodies=f"""
        return " ".join($x for $x in $text.split() if {condition.test})
        ---
        $result = []
        for $x in $text.split():
            if {condition.test}:
                $result.append($x)
        return " ".join($result)
        """,
        reference=reference,
        inputs=texts(condition),
        choices=condition.choices,
    )


def _named(pattern: str, *parts: Condition | Change) -> str:
    return pattern.format(*(one.suffix for one in parts))


def _lower(verb: str) -> str:
    return verb[0].lower() + verb[1:]


FAMILIES = [
    *(folded(fold, one, "numbers", "number")
      for fold in [*NUMBER_FOLDS, ALL] for one in NUMBER_CONDITIONS),
    *(folded(fold, one, "words", "word") for fold in [*FOLDS, ALL] for one in WORD_CONDITIONS),
    *(mapped(change, "numbers", "number") for change in NUMBER_CHANGES),
    *(mapped(change, "words", "word") for change in WORD_CHANGES),
    *(summed(change) for change in NUMBER_CHANGES),
    *(kept_and_mapped(change, one, "numbers", "number")
      for change in NUMBER_CHANGES for one in NUMBER_CONDITIONS),
    *(kept_and_mapped(change, one, "words", "word")
      for change in WORD_CHANGES for one in WORD_CONDITIONS),
    *(kept_and_summed(change, one) for change in NUMBER_CHANGES for one in NUMBER_CONDITIONS),
    *(counted_in_text(one) for one in WORD_CONDITIONS),
    *(rejoined(change) for change in WORD_CHANGES),
    *(kept_and_joined(one) for one in WORD_CONDITIONS),
]  # fmt: skip
