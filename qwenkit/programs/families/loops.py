"""Loops over numbers: sequences, search, and tables."""

from qwenkit.programs.family import family


def collatz(n: int) -> list[int]:
    """Return the Collatz sequence from n to 1."""
    found = [n]
    while n != 1:
        n = 3 * n + 1 if n % 2 else n // 2
        found.append(n)
    return found


def fibonacci(n: int) -> list[int]:
    """Return the first n Fibonacci numbers."""
    found = [0, 1]
    while len(found) < n:
        found.append(found[-1] + found[-2])
    return found[:n]


FAMILIES = [
    family(
        "fibonacci",
        "fibonacci fib ~fibonacci_number ~nth_fibonacci",
        "n:nat -> int",
        """
        # the $n-th Fibonacci number[, where the first two are 0 and 1|, starting with 0 and 1]
        # the n-th Fibonacci number, counting from F(0) = 0
        # the Fibonacci number at position $n, counted from 0
        Return F($n) of the Fibonacci sequence 0, 1, 1, 2, 3, 5, ...
        Given a non-negative integer $n, return the $n-th Fibonacci number.
        """,
        """
        $x, $y = 0, 1
        for _ in range($n):
            $x, $y = $y, $x + $y
        return $x
        ---
        if $n < 2:
            return $n
        return $self($n - 1) + $self($n - 2)
        ---
        if $n <= 1:
            return $n
        $x, $y = 0, 1
        for _ in range($n - 1):
            $x, $y = $y, $x + $y
        return $y
        """,
        lambda n: fibonacci(n + 1)[n],
    ),
    family(
        "fibonacci_list",
        "fibonacci_list ~first_fibonacci fibonacci_numbers ~fibonacci_sequence",
        "n:nat -> list[int]",
        """
        = a list of the first $n Fibonacci numbers[, starting with 0|]
        = the first $n numbers of the Fibonacci sequence 0, 1, 1, 2, ...
        = the Fibonacci sequence up to its $n-th number, as a list
        List the first $n Fibonacci numbers.
        """,
        """
        $result = []
        $x, $y = 0, 1
        for _ in range($n):
            $result.append($x)
            $x, $y = $y, $x + $y
        return $result
        ---
        $result = [0, 1]
        while len($result) < $n:
            $result.append($result[-1] + $result[-2])
        return $result[:$n]
        """,
        fibonacci,
    ),
    family(
        "collatz_steps",
        "collatz_steps count_collatz_steps ~collatz_length collatz",
        "n:pos -> int",
        """
        # the number of Collatz steps from $n to 1
        = how many steps of the Collatz rule $n needs to reach 1
        Count the steps until $n is 1: halve it if even, else triple it and add 1.
        Count how often n/2 (n even) or 3n+1 (n odd) is applied until $n is 1.
        """,
        """
        $count = 0
        while $n != 1:
            if $n % 2 == 0:
                $n //= 2
            else:
                $n = 3 * $n + 1
            $count += 1
        return $count
        ---
        $count = 0
        while $n > 1:
            $n = $n // 2 if $n % 2 == 0 else 3 * $n + 1
            $count += 1
        return $count
        """,
        lambda n: len(collatz(n)) - 1,
        lambda rng: (rng.choice((1, 2, 3, 6, 7, rng.randint(1, 24))),),
    ),
    family(
        "collatz_sequence",
        "collatz_sequence ~collatz_list collatz_path ~collatz_chain",
        "n:pos -> list[int]",
        """
        = the Collatz sequence from $n to 1 as a list
        = the list of numbers that the Collatz rule visits from $n to 1
        List the Collatz sequence that starts at $n[ and ends with 1|].
        From $n, halve even numbers and map odd ones to 3n+1; list all up to 1.
        """,
        """
        $result = [$n]
        while $n != 1:
            if $n % 2 == 0:
                $n //= 2
            else:
                $n = 3 * $n + 1
            $result.append($n)
        return $result
        ---
        $result = []
        while $n > 1:
            $result.append($n)
            $n = 3 * $n + 1 if $n % 2 else $n // 2
        $result.append(1)
        return $result
        """,
        collatz,
        lambda rng: (rng.choice((1, 2, 3, 6, rng.randint(1, 16))),),
    ),
    family(
        "fizzbuzz",
        "fizzbuzz fizz_buzz fizzbuzz_list play_fizzbuzz",
        "n:nat -> list[str]",
        """
        = the FizzBuzz words for 1 to $n as a list of strings
        = a list with "Fizz", "Buzz", "FizzBuzz" or the number as text, from 1 to $n
        Play FizzBuzz from 1 to $n and return the words as a list.
        List 1 to $n as strings, with Fizz for multiples of 3 and Buzz for 5.
        """,
        """
        $result = []
        for $i in range(1, $n + 1):
            if $i % 15 == 0:
                $result.append("FizzBuzz")
            elif $i % 3 == 0:
                $result.append("Fizz")
            elif $i % 5 == 0:
                $result.append("Buzz")
            else:
                $result.append(str($i))
        return $result
        ---
        $result = []
        for $i in range(1, $n + 1):
            $w = ""
            if $i % 3 == 0:
                $w += "Fizz"
            if $i % 5 == 0:
                $w += "Buzz"
            $result.append($w or str($i))
        return $result
        """,
        lambda n: [
            "Fizz" * (i % 3 == 0) + "Buzz" * (i % 5 == 0) or str(i) for i in range(1, n + 1)
        ],
        lambda rng: (rng.choice((0, 3, 5, 15, 16)),),
    ),
    family(
        "count_down",
        "count_down countdown countdown_list ~numbers_down",
        "n:nat -> list[int]",
        """
        = a list of the numbers from $n down to 1
        = the numbers from $n to 1 in decreasing order
        Count down from $n to 1[ and return the numbers as a list|].
        List the integers $n, ..., 2, 1.
        """,
        """
        return list(range($n, 0, -1))
        ---
        $result = []
        while $n > 0:
            $result.append($n)
            $n -= 1
        return $result
        ---
        return [$i for $i in range($n, 0, -1)]
        """,
        lambda n: list(range(n, 0, -1)),
    ),
    family(
        "evens_up_to",
        "~evens_up_to ~even_numbers list_evens evens",
        "n:nat -> list[int]",
        """
        = a list of the even numbers from 0 to $n
        = all even numbers from 0 up to and including $n
        List the even numbers that are not negative and not greater than $n.
        = every second number from 0 to $n, starting with 0
        """,
        """
        return list(range(0, $n + 1, 2))
        ---
        return [$i for $i in range($n + 1) if $i % 2 == 0]
        ---
        $result = []
        for $i in range($n + 1):
            if $i % 2 == 0:
                $result.append($i)
        return $result
        """,
        lambda n: list(range(0, n + 1, 2)),
    ),
    family(
        "odds_up_to",
        "~odds_up_to ~odd_numbers list_odds odds",
        "n:nat -> list[int]",
        """
        = a list of the odd numbers from 1 to $n
        = all odd numbers from 1 up to and including $n
        List the odd positive numbers that are not greater than $n.
        = every second number from 1 to $n, starting with 1
        """,
        """
        return list(range(1, $n + 1, 2))
        ---
        return [$i for $i in range(1, $n + 1) if $i % 2 == 1]
        ---
        $result = []
        for $i in range(1, $n + 1, 2):
            $result.append($i)
        return $result
        """,
        lambda n: list(range(1, n + 1, 2)),
    ),
    family(
        "times_table",
        "~times_table multiplication_table table_of ~multiples",
        "n:int k:small -> list[int]",
        """
        = the first $k multiples of $n as a list
        = a list of $n times 1, $n times 2 and so on, up to $n times $k
        List the products of $n with 1 to $k.
        = the multiplication table of $n up to $k times $n
        """,
        """
        return [$n * $i for $i in range(1, $k + 1)]
        ---
        $result = []
        for $i in range(1, $k + 1):
            $result.append($n * $i)
        return $result
        """,
        lambda n, k: [n * i for i in range(1, k + 1)],
        lambda rng: (rng.randint(1, 12), rng.randint(0, 6)),
    ),
    family(
        "sum_of_squares_to",
        "sum_of_squares_to sum_squares_up_to ~sum_of_squares squares_sum",
        "n:nat -> int",
        """
        # the sum of the squares from 1 to $n
        # the sum of the squares of the numbers from 1 to $n
        # 1*1 + 2*2 + ... + $n*$n
        Add up the squares of the first $n positive integers.
        """,
        """
        return sum($i * $i for $i in range(1, $n + 1))
        ---
        $total = 0
        for $i in range(1, $n + 1):
            $total += $i ** 2
        return $total
        """,
        lambda n: sum(i * i for i in range(1, n + 1)),
    ),
    family(
        "sum_multiples",
        "sum_multiples sum_of_multiples add_multiples ~multiples_sum",
        "n:pos -> int",
        """
        # the sum of all multiples of $k or $j below $n
        # the sum of the positive numbers below $n that are divisible by $k or $j
        Add up all numbers less than $n that $k or $j divides.
        Sum the natural numbers below $n which are multiples of $k or $j.
        """,
        """
        return sum($i for $i in range($n) if $i % $k == 0 or $i % $j == 0)
        ---
        $total = 0
        for $i in range(1, $n):
            if $i % $k == 0 or $i % $j == 0:
                $total += $i
        return $total
        """,
        lambda n, j, k: sum(i for i in range(n) if i % k == 0 or i % j == 0),
        choices={"k": (3, 4, 6), "j": (5, 7, 10)},
    ),
    family(
        "smallest_divisor",
        "~smallest_divisor ~least_factor ~first_divisor ~smallest_factor",
        "n:pos -> int",
        """
        = the smallest divisor of $n that is greater than 1
        = the smallest number above 1 that divides $n
        # the least factor of $n other than 1
        Given an integer above 1, return its smallest divisor above 1.
        """,
        """
        $i = 2
        while $n % $i != 0:
            $i += 1
        return $i
        ---
        for $i in range(2, $n + 1):
            if $n % $i == 0:
                return $i
        ---
        return next($i for $i in range(2, $n + 1) if $n % $i == 0)
        """,
        lambda n: next(i for i in range(2, n + 1) if n % i == 0),
        lambda rng: (rng.randint(2, 60),),
    ),
    family(
        "halvings",
        "count_halvings halvings times_halved ~halving_steps",
        "n:pos -> int",
        """
        = how often $n can be halved until it is 1, rounding down
        # the number of times $n can be divided by 2 (rounded down) before it is 1
        Count how many times $n is halved, rounding down, until 1 is left.
        Count the integer divisions by 2 that take $n to 1.
        """,
        """
        $count = 0
        while $n > 1:
            $n //= 2
            $count += 1
        return $count
        ---
        return $n.bit_length() - 1
        """,
        lambda n: n.bit_length() - 1,
    ),
    family(
        "to_binary",
        "to_binary ~binary int_to_binary ~binary_string",
        "n:nat -> str",
        """
        = the binary digits of $n as a string
        = $n written in binary
        Convert [a non-negative integer|$n] to a binary string.
        Write $n in base 2[, as a string|].
        """,
        """
        if $n == 0:
            return "0"
        $result = ""
        while $n > 0:
            $result = str($n % 2) + $result
            $n //= 2
        return $result
        ---
        return f"{$n:b}"
        ---
        return bin($n)[2:]
        """,
        lambda n: f"{n:b}",
        lambda rng: (rng.randint(0, 70),),
    ),
    family(
        "from_binary",
        "from_binary binary_to_int parse_binary ~binary_value",
        "digits:word -> int",
        """
        # the number that a string of binary digits stands for
        = the integer written in binary in $digits
        Convert a binary string[ such as "101"|] to an integer.
        Turn a string of 0s and 1s into the number it means in base 2.
        """,
        """
        return int($digits, 2)
        ---
        $result = 0
        for $ch in $digits:
            $result = $result * 2 + int($ch)
        return $result
        """,
        lambda digits: int(digits, 2),
        lambda rng: (f"{rng.randint(0, 70):b}",),
    ),
    family(
        "triangle_stars",
        "~triangle star_triangle ~stars draw_triangle",
        "n:small -> str",
        """
        = a triangle of $n lines, with one star in the first line, then two, and so on
        = a string with $n lines: one "*", then "**", and so on
        Draw a triangle of stars with $n rows[ as one string|].
        Return rows of 1 to $n stars, joined by newlines.
        """,
        """
        return "\\n".join("*" * $i for $i in range(1, $n + 1))
        ---
        $parts = []
        for $i in range(1, $n + 1):
            $parts.append("*" * $i)
        return "\\n".join($parts)
        """,
        lambda n: "\n".join("*" * i for i in range(1, n + 1)),
    ),
    family(
        "is_power_of_two",
        "is_power_of_two power_of_two check_power_of_two is_power_of_2",
        "n:int -> bool",
        """
        ? $n is a power of two
        ? $n is 1, 2, 4, 8 or another power of 2
        ? the integer $n is a power of 2
        Tell whether $n can be written as 2 to some non-negative power.
        """,
        """
        if $n < 1:
            return False
        while $n % 2 == 0:
            $n //= 2
        return $n == 1
        ---
        return $n > 0 and $n & ($n - 1) == 0
        ---
        $x = 1
        while $x < $n:
            $x *= 2
        return $x == $n
        """,
        lambda n: n > 0 and n & (n - 1) == 0,
        lambda rng: (rng.choice((2 ** rng.randint(0, 7), rng.randint(-4, 40))),),
    ),
    family(
        "is_perfect_square",
        "is_perfect_square is_square perfect_square check_square",
        "n:nat -> bool",
        """
        ? $n is a perfect square
        ? $n is the square of an integer
        ? the square root of $n is an integer
        Tell whether a non-negative integer is the square of another.
        """,
        """
        $i = 0
        while $i * $i < $n:
            $i += 1
        return $i * $i == $n
        ---
        import math
        return math.isqrt($n) ** 2 == $n
        ---
        return any($i * $i == $n for $i in range($n + 1))
        """,
        lambda n: int(n**0.5) ** 2 == n,
        lambda rng: (rng.choice((rng.randint(0, 12) ** 2, rng.randint(0, 99))),),
    ),
]
