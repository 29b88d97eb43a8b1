"""Numbers: sums, digits, divisors, primes, conversions."""

import math

from qwenkit.programs.family import family


def is_prime(n: int) -> bool:
    """Return whether n is prime."""
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


FAMILIES = [
    family(
        "add",
        "add add_numbers sum_two plus add_two_numbers",
        "a:int b:int -> int",
        """
        # the sum of $a and $b
        # the sum of two numbers
        Add [two numbers|the numbers $a and $b][ and return the result|].
        Add $b to $a.
        = $a plus $b
        """,
        """
        return $a + $b
        ---
        $total = $a + $b
        return $total
        """,
        lambda a, b: a + b,
    ),
    family(
        "multiply",
        "multiply ~product times multiply_numbers mul",
        "a:int b:int -> int",
        """
        # the product of $a and $b
        # the product of two numbers
        Multiply $a by $b.
        Multiply [two numbers|$a and $b] and return the result.
        = $a times $b
        """,
        """
        return $a * $b
        ---
        $result = $a * $b
        return $result
        """,
        lambda a, b: a * b,
    ),
    family(
        "subtract",
        "subtract ~difference minus subtract_numbers",
        "a:int b:int -> int",
        """
        # the difference [between|of] $a and $b
        = $a minus $b
        Subtract $b from $a.
        Subtract the second number from the first.
        # what is left when $b is taken from $a
        """,
        """
        return $a - $b
        ---
        $result = $a - $b
        return $result
        """,
        lambda a, b: a - b,
    ),
    family(
        "square",
        "square squared square_number ~square_of",
        "n:int -> int",
        """
        # the square of $n
        # $n squared
        # $n times itself
        Square [the number $n|a number|$n].
        Multiply [$n|a number] by itself.
        """,
        """
        return $n * $n
        ---
        return $n ** 2
        ---
        $result = $n * $n
        return $result
        """,
        lambda n: n * n,
    ),
    family(
        "cube",
        "cube cubed cube_number ~cube_of",
        "n:int -> int",
        """
        # the cube of $n
        # $n to the third power
        # $n cubed
        Cube [the number $n|a number|$n].
        Raise $n to the power of 3.
        """,
        """
        return $n ** 3
        ---
        return $n * $n * $n
        """,
        lambda n: n**3,
    ),
    family(
        "times_k",
        "multiply_by_$k times_$k ~product_with_$k by_$k",
        "n:int -> int",
        """
        = $n multiplied by $k
        # $k times $n
        Multiply [$n|a number|the number $n] by $k.
        Return a number that is $k times as large as $n.
        # the product of $n and $k
        """,
        """
        return $n * $k
        ---
        return $k * $n
        """,
        lambda n, k: n * k,
        choices={"k": (2, 3, 4, 5, 7, 10, 12, 100)},
    ),
    family(
        "plus_k",
        "add_$k plus_$k increase_by_$k raise_by_$k",
        "n:int -> int",
        """
        = $n plus $k
        # the sum of $n and $k
        Add $k to [$n|a number|the number $n].
        Increase [$n|a number] by $k.
        Return a number that is $k more than $n.
        """,
        """
        return $n + $k
        ---
        $result = $n + $k
        return $result
        """,
        lambda n, k: n + k,
        choices={"k": (1, 2, 3, 5, 10, 20, 42, 100)},
    ),
    family(
        "power",
        "~power raise_to pow_int ~exponent to_power",
        "base:int exponent:nat -> int",
        """
        # $base to the power of $exponent
        # $base raised to $exponent
        Raise $base to the power $exponent.
        Compute the power of a number[ for a non-negative exponent|].
        # the product of $exponent factors $base
        """,
        """
        return $base ** $exponent
        ---
        $result = 1
        for _ in range($exponent):
            $result *= $base
        return $result
        """,
        lambda base, exponent: base**exponent,
        lambda rng: (rng.randint(-5, 10), rng.randint(0, 6)),
    ),
    family(
        "absolute",
        "absolute ~absolute_value abs_value magnitude",
        "n:int -> int",
        """
        # the absolute value of $n
        = $n without its sign
        = the distance of $n from zero
        Return $n if it is positive, otherwise -$n.
        Give the absolute value of a number.
        """,
        """
        return abs($n)
        ---
        if $n < 0:
            return -$n
        return $n
        ---
        return $n if $n >= 0 else -$n
        """,
        abs,
    ),
    family(
        "sum_to_n",
        "sum_to_n sum_up_to ~sum_of_first add_up_to sum_range",
        "n:nat -> int",
        """
        # the sum of the numbers from 1 to $n
        # the sum of all integers from 1 up to and including $n
        # 1 + 2 + ... + $n
        Add up the numbers from 1 to $n.
        Return the sum of the first $n positive integers.
        """,
        """
        return sum(range(1, $n + 1))
        ---
        return $n * ($n + 1) // 2
        ---
        $total = 0
        for $i in range(1, $n + 1):
            $total += $i
        return $total
        """,
        lambda n: n * (n + 1) // 2,
    ),
    family(
        "factorial",
        "factorial fact ~factorial_of ~n_factorial",
        "n:nat -> int",
        """
        # the factorial of $n
        # $n factorial
        # the product of the [numbers|integers] from 1 to $n
        Multiply all the numbers from 1 to $n[ and return the result|].
        Return $n!, which is 1 * 2 * ... * $n.
        Given a non-negative integer $n, return its factorial.
        """,
        """
        $result = 1
        for $i in range(2, $n + 1):
            $result *= $i
        return $result
        ---
        if $n <= 1:
            return 1
        return $n * $self($n - 1)
        ---
        $result = 1
        while $n > 1:
            $result *= $n
            $n -= 1
        return $result
        ---
        import math
        return math.factorial($n)
        """,
        math.factorial,
    ),
    family(
        "gcd",
        "gcd ~greatest_common_divisor ~gcd_of ~common_divisor",
        "a:pos b:pos -> int",
        """
        # the greatest common divisor of $a and $b
        = the largest number that divides both $a and $b
        # the gcd of two [positive|] integers
        Use Euclid's algorithm to find the greatest common divisor[ of $a and $b|].
        Return the biggest integer that divides two numbers without a remainder.
        """,
        """
        while $b:
            $a, $b = $b, $a % $b
        return $a
        ---
        import math
        return math.gcd($a, $b)
        ---
        if $b == 0:
            return $a
        return $self($b, $a % $b)
        """,
        math.gcd,
        lambda rng: (rng.randint(1, 9) * (k := rng.randint(1, 9)), rng.randint(1, 9) * k),
    ),
    family(
        "lcm",
        "lcm ~least_common_multiple ~lcm_of ~smallest_common_multiple",
        "a:pos b:pos -> int",
        """
        # the least common multiple of $a and $b
        # the lcm of two [positive|] integers
        = the smallest positive number that both $a and $b divide
        Return the smallest number that is a multiple of both $a and $b.
        Given two positive integers, return their least common multiple.
        """,
        """
        $result = $a
        while $result % $b != 0:
            $result += $a
        return $result
        ---
        import math
        return $a * $b // math.gcd($a, $b)
        ---
        import math
        return math.lcm($a, $b)
        """,
        math.lcm,
    ),
    family(
        "sum_of_digits",
        "~sum_of_digits ~digit_sum sum_digits add_digits",
        "n:big -> int",
        """
        # the sum of the digits of $n
        # the sum of all digits in the [number|integer] $n
        # the digit sum of a non-negative integer
        Add up the digits of [$n|a number].
        Add the digits of $n together[ and return the total|].
        """,
        """
        return sum(int($ch) for $ch in str($n))
        ---
        $total = 0
        while $n > 0:
            $total += $n % 10
            $n //= 10
        return $total
        ---
        $total = 0
        for $ch in str($n):
            $total += int($ch)
        return $total
        """,
        lambda n: sum(map(int, str(n))),
    ),
    family(
        "count_digits",
        "count_digits ~number_of_digits num_digits ~digit_count",
        "n:big -> int",
        """
        # the number of digits in $n
        = how many digits $n has
        # the number of decimal digits of a non-negative integer
        Count the digits of [$n|the number $n|a number].
        Say how many digits the number $n has.
        """,
        """
        return len(str($n))
        ---
        $count = 1
        while $n >= 10:
            $n //= 10
            $count += 1
        return $count
        """,
        lambda n: len(str(n)),
    ),
    family(
        "reverse_number",
        "reverse_number reverse_digits ~reversed_number flip_digits",
        "n:big -> int",
        """
        = $n with its digits reversed
        = the number whose digits are those of $n in reverse order
        Reverse the digits of [$n|a number|the number $n].
        Return the integer that you get by reading $n backwards.
        Turn the digits of a non-negative integer around.
        """,
        """
        return int(str($n)[::-1])
        ---
        $result = 0
        while $n > 0:
            $result = $result * 10 + $n % 10
            $n //= 10
        return $result
        """,
        lambda n: int(str(n)[::-1]),
    ),
    family(
        "digits",
        "~digits digits_of to_digits list_digits split_digits",
        "n:big -> list[int]",
        """
        = the digits of $n as a list
        = a list of the digits of $n
        = a list with each digit of the number $n as an integer
        Split [$n|a number] into its digits.
        Turn a number into a list of digits.
        """,
        """
        return [int($ch) for $ch in str($n)]
        ---
        return list(map(int, str($n)))
        ---
        $result = []
        for $ch in str($n):
            $result.append(int($ch))
        return $result
        """,
        lambda n: [int(one) for one in str(n)],
    ),
    family(
        "is_prime",
        "is_prime prime check_prime is_prime_number",
        "n:int -> bool",
        """
        ? $n is [prime|a prime number]
        ? the number $n is prime
        ? $n has no divisors other than 1 and itself
        Given an integer, say whether it is prime.
        Tell whether [$n|a number] is a prime number.
        """,
        """
        if $n < 2:
            return False
        for $i in range(2, $n):
            if $n % $i == 0:
                return False
        return True
        ---
        if $n < 2:
            return False
        $i = 2
        while $i * $i <= $n:
            if $n % $i == 0:
                return False
            $i += 1
        return True
        ---
        if $n < 2:
            return False
        for $i in range(2, int($n ** 0.5) + 1):
            if $n % $i == 0:
                return False
        return True
        ---
        return $n > 1 and all($n % $i != 0 for $i in range(2, $n))
        """,
        is_prime,
    ),
    family(
        "divisors",
        "~divisors divisors_of ~factors list_divisors",
        "n:pos -> list[int]",
        """
        = a list of [all|the] divisors of $n
        = all numbers that divide $n
        = the divisors of $n in increasing order
        List the numbers from 1 to $n that divide $n[ without a remainder|].
        Return the factors of the positive integer $n as a list.
        """,
        """
        return [$i for $i in range(1, $n + 1) if $n % $i == 0]
        ---
        $result = []
        for $i in range(1, $n + 1):
            if $n % $i == 0:
                $result.append($i)
        return $result
        """,
        lambda n: [d for d in range(1, n + 1) if n % d == 0],
    ),
    family(
        "is_perfect",
        "is_perfect perfect check_perfect is_perfect_number",
        "n:pos -> bool",
        """
        ? $n is a perfect number
        ? $n is equal to the sum of its proper divisors
        ? the divisors of $n that are smaller than $n add up to $n
        Tell whether $n is perfect, that is, the sum of its divisors below $n.
        """,
        """
        return sum($i for $i in range(1, $n) if $n % $i == 0) == $n
        ---
        $total = 0
        for $i in range(1, $n):
            if $n % $i == 0:
                $total += $i
        return $total == $n
        """,
        lambda n: sum(d for d in range(1, n) if n % d == 0) == n,
        lambda rng: (rng.choice((6, 28, 2, 3, 12, 24, rng.randint(2, 40))),),
    ),
    family(
        "primes_up_to",
        "~primes_up_to ~primes list_primes primes_to",
        "n:int -> list[int]",
        """
        = a list of the primes up to $n
        = all prime numbers from 2 to $n
        = the primes that are less than or equal to $n
        List [all|the] prime numbers up to and including $n.
        Find every prime number not greater than $n.
        """,
        """
        $result = []
        for $x in range(2, $n + 1):
            if all($x % $y != 0 for $y in $result):
                $result.append($x)
        return $result
        ---
        $result = []
        for $x in range(2, $n + 1):
            for $y in range(2, $x):
                if $x % $y == 0:
                    break
            else:
                $result.append($x)
        return $result
        ---
        return [$x for $x in range(2, $n + 1) if all($x % $y for $y in range(2, $x))]
        """,
        lambda n: [one for one in range(n + 1) if is_prime(one)],
        lambda rng: (rng.randint(0, 30),),
    ),
    family(
        "prime_factors",
        "~prime_factors prime_factors_of factorize factor",
        "n:pos -> list[int]",
        """
        = the prime factors of $n as a list
        = a list of the prime factors of $n, smallest first
        Factor $n into primes[ and return them as a list|].
        Break the number $n down into its prime factors.
        Return the list of primes whose product is $n.
        """,
        """
        $result = []
        $i = 2
        while $n > 1:
            while $n % $i == 0:
                $result.append($i)
                $n //= $i
            $i += 1
        return $result
        ---
        $result = []
        $i = 2
        while $n > 1:
            if $n % $i == 0:
                $result.append($i)
                $n //= $i
            else:
                $i += 1
        return $result
        """,
        lambda n: _factors(n),
    ),
    family(
        "mean_of_two",
        "~average ~mean ~midpoint average_of_two",
        "a:int b:int -> float",
        """
        # the average of $a and $b
        # the mean of two numbers
        # the number halfway between $a and $b
        Return the number in the middle between $a and $b.
        Take the average of the two numbers $a and $b.
        """,
        """
        return ($a + $b) / 2
        ---
        $total = $a + $b
        return $total / 2
        """,
        lambda a, b: (a + b) / 2,
    ),
    family(
        "hypotenuse",
        "~hypotenuse ~hypotenuse_length pythagoras ~longest_side",
        "a:size b:size -> float",
        """
        # the hypotenuse of a right triangle with legs $a and $b
        # the length of the hypotenuse for the legs $a and $b
        = the longest side of a right triangle whose other sides are $a and $b
        Use the theorem of Pythagoras to find the hypotenuse[ from $a and $b|].
        """,
        """
        return ($a ** 2 + $b ** 2) ** 0.5
        ---
        import math
        return math.sqrt($a * $a + $b * $b)
        ---
        import math
        return math.hypot($a, $b)
        """,
        math.hypot,
        lambda rng: rng.choice(((3, 4), (6, 8), (5, 12), (rng.randint(1, 9), rng.randint(1, 9)))),
    ),
    family(
        "digit_product",
        "~product_of_digits ~digit_product multiply_digits digits_product",
        "n:big -> int",
        """
        # the product of the digits of $n
        # the product of all digits in the number $n
        Multiply the digits of [$n|a number].
        Multiply all digits of $n together.
        """,
        """
        $result = 1
        for $ch in str($n):
            $result *= int($ch)
        return $result
        ---
        import math
        return math.prod(int($ch) for $ch in str($n))
        """,
        lambda n: math.prod(map(int, str(n))),
    ),
]


def _factors(n: int) -> list[int]:
    found, factor = [], 2
    while n > 1:
        while n % factor == 0:
            found.append(factor)
            n //= factor
        factor += 1
    return found
