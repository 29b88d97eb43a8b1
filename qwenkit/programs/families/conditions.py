"""Decisions: predicates of numbers, comparisons, and words for cases."""

import calendar

from qwenkit.programs.family import family

FAMILIES = [
    family(
        "is_even",
        "is_even check_even even is_even_number",
        "n:int -> bool",
        """
        ? $n is even
        ? [the number $n|a number|the integer $n] is even
        ? $n is divisible by 2
        ? $n can be divided by 2 without a remainder
        Given an integer, say whether it is even.
        Tell whether [$n|a number|an integer] is an even number.
        """,
        """
        return $n % 2 == 0
        ---
        if $n % 2 == 0:
            return True
        return False
        ---
        return not $n % 2
        ---
        if $n % 2 == 0:
            return True
        else:
            return False
        """,
        lambda n: n % 2 == 0,
    ),
    family(
        "is_odd",
        "is_odd check_odd odd is_odd_number",
        "n:int -> bool",
        """
        ? $n is odd
        ? [the number $n|a number|the integer $n] is odd
        ? $n is not divisible by 2
        ? $n leaves a remainder when divided by 2
        Given an integer, say whether it is odd.
        Tell whether [$n|a number|an integer] is an odd number.
        """,
        """
        return $n % 2 == 1
        ---
        return $n % 2 != 0
        ---
        if $n % 2 == 1:
            return True
        return False
        """,
        lambda n: n % 2 == 1,
    ),
    family(
        "is_divisible_by_k",
        "is_divisible_by_$k divisible_by_$k is_multiple_of_$k multiple_of_$k",
        "n:int -> bool",
        """
        ? $n is divisible by $k
        ? $n is a multiple of $k
        ? the number $n can be divided by $k without a remainder
        Given an integer, say whether it is divisible by $k.
        Tell whether $k divides $n.
        """,
        """
        return $n % $k == 0
        ---
        if $n % $k == 0:
            return True
        return False
        """,
        lambda n, k: n % k == 0,
        lambda rng, k: (rng.choice((k * rng.randint(-3, 9), rng.randint(-20, 60))),),
        choices={"k": (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)},
    ),
    family(
        "is_divisible",
        "is_divisible divisible is_multiple check_divisible",
        "a:int b:one -> bool",
        """
        ? $a is divisible by $b
        ? $a is a multiple of $b
        ? $b divides $a
        Given two integers, say whether the first is divisible by the second.
        Tell whether $a can be divided by $b without a remainder.
        """,
        """
        return $a % $b == 0
        ---
        if $a % $b == 0:
            return True
        return False
        """,
        lambda a, b: a % b == 0,
    ),
    family(
        "is_positive",
        "is_positive positive check_positive above_zero",
        "n:int -> bool",
        """
        ? $n is positive
        ? $n is greater than zero
        ? the number $n is larger than 0
        Given a number, say whether it is positive.
        Tell whether [$n|a number] is a positive number.
        """,
        """
        return $n > 0
        ---
        if $n > 0:
            return True
        return False
        """,
        lambda n: n > 0,
        lambda rng: (rng.randint(-9, 9),),
    ),
    family(
        "is_negative",
        "is_negative negative check_negative below_zero",
        "n:int -> bool",
        """
        ? $n is negative
        ? $n is less than zero
        ? the number $n is below 0
        Given a number, say whether it is negative.
        Tell whether [$n|a number] is a negative number.
        """,
        """
        return $n < 0
        ---
        if $n < 0:
            return True
        return False
        """,
        lambda n: n < 0,
        lambda rng: (rng.randint(-9, 9),),
    ),
    family(
        "is_greater_than_k",
        "is_greater_than_$k greater_than_$k over_$k is_above_$k",
        "n:int -> bool",
        """
        ? $n is greater than $k
        ? $n is [larger than|above] $k
        ? the number $n is more than $k
        Tell whether [$n|a number] is greater than $k.
        """,
        """
        return $n > $k
        ---
        if $n > $k:
            return True
        return False
        """,
        lambda n, k: n > k,
        lambda rng, k: (k + rng.randint(-6, 6),),
        choices={"k": (3, 5, 10, 12, 18, 20, 50, 100)},
    ),
    family(
        "in_range",
        "in_range is_between between is_in_range within",
        "n:int low:int high:int -> bool",
        """
        ? $n is between $low and $high, both included
        ? $n lies in the range from $low to $high, ends included
        ? $n is at least $low and at most $high
        Tell whether a number is between two others, including the ends.
        Tell whether $n is not below $low and not above $high.
        """,
        """
        return $low <= $n <= $high
        ---
        return $n >= $low and $n <= $high
        ---
        if $n < $low or $n > $high:
            return False
        return True
        """,
        lambda n, low, high: low <= n <= high,
        lambda rng: (rng.randint(-6, 12), rng.randint(-3, 3), rng.randint(4, 9)),
    ),
    family(
        "is_leap_year",
        "is_leap_year leap_year is_leap check_leap_year",
        "year:int -> bool",
        """
        ? $year is a leap year
        ? the year $year is a leap year
        ? the year has 366 days
        Given a year, say whether it is a leap year.
        Tell whether $year is a leap year in the Gregorian calendar.
        """,
        """
        return $year % 4 == 0 and ($year % 100 != 0 or $year % 400 == 0)
        ---
        if $year % 400 == 0:
            return True
        if $year % 100 == 0:
            return False
        return $year % 4 == 0
        ---
        if $year % 4 != 0:
            return False
        if $year % 100 == 0 and $year % 400 != 0:
            return False
        return True
        """,
        calendar.isleap,
        lambda rng: (rng.choice((1900, 2000, 2100, 2024, 1996, rng.randint(1880, 2040))),),
    ),
    family(
        "is_adult",
        "is_adult adult can_vote is_of_age",
        "age:int -> bool",
        """
        ? somebody of this age is [an adult|of age], that is, at least 18
        ? $age is at least 18
        ? a person of $age years is 18 or older
        Tell whether a person is 18 or older.
        """,
        """
        return $age >= 18
        ---
        if $age >= 18:
            return True
        return False
        """,
        lambda age: age >= 18,
        lambda rng: (rng.choice((17, 18, rng.randint(1, 70))),),
    ),
    family(
        "is_triangle",
        "is_triangle can_form_triangle valid_triangle is_valid_triangle",
        "a:pos b:pos c:pos -> bool",
        """
        ? $a, $b and $c can be the sides of a triangle
        ? three lengths can form a triangle
        ? each of the three sides is shorter than the other two together
        Tell whether a triangle with the sides $a, $b and $c exists.
        """,
        """
        return $a + $b > $c and $a + $c > $b and $b + $c > $a
        ---
        $x, $y, $v = sorted([$a, $b, $c])
        return $x + $y > $v
        """,
        lambda a, b, c: 2 * max(a, b, c) < a + b + c,
        lambda rng: (rng.randint(1, 9), rng.randint(1, 9), rng.randint(1, 9)),
    ),
    family(
        "all_equal_three",
        "all_equal are_equal all_same three_equal",
        "a:int b:int c:int -> bool",
        """
        ? $a, $b and $c are all equal
        ? three values are [equal|the same]
        ? all three numbers are the same
        Tell whether $a, $b and $c have the same value.
        """,
        """
        return $a == $b == $c
        ---
        return $a == $b and $b == $c
        """,
        lambda a, b, c: a == b == c,
        lambda rng: tuple(rng.choice(((x := rng.randint(0, 9), x, x), (x, x, x + 1), (x, 3, x)))),
    ),
    family(
        "is_weekend",
        "is_weekend weekend check_weekend is_weekend_day",
        "day:word -> bool",
        """
        ? $day is "Saturday" or "Sunday"
        ? the day is on the weekend
        ? a day, given by its English name, is on the weekend
        Tell whether $day is a day of the weekend.
        """,
        """
        return $day in ("Saturday", "Sunday")
        ---
        return $day == "Saturday" or $day == "Sunday"
        ---
        if $day == "Saturday" or $day == "Sunday":
            return True
        return False
        """,
        lambda day: day in ("Saturday", "Sunday"),
        lambda rng: (rng.choice(("Saturday", "Sunday", "Monday", "Tuesday", "Friday")),),
    ),
    family(
        "exactly_one",
        "exactly_one xor only_one one_of_two",
        "a:bool b:bool -> bool",
        """
        ? exactly one of $a and $b is true
        ? one of $a and $b is true, but not both
        ? only one of two conditions holds
        Return the exclusive or of two booleans.
        """,
        """
        return $a != $b
        ---
        return ($a or $b) and not ($a and $b)
        """,
        lambda a, b: a != b,
    ),
    family(
        "opposite_signs",
        "opposite_signs have_opposite_signs different_signs signs_differ",
        "a:int b:int -> bool",
        """
        ? one of $a and $b is positive and the other is negative
        ? $a and $b have opposite signs
        ? two numbers have opposite signs (zero has none)
        Tell whether one number is above zero and the other below.
        """,
        """
        return $a * $b < 0
        ---
        return ($a < 0 and $b > 0) or ($a > 0 and $b < 0)
        """,
        lambda a, b: a * b < 0,
        lambda rng: (rng.randint(-5, 5), rng.randint(-5, 5)),
    ),
]
