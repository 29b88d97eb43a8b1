"""Errors: raised for wrong arguments, or caught with a value in their place."""

import math
from typing import Any

from qwenkit.programs.family import family


def _int_or(text: str, other: Any) -> Any:
    try:
        return int(text)
    except ValueError:
        return other


def _refuse(wrong: bool, value: Any) -> Any:
    if wrong:
        raise ValueError
    return value() if callable(value) else value


def number_text(rng: Any) -> str:
    """Return text that is an integer, or is not."""
    return str(rng.choice((str(rng.randint(-99, 999)), "abc", "", "4x", "12", "three", "-7")))


FAMILIES = [
    family(
        "safe_divide",
        "safe_divide divide_or_none safe_division try_divide",
        "a:int b:int -> float | None",
        """
        = $a divided by $b, or None if $b is zero
        Divide $a by $b; return None when $b is 0.
        = the quotient of two numbers, or None for a division by zero
        Divide two numbers safely: the result is None if the divisor is zero.
        """,
        """
        if $b == 0:
            return None
        return $a / $b
        ---
        try:
            return $a / $b
        except ZeroDivisionError:
            return None
        ---
        return $a / $b if $b != 0 else None
        """,
        lambda a, b: a / b if b else None,
        lambda rng: (rng.randint(-20, 40), rng.choice((0, 1, 2, 4, 5, -2))),
    ),
    family(
        "divide_or_default",
        "divide_or_$k safe_divide divide quotient_or_$k",
        "a:int b:int -> float",
        """
        = $a divided by $b, or $k if $b is zero
        Divide $a by $b; return $k when $b is 0.
        = the quotient of two numbers, and $k for a division by zero
        Divide two numbers; the result is $k if the divisor is zero.
        """,
        """
        if $b == 0:
            return $k
        return $a / $b
        ---
        try:
            return $a / $b
        except ZeroDivisionError:
            return $k
        """,
        lambda a, b, k: a / b if b else k,
        lambda rng: (rng.randint(-20, 40), rng.choice((0, 1, 2, 4, 5, -2))),
        choices={"k": (0, 1)},
    ),
    family(
        "divide_or_raise",
        "divide checked_divide strict_divide ~quotient",
        "a:int b:int -> float",
        """
        Divide $a by $b and raise ValueError if $b is zero.
        = $a divided by $b; a ValueError is raised if $b is 0
        Divide two numbers, but raise ValueError for a zero divisor.
        = the quotient of two numbers, with a ValueError for division by zero
        """,
        """
        if $b == 0:
            raise ValueError("division by zero")
        return $a / $b
        ---
        if not $b:
            raise ValueError("cannot divide by zero")
        return $a / $b
        """,
        lambda a, b: _refuse(b == 0, lambda: a / b),
        lambda rng: (rng.randint(-20, 40), rng.choice((0, 1, 2, 4, 5, -2))),
        raises=(ValueError,),
    ),
    family(
        "parse_int",
        "parse_int to_int int_or_default safe_int",
        "text:text default:int=0 -> int",
        """
        = $text as an integer, or $default if it is not one
        Convert [a string|$text] to an integer; if that fails, return $default.
        Parse an integer and return $default for text that is not a number.
        = the integer that $text stands for, otherwise $default
        """,
        """
        try:
            return int($text)
        except ValueError:
            return $default
        ---
        try:
            $result = int($text)
        except ValueError:
            return $default
        return $result
        """,
        lambda text, default=0: _int_or(text, default),
        lambda rng: (number_text(rng), -1)[: rng.randint(1, 2)],
    ),
    family(
        "parse_int_or_none",
        "parse_int int_or_none try_int to_int_or_none",
        "text:text -> int | None",
        """
        = $text as an integer, or None if it is not one
        Convert [a string|$text] to an integer; return None if that fails.
        Parse an integer, with None for text that is not a number.
        = the integer that $text stands for, otherwise None
        """,
        """
        try:
            return int($text)
        except ValueError:
            return None
        ---
        try:
            $result = int($text)
        except ValueError:
            return None
        return $result
        """,
        lambda text: _int_or(text, None),
        lambda rng: (number_text(rng),),
    ),
    family(
        "parse_named",
        "parse_$k read_$k ~$k_from_text to_$k",
        "text:text -> int | None",
        """
        = $text as an integer $k, or None if it is not one
        Convert $text to an integer, the $k; return None if that fails.
        Read the $k in $text: an integer, or None for text that is not a number.
        = the $k that $text stands for, otherwise None
        """,
        """
        try:
            $k = int($text)
        except ValueError:
            return None
        return $k
        ---
        try:
            $k = int($text)
        except ValueError:
            return None
        else:
            return $k
        ---
        try:
            $k = int($text)
        except ValueError:
            $k = None
        return $k
        """,
        lambda text: _int_or(text, None),
        lambda rng: (number_text(rng),),
        choices={"k": ("port", "age", "year", "level", "page", "count", "score", "size", "number")},
        weight=6.0,
    ),
    family(
        "is_integer_text",
        "is_integer is_int_text can_parse_int looks_like_int",
        "text:text -> bool",
        """
        ? $text can be converted to an integer
        ? the string $text is a valid integer
        ? int($text) works without an error
        Tell whether a string stands for an integer.
        """,
        """
        try:
            int($text)
        except ValueError:
            return False
        return True
        ---
        try:
            int($text)
            return True
        except ValueError:
            return False
        """,
        lambda text: _int_or(text, None) is not None,
        lambda rng: (number_text(rng),),
    ),
    family(
        "sum_valid",
        "sum_valid sum_numbers_in add_valid total_of_valid",
        "words:words -> int",
        """
        # the sum of the strings in $words that are integers; skip the others
        Add up the strings that can be converted to integers and skip the rest.
        # the total of the valid integers in a list of strings
        Convert strings to integers, ignore those that fail, and return the sum.
        """,
        """
        $total = 0
        for $w in $words:
            try:
                $total += int($w)
            except ValueError:
                continue
        return $total
        ---
        $total = 0
        for $w in $words:
            try:
                $total += int($w)
            except ValueError:
                pass
        return $total
        """,
        lambda words: sum(_int_or(word, 0) for word in words),
        lambda rng: ([number_text(rng) for _ in range(rng.randint(0, 5))],),
    ),
    family(
        "check_positive",
        "check_positive require_positive ensure_positive must_be_positive",
        "n:int -> int",
        """
        = $n, but raise ValueError if it is not positive
        Raise ValueError if $n is zero or negative, otherwise return $n.
        Make sure that a number is positive: return it or raise ValueError.
        = the number $n if it is greater than zero, else raise ValueError
        """,
        """
        if $n <= 0:
            raise ValueError("not positive")
        return $n
        ---
        if $n > 0:
            return $n
        raise ValueError(f"{$n} is not positive")
        """,
        lambda n: _refuse(n <= 0, n),
        lambda rng: (rng.randint(-5, 9),),
        raises=(ValueError,),
    ),
    family(
        "sqrt_or_raise",
        "square_root checked_sqrt safe_sqrt ~root",
        "n:int -> float",
        """
        # the square root of $n; raise ValueError if $n is negative
        # the square root of a number, with a ValueError for a negative one
        Raise ValueError for a negative $n, otherwise return its square root.
        Take the square root of $n and refuse negative numbers with ValueError.
        """,
        """
        if $n < 0:
            raise ValueError("negative number")
        return $n ** 0.5
        ---
        import math
        if $n < 0:
            raise ValueError("must not be negative")
        return math.sqrt($n)
        """,
        lambda n: _refuse(n < 0, lambda: n**0.5),
        lambda rng: (rng.choice((rng.randint(0, 9) ** 2, rng.randint(-9, 9))),),
        raises=(ValueError,),
    ),
    family(
        "factorial_or_raise",
        "factorial checked_factorial fact safe_factorial",
        "n:int -> int",
        """
        # the factorial of $n; raise ValueError if $n is negative
        Raise ValueError for a negative $n, otherwise return $n factorial.
        # the factorial of an integer, with a ValueError for negative ones
        Multiply the numbers from 1 to $n; negative $n raises ValueError.
        """,
        """
        if $n < 0:
            raise ValueError("n must not be negative")
        $result = 1
        for $i in range(2, $n + 1):
            $result *= $i
        return $result
        ---
        if $n < 0:
            raise ValueError("negative number")
        if $n <= 1:
            return 1
        return $n * $self($n - 1)
        """,
        lambda n: _refuse(n < 0, lambda: math.factorial(n)),
        lambda rng: (rng.randint(-3, 9),),
        raises=(ValueError,),
    ),
    family(
        "average_or_raise",
        "average checked_mean ~mean strict_average",
        "numbers:ints -> float",
        """
        # the average of $numbers; raise ValueError if the list is empty
        Raise ValueError for an empty list, otherwise return its average.
        # the mean of a list of numbers, with a ValueError for an empty one
        Average the numbers; an empty list raises ValueError.
        """,
        """
        if not $numbers:
            raise ValueError("no numbers")
        return sum($numbers) / len($numbers)
        ---
        if len($numbers) == 0:
            raise ValueError("the list is empty")
        return sum($numbers) / len($numbers)
        """,
        lambda numbers: _refuse(not numbers, lambda: sum(numbers) / len(numbers)),
        raises=(ValueError,),
    ),
    family(
        "max_or_none",
        "max_or_none largest_or_none safe_max maximum_or_none",
        "numbers:ints -> int | None",
        """
        = the largest number in $numbers, or None if the list is empty
        Find the maximum of a list; an empty list gives None.
        = the maximum of $numbers, and None for an empty list
        Return None if there are no numbers, otherwise the largest one.
        """,
        """
        if not $numbers:
            return None
        return max($numbers)
        ---
        return max($numbers) if $numbers else None
        ---
        return max($numbers, default=None)
        ---
        $best = None
        for $x in $numbers:
            if $best is None or $x > $best:
                $best = $x
        return $best
        """,
        lambda numbers: max(numbers, default=None),
    ),
    family(
        "first_or_none",
        "first_or_none safe_first first_or_default head_or_none",
        "items:ints -> int | None",
        """
        = the first element of $items, or None if there is none
        Return None for an empty list, otherwise its first element.
        = the first item of a list, and None if the list is empty
        Get the first item of $items without an error for an empty list: None.
        """,
        """
        if $items:
            return $items[0]
        return None
        ---
        return $items[0] if $items else None
        ---
        try:
            return $items[0]
        except IndexError:
            return None
        """,
        lambda items: items[0] if items else None,
    ),
    family(
        "get_item",
        "get_item safe_get item_or_default at_index",
        "items:ints n:int -> int | None",
        """
        = the element of $items at index $n, or None if there is no such index
        Get $items[$n], but None if the index is too large.
        = the item at a position of a list, and None past its end
        Look up an element by its index and return None where an IndexError comes.
        """,
        """
        try:
            return $items[$n]
        except IndexError:
            return None
        ---
        if $n < len($items):
            return $items[$n]
        return None
        """,
        lambda items, n: items[n] if n < len(items) else None,
        lambda rng: ([rng.randint(0, 9) for _ in range(rng.randint(0, 5))], rng.randint(0, 6)),
    ),
    family(
        "validate_age",
        "validate_age check_age parse_age require_age",
        "age:int -> int",
        """
        = $age, but raise ValueError if it is below 0 or above $k
        Raise ValueError unless $age is between 0 and $k; return it otherwise.
        Check that an age is from 0 to $k: return it or raise ValueError.
        = the age if it lies in the range from 0 to $k, else raise ValueError
        """,
        """
        if $age < 0 or $age > $k:
            raise ValueError("invalid age")
        return $age
        ---
        if not 0 <= $age <= $k:
            raise ValueError(f"{$age} is not a valid age")
        return $age
        """,
        lambda age, k: _refuse(not 0 <= age <= k, age),
        lambda rng, k: (rng.choice((-1, 0, k, k + 1, rng.randint(-9, k + 30))),),
        choices={"k": (100, 120, 130, 150)},
        raises=(ValueError,),
    ),
    family(
        "error_name",
        "error_name name_of_error try_int_error classify_error",
        "text:text -> str",
        """
        Convert $text to an integer; return "ok", or "error" if that fails.
        = "ok" if int($text) works, otherwise "error"
        Try to parse an integer and return "ok" or "error".
        Say "ok" for a string that is an integer and "error" for another.
        """,
        """
        try:
            int($text)
        except ValueError:
            return "error"
        return "ok"
        ---
        try:
            int($text)
        except ValueError:
            return "error"
        else:
            return "ok"
        """,
        lambda text: "error" if _int_or(text, None) is None else "ok",
        lambda rng: (number_text(rng),),
    ),
]
