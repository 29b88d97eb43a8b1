"""The parts of compositions: conditions and changes of single numbers and words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Condition(NamedTuple):
    """What a number or a word may be.

    Attributes:
        name: in the names of families, as "even".
        suffix: in the names of functions.
        plural: after "the numbers that", as "are even".
        singular: after "a number that", as "is even".
        things: what such numbers are called, as "even numbers".
        test: Python over $x.
        holds: the same as a function of the value and, where there is one, of the choice.
        choices: as those of a family.
    """

    name: str
    suffix: str
    plural: str
    singular: str
    things: str
    test: str
    holds: Callable[..., bool]
    choices: Mapping[str, Sequence[Any]] = {}


class Change(NamedTuple):
    """What is made of a number or a word.

    Attributes:
        name: in the names of families, as "square".
        suffix: in the names of functions, as "squares".
        things: before "of the numbers", as "squares"; or
        each: after "the numbers, each", as "doubled".
        verb: before "every number", as "Square".
        after: what follows there, as "by $m".
        source: Python over $x.
        apply: the same as a function.
        choices: as those of a family.
    """

    name: str
    suffix: str
    things: str
    each: str
    verb: str
    after: str
    source: str
    apply: Callable[..., Any]
    choices: Mapping[str, Sequence[Any]] = {}


NUMBER_CONDITIONS = [
    Condition("even", "even", "are even", "is even", "even numbers", "$x % 2 == 0",
              lambda x, k: x % 2 == 0),
    Condition("odd", "odd", "are odd", "is odd", "odd numbers", "$x % 2 == 1",
              lambda x, k: x % 2 == 1),
    Condition("positive", "positive", "are positive", "is positive", "positive numbers", "$x > 0",
              lambda x, k: x > 0),
    Condition("negative", "negative", "are negative", "is negative", "negative numbers", "$x < 0",
              lambda x, k: x < 0),
    Condition("above", "above_$k", "are greater than $k", "is greater than $k",
              "numbers greater than $k", "$x > $k", lambda x, k: x > k,
              {"k": (2, 3, 4, 5, 6, 7, 8, 10)}),
    Condition("below", "below_$k", "are less than $k", "is less than $k",
              "numbers less than $k", "$x < $k", lambda x, k: x < k,
              {"k": (2, 3, 4, 5, 6, 7, 8, 10)}),
    Condition("multiple", "multiples_of_$k", "are divisible by $k", "is divisible by $k",
              "multiples of $k", "$x % $k == 0", lambda x, k: x % k == 0,
              {"k": (3, 4, 5, 6, 7, 10)}),
    Condition("nonzero", "nonzero", "are not zero", "is not zero", "nonzero numbers", "$x != 0",
              lambda x, k: x != 0),
]  # fmt: skip
LETTERS = ("a", "b", "c", "e", "m", "n", "p", "r", "s", "t")
WORD_CONDITIONS = [
    Condition("longer", "longer_than_$k", "are longer than $k letters",
              "is longer than $k letters", "words longer than $k letters", "len($x) > $k",
              lambda x, k: len(x) > k, {"k": (2, 3, 4, 5)}),
    Condition("shorter", "shorter_than_$k", "are shorter than $k letters",
              "is shorter than $k letters", "words shorter than $k letters", "len($x) < $k",
              lambda x, k: len(x) < k, {"k": (3, 4, 5, 6)}),
    Condition("of_length", "with_$k_letters", "have exactly $k letters", "has exactly $k letters",
              "words of $k letters", "len($x) == $k", lambda x, k: len(x) == k,
              {"k": (2, 3, 4, 5)}),
    Condition("starts", "starting_with_$k", 'start with "$k"', 'starts with "$k"',
              'words starting with "$k"', '$x.startswith("$k")', lambda x, k: x.startswith(k),
              {"k": LETTERS}),
    Condition("ends", "ending_in_$k", 'end with "$k"', 'ends with "$k"',
              'words ending with "$k"', '$x.endswith("$k")', lambda x, k: x.endswith(k),
              {"k": LETTERS}),
    Condition("contains", "containing_$k", 'contain "$k"', 'contains "$k"', 'words containing "$k"',
              '"$k" in $x', lambda x, k: k in x, {"k": LETTERS}),
    Condition("capitalized", "capitalized", "start with a capital letter",
              "starts with a capital letter", "capitalized words", "$x[0].isupper()",
              lambda x, k: x[0].isupper()),
    Condition("palindrome", "palindromes", "are palindromes", "is a palindrome", "palindromes",
              "$x == $x[::-1]", lambda x, k: x == x[::-1]),
]  # fmt: skip
NUMBER_CHANGES = [
    Change("square", "squares", "squares", "", "Square", "", "$x * $x", lambda x, m: x * x),
    Change("cube", "cubes", "cubes", "", "Cube", "", "$x ** 3", lambda x, m: x**3),
    Change("double", "doubles", "", "doubled", "Double", "", "2 * $x", lambda x, m: 2 * x),
    Change("absolute", "absolute_values", "absolute values", "", "Take the absolute value of", "",
           "abs($x)", lambda x, m: abs(x)),
    Change("negate", "negatives", "", "with its sign changed", "Change the sign of", "", "-$x",
           lambda x, m: -x),
    Change("last_digit", "last_digits", "last digits", "", "Take the last digit of", "",
           "abs($x) % 10", lambda x, m: abs(x) % 10),
    Change("times", "products_with_$m", "", "multiplied by $m", "Multiply", " by $m", "$x * $m",
           lambda x, m: x * m, {"m": (2, 3, 4, 5, 10)}),
    Change("plus", "sums_with_$m", "", "increased by $m", "Increase", " by $m", "$x + $m",
           lambda x, m: x + m, {"m": (1, 2, 3, 5, 10)}),
]  # fmt: skip
WORD_CHANGES = [
    Change("upper", "upper", "", "in upper case", "Convert", " to uppercase", "$x.upper()",
           lambda x, m: x.upper()),
    Change("lower", "lower", "", "in lower case", "Convert", " to lowercase", "$x.lower()",
           lambda x, m: x.lower()),
    Change("reverse", "reversed", "", "reversed", "Reverse", "", "$x[::-1]",
           lambda x, m: x[::-1]),
    Change("first", "first_letters", "first letters", "", "Take the first letter of", "", "$x[0]",
           lambda x, m: x[0]),
    Change("last", "last_letters", "last letters", "", "Take the last letter of", "", "$x[-1]",
           lambda x, m: x[-1]),
    Change("capitalize", "capitalized", "", "capitalized", "Capitalize", "", "$x.capitalize()",
           lambda x, m: x.capitalize()),
    Change("twice", "doubled", "", "written twice", "Repeat", " twice", "$x * 2",
           lambda x, m: x * 2),
]  # fmt: skip


def changed(change: Change, things: str) -> str:
    """Return the words for changed things.

    >>> changed(NUMBER_CHANGES[0], "odd numbers"), changed(NUMBER_CHANGES[2], "odd numbers")
    ('the squares of the odd numbers', 'the odd numbers, each doubled')
    """
    if change.things:
        return f"the {change.things} of the {things}"
    return f"the {things}, each {change.each}"
