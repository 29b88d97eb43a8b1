"""Functions that call themselves, each also as a loop where that is as simple."""

import math
from typing import Any

from qwenkit.programs.family import family


def _flat(nested: Any) -> list[int]:
    return [x for one in nested for x in (_flat(one) if isinstance(one, list) else [one])]


def _depth(nested: Any) -> int:
    return 1 + max(map(_depth, nested), default=0) if isinstance(nested, list) else 0


def _nest(rng: Any, levels: int = 3) -> list[Any]:
    return [
        _nest(rng, levels - 1) if levels > 1 and rng.random() < 0.35 else rng.randint(0, 9)
        for _ in range(rng.randint(0, 3))
    ]


def _hanoi(n: int) -> int:
    return int(2**n - 1)


FAMILIES = [
    family(
        "recursive_sum",
        "recursive_sum sum_recursive rec_sum sum_rec",
        "numbers:ints -> int",
        """
        # the sum of $numbers recursively
        # the sum of a list by recursion
        Add up the numbers of a list without a loop, by recursion.
        Use recursion to return the sum of $numbers.
        """,
        """
        if not $numbers:
            return 0
        return $numbers[0] + $self($numbers[1:])
        ---
        if len($numbers) == 0:
            return 0
        return $numbers[-1] + $self($numbers[:-1])
        """,
        sum,
    ),
    family(
        "recursive_max",
        "recursive_max max_recursive rec_max max_rec",
        "numbers:ints1 -> int",
        """
        = the largest number of a non-empty list, found by recursion
        Find the maximum of $numbers recursively.
        Use recursion to find the largest element of a non-empty list.
        = the maximum of $numbers, without a loop
        """,
        """
        if len($numbers) == 1:
            return $numbers[0]
        $rest = $self($numbers[1:])
        return $numbers[0] if $numbers[0] > $rest else $rest
        ---
        if len($numbers) == 1:
            return $numbers[0]
        return max($numbers[0], $self($numbers[1:]))
        """,
        max,
    ),
    family(
        "recursive_reverse",
        "recursive_reverse reverse_recursive rec_reverse reverse_rec",
        "text:word -> str",
        """
        = $text reversed, by recursion
        Reverse [a string|$text] recursively.
        Use recursion to return a string backwards.
        = the reverse of a string, without a loop
        """,
        """
        if $text == "":
            return ""
        return $self($text[1:]) + $text[0]
        ---
        if len($text) <= 1:
            return $text
        return $text[-1] + $self($text[:-1])
        """,
        lambda text: text[::-1],
    ),
    family(
        "recursive_power",
        "recursive_power power_recursive rec_power power_rec",
        "base:int exponent:small -> int",
        """
        # $base to the power of $exponent by recursion
        Raise $base to a non-negative power recursively.
        Use recursion to compute $base to the power $exponent.
        # the power of a number without a loop or **
        """,
        """
        if $exponent == 0:
            return 1
        return $base * $self($base, $exponent - 1)
        ---
        if $exponent == 0:
            return 1
        $x = $self($base, $exponent // 2)
        if $exponent % 2 == 0:
            return $x * $x
        return $x * $x * $base
        """,
        lambda base, exponent: base**exponent,
        lambda rng: (rng.randint(-4, 9), rng.randint(0, 6)),
    ),
    family(
        "recursive_count",
        "recursive_count count_recursive rec_count count_rec",
        "items:nats target:small -> int",
        """
        # the number of times $target occurs in $items by recursion
        Count the occurrences of a value in a list recursively.
        Use recursion to count how often $target is in $items.
        = how often a value occurs in a list, without a loop
        """,
        """
        if not $items:
            return 0
        if $items[0] == $target:
            return 1 + $self($items[1:], $target)
        return $self($items[1:], $target)
        ---
        if not $items:
            return 0
        return ($items[0] == $target) + $self($items[1:], $target)
        """,
        lambda items, target: items.count(target),
        lambda rng: ([rng.randint(0, 3) for _ in range(rng.randint(0, 6))], rng.randint(0, 3)),
    ),
    family(
        "recursive_palindrome",
        "recursive_palindrome is_palindrome_recursive palindrome_rec rec_palindrome",
        "text:word -> bool",
        """
        ? $text is a palindrome, by recursion
        Check recursively whether a string is a palindrome.
        Use recursion to tell whether $text reads the same backwards.
        Compare the ends of a string and then its inner part: is it a palindrome?
        """,
        """
        if len($text) < 2:
            return True
        if $text[0] != $text[-1]:
            return False
        return $self($text[1:-1])
        ---
        if len($text) <= 1:
            return True
        return $text[0] == $text[-1] and $self($text[1:-1])
        """,
        lambda text: text == text[::-1],
        lambda rng: (rng.choice(("level", "noon", "tea", "", "a", "abca", "radar", "moon")),),
    ),
    family(
        "recursive_digits",
        "recursive_digit_sum digit_sum_recursive sum_digits_rec rec_digit_sum",
        "n:big -> int",
        """
        # the sum of the digits of $n by recursion
        Add up the digits of a number recursively.
        Use recursion to return the sum of the digits of $n.
        # the digit sum of a non-negative integer without a loop
        """,
        """
        if $n < 10:
            return $n
        return $n % 10 + $self($n // 10)
        ---
        if $n == 0:
            return 0
        return $self($n // 10) + $n % 10
        """,
        lambda n: sum(map(int, str(n))),
    ),
    family(
        "digital_root",
        "~digital_root repeated_digit_sum ~single_digit reduce_digits",
        "n:big -> int",
        """
        # the digital root of $n: sum its digits until one digit is left
        Add the digits of $n again and again until the result has one digit.
        Sum the digits of a number, then those of the sum, down to a single digit.
        = the one digit that is left when $n is replaced by its digit sum repeatedly
        """,
        """
        while $n >= 10:
            $n = sum(int($ch) for $ch in str($n))
        return $n
        ---
        if $n < 10:
            return $n
        return $self(sum(int($ch) for $ch in str($n)))
        ---
        while $n > 9:
            $total = 0
            while $n > 0:
                $total += $n % 10
                $n //= 10
            $n = $total
        return $n
        """,
        lambda n: 1 + (n - 1) % 9 if n else 0,
    ),
    family(
        "depth",
        "~depth nesting_depth ~list_depth ~max_depth",
        "nested:ints -> int",
        """
        = how deeply the lists in $nested are nested (a flat list has depth 1)
        # the depth of a nested list; that of a flat list is 1
        Find the depth of a nested list; a list without inner lists has depth 1.
        = the largest number of lists around any place in $nested
        """,
        """
        if not isinstance($nested, list):
            return 0
        return 1 + max([$self($x) for $x in $nested], default=0)
        ---
        $best = 0
        for $x in $nested:
            if isinstance($x, list):
                $best = max($best, $self($x))
        return $best + 1
        """,
        _depth,
        lambda rng: (_nest(rng),),
    ),
    family(
        "deep_flatten",
        "deep_flatten flatten_deep flatten_nested flatten_all",
        "nested:ints -> list[int]",
        """
        = all numbers in $nested, a list nested to any depth, as a flat list
        Flatten a list that is nested to any depth.
        Use recursion to flatten a list of numbers and lists.
        = one flat list with the numbers of $nested in their order
        """,
        """
        $result = []
        for $x in $nested:
            if isinstance($x, list):
                $result.extend($self($x))
            else:
                $result.append($x)
        return $result
        ---
        if not isinstance($nested, list):
            return [$nested]
        $result = []
        for $x in $nested:
            $result += $self($x)
        return $result
        """,
        _flat,
        lambda rng: (_nest(rng),),
    ),
    family(
        "deep_sum",
        "deep_sum sum_nested ~nested_sum sum_deep",
        "nested:ints -> int",
        """
        # the sum of all numbers in $nested, a list nested to any depth
        Add up all numbers of a list that may contain lists, at any depth.
        Use recursion to sum the numbers of a nested list.
        # the total of the numbers in a list of numbers and lists
        """,
        """
        $total = 0
        for $x in $nested:
            if isinstance($x, list):
                $total += $self($x)
            else:
                $total += $x
        return $total
        ---
        if not isinstance($nested, list):
            return $nested
        return sum($self($x) for $x in $nested)
        """,
        lambda nested: sum(_flat(nested)),
        lambda rng: (_nest(rng),),
    ),
    family(
        "count_down_recursive",
        "recursive_countdown countdown_rec count_down_recursive down_to_one",
        "n:small -> list[int]",
        """
        = the list of numbers from $n down to 1, by recursion
        Count down from $n to 1 recursively and return a list.
        Use recursion to list the numbers $n, ..., 2, 1.
        = a list that counts down from $n to 1, made without a loop
        """,
        """
        if $n <= 0:
            return []
        return [$n] + $self($n - 1)
        ---
        if $n == 0:
            return []
        return [$n, *$self($n - 1)]
        """,
        lambda n: list(range(n, 0, -1)),
    ),
    family(
        "hanoi_moves",
        "hanoi_moves hanoi count_hanoi_moves ~tower_moves",
        "n:small -> int",
        """
        # the number of moves for a Tower of Hanoi with $n disks
        = how many moves the Tower of Hanoi needs with $n disks
        Count the moves that solve the Tower of Hanoi with $n disks.
        # the least number of moves for $n disks in the Towers of Hanoi
        """,
        """
        if $n == 0:
            return 0
        return 2 * $self($n - 1) + 1
        ---
        return 2 ** $n - 1
        """,
        _hanoi,
    ),
    family(
        "stairs",
        "climb_stairs ~ways_to_climb count_ways ~stair_ways",
        "n:small -> int",
        """
        # the number of ways to climb $n stairs, 1 or 2 at a time
        = how many ways there are to climb $n steps by ones and twos
        Count the ways to go up $n stairs when each move takes 1 or 2.
        # the number of different sequences of 1s and 2s that add up to $n
        """,
        """
        if $n <= 1:
            return 1
        return $self($n - 1) + $self($n - 2)
        ---
        $x, $y = 1, 1
        for _ in range($n):
            $x, $y = $y, $x + $y
        return $x
        """,
        lambda n: [1, 1, 2, 3, 5, 8, 13, 21, 34][n],
        lambda rng: (rng.randint(0, 8),),
    ),
    family(
        "pascal_row",
        "pascal_row ~pascal ~row_of_pascal binomial_row",
        "n:small -> list[int]",
        """
        = row $n of Pascal's triangle, where row 0 is a list with a single 1
        = the row number $n of Pascal's triangle, counted from 0
        Compute row $n of Pascal's triangle as a list (row 0 has one element).
        = the binomial coefficients of $n as a list
        """,
        """
        $row = [1]
        for _ in range($n):
            $row = [1] + [$x + $y for $x, $y in zip($row, $row[1:])] + [1]
        return $row
        ---
        if $n == 0:
            return [1]
        $rest = $self($n - 1)
        return [1] + [$x + $y for $x, $y in zip($rest, $rest[1:])] + [1]
        ---
        import math
        return [math.comb($n, $i) for $i in range($n + 1)]
        """,
        lambda n: [math.comb(n, i) for i in range(n + 1)],
    ),
]
