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
        "sign",
        "~sign sign_of signum ~number_sign",
        "n:int -> int",
        """
        # the sign of $n: -1, 0 or 1
        Return 1 if $n is positive, -1 if it is negative and 0 if it is zero.
        Return -1 for a negative number, 0 for zero, and 1 for a positive number.
        Give the sign of a number as -1, 0 or 1.
        = -1, 0 or 1, depending on the sign of $n
        """,
        """
        if $n > 0:
            return 1
        if $n < 0:
            return -1
        return 0
        ---
        if $n > 0:
            return 1
        elif $n < 0:
            return -1
        else:
            return 0
        ---
        return ($n > 0) - ($n < 0)
        """,
        lambda n: (n > 0) - (n < 0),
        lambda rng: (rng.choice((0, rng.randint(-9, 9))),),
    ),
    family(
        "sign_word",
        "sign_word sign_name describe_sign positive_negative_zero",
        "n:int -> str",
        """
        Return "positive", "negative" or "zero" for the number $n.
        = "positive", "negative" or "zero", depending on $n
        Say whether a number is "positive", "negative" or "zero".
        Describe the sign of $n as "positive", "negative" or "zero".
        """,
        """
        if $n > 0:
            return "positive"
        if $n < 0:
            return "negative"
        return "zero"
        ---
        if $n == 0:
            return "zero"
        return "positive" if $n > 0 else "negative"
        ---
        if $n > 0:
            return "positive"
        elif $n < 0:
            return "negative"
        else:
            return "zero"
        """,
        lambda n: "positive" if n > 0 else "negative" if n < 0 else "zero",
        lambda rng: (rng.choice((0, rng.randint(-9, 9))),),
    ),
    family(
        "even_or_odd",
        "even_or_odd ~parity odd_or_even parity_of",
        "n:int -> str",
        """
        Return "even" if $n is even, otherwise "odd".
        = "even" or "odd", depending on the number $n
        Say whether a number is "even" or "odd".
        = the parity of $n as the word "even" or "odd"
        """,
        """
        if $n % 2 == 0:
            return "even"
        return "odd"
        ---
        return "even" if $n % 2 == 0 else "odd"
        ---
        if $n % 2:
            return "odd"
        else:
            return "even"
        """,
        lambda n: "odd" if n % 2 else "even",
    ),
    family(
        "clamp",
        "clamp clip limit_to_range restrict bound",
        "n:int low:int high:int -> int",
        """
        Limit $n to the range from $low to $high.
        Return $n, but not less than $low and not more than $high.
        = $n limited to the range from $low to $high
        Clamp [a number|$n|the value $n] between $low and $high.
        Return $low if $n is below it, $high if $n is above it, else $n.
        """,
        """
        return max($low, min($n, $high))
        ---
        if $n < $low:
            return $low
        if $n > $high:
            return $high
        return $n
        ---
        return min(max($n, $low), $high)
        """,
        lambda n, low, high: max(low, min(n, high)),
        lambda rng: (rng.randint(-9, 20), rng.randint(-3, 3), rng.randint(4, 12)),
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
        "max_of_two",
        "max_of_two ~larger ~maximum max_two bigger",
        "a:int b:int -> int",
        """
        = the larger of $a and $b
        = the larger of two numbers
        = the maximum of $a and $b
        Given two numbers, return the [bigger|greater] one.
        Return whichever of $a and $b is greater.
        """,
        """
        return max($a, $b)
        ---
        if $a > $b:
            return $a
        return $b
        ---
        return $a if $a > $b else $b
        """,
        max,
    ),
    family(
        "min_of_two",
        "min_of_two ~smaller ~minimum min_two lesser",
        "a:int b:int -> int",
        """
        = the smaller of $a and $b
        = the smaller of two numbers
        = the minimum of $a and $b
        Given two numbers, return the smaller one.
        Return whichever of $a and $b is less.
        """,
        """
        return min($a, $b)
        ---
        if $a < $b:
            return $a
        return $b
        ---
        return $a if $a < $b else $b
        """,
        min,
    ),
    family(
        "max_of_three",
        "max_of_three ~largest_of_three max_three biggest_of_three",
        "a:int b:int c:int -> int",
        """
        = the largest of $a, $b and $c
        = the largest of three numbers
        = the maximum of three numbers
        Given three numbers, return the [biggest|greatest] one.
        Return whichever of $a, $b and $c is greatest.
        """,
        """
        return max($a, $b, $c)
        ---
        $best = $a
        if $b > $best:
            $best = $b
        if $c > $best:
            $best = $c
        return $best
        ---
        if $a >= $b and $a >= $c:
            return $a
        if $b >= $c:
            return $b
        return $c
        """,
        max,
    ),
    family(
        "min_of_three",
        "min_of_three ~smallest_of_three min_three least_of_three",
        "a:int b:int c:int -> int",
        """
        = the smallest of $a, $b and $c
        = the smallest of three numbers
        = the minimum of three numbers
        Given three numbers, return the [smallest|least] one.
        Return whichever of $a, $b and $c is least.
        """,
        """
        return min($a, $b, $c)
        ---
        $best = $a
        if $b < $best:
            $best = $b
        if $c < $best:
            $best = $c
        return $best
        """,
        min,
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
        "days_in_month",
        "days_in_month ~month_days ~month_length days_of_month",
        "month:int -> int",
        """
        # the number of days in a month from 1 to 12, not in a leap year
        = how many days the month with the number $month has in a common year
        Return the days in $month (1 to 12), with 28 for February.
        Given a month from 1 to 12, return its number of days in a common year.
        """,
        """
        if $month == 2:
            return 28
        if $month in (4, 6, 9, 11):
            return 30
        return 31
        ---
        days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        return days[$month - 1]
        """,
        lambda month: calendar.monthrange(2023, month)[1],
        lambda rng: (rng.choice((2, rng.randint(1, 12))),),
    ),
    family(
        "grade",
        "~grade letter_grade to_grade grade_for_score score_to_grade",
        "score:int -> str",
        """
        Return the letter grade for a score: A from 90, B from 80, C from 70, else F.
        = the grade for $score: "A" from 90, "B" from 80, "C" from 70, otherwise "F"
        Turn a score into a grade: 90 or more is A, 80 is B, 70 is C, below is F.
        Grade a score with A (at least 90), B (80), C (70) or F.
        """,
        """
        if $score >= 90:
            return "A"
        if $score >= 80:
            return "B"
        if $score >= 70:
            return "C"
        return "F"
        ---
        if $score >= 90:
            return "A"
        elif $score >= 80:
            return "B"
        elif $score >= 70:
            return "C"
        else:
            return "F"
        ---
        for limit, letter in ((90, "A"), (80, "B"), (70, "C")):
            if $score >= limit:
                return letter
        return "F"
        """,
        lambda score: "A" if score > 89 else "B" if score > 79 else "C" if score > 69 else "F",
        lambda rng: (rng.choice((90, 80, 70, 69, 89, rng.randint(40, 100))),),
    ),
    family(
        "grade_five",
        "~grade letter_grade grade_of ~letter_for_score get_letter_grade",
        "score:int -> str",
        """
        Return A, B, C, D or F for a score: A from 90, B from 80, C from 70, D from 60.
        = the letter grade: 90 and up A, 80 B, 70 C, 60 D, below 60 F
        Turn a score from 0 to 100 into A (90), B (80), C (70), D (60) or F.
        Give the grade for $score: at least 90 A, 80 B, 70 C, 60 D, else F.
        """,
        """
        if $score >= 90:
            return "A"
        if $score >= 80:
            return "B"
        if $score >= 70:
            return "C"
        if $score >= 60:
            return "D"
        return "F"
        ---
        if $score >= 90:
            return "A"
        elif $score >= 80:
            return "B"
        elif $score >= 70:
            return "C"
        elif $score >= 60:
            return "D"
        else:
            return "F"
        """,
        lambda score: "FFFFFFDCBAA"[score // 10],
        lambda rng: (rng.choice((90, 80, 70, 60, 59, rng.randint(30, 100))),),
    ),
    family(
        "passed",
        "passed has_passed is_passing pass_or_fail",
        "score:int -> str",
        """
        Return "pass" if $score is at least $k, otherwise "fail".
        = "pass" for a score of $k or more, else "fail"
        Say "pass" or "fail" for a score, where $k is enough to pass.
        Tell whether a score is a "pass" ($k or more) or a "fail".
        """,
        """
        return "pass" if $score >= $k else "fail"
        ---
        if $score >= $k:
            return "pass"
        return "fail"
        """,
        lambda score, k: "pass" if score >= k else "fail",
        lambda rng, k: (k + rng.randint(-5, 5),),
        choices={"k": (40, 50, 55, 60, 65, 70)},
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
        "age_group",
        "~age_group age_category group_for_age classify_age",
        "age:int -> str",
        """
        Return "child" below 13, "teenager" below 20 and "adult" from 20 on.
        = "child" for an age under 13, "teenager" under 20, otherwise "adult"
        Classify an age as "child" (under 13), "teenager" (under 20) or "adult".
        Tell whether $age means "child" (0-12), "teenager" (13-19) or "adult".
        """,
        """
        if $age < 13:
            return "child"
        if $age < 20:
            return "teenager"
        return "adult"
        ---
        if $age < 13:
            return "child"
        elif $age < 20:
            return "teenager"
        else:
            return "adult"
        """,
        lambda age: "child" if age < 13 else "teenager" if age < 20 else "adult",
        lambda rng: (rng.choice((12, 13, 19, 20, rng.randint(1, 50))),),
    ),
    family(
        "fizzbuzz_word",
        "fizzbuzz fizz_buzz fizzbuzz_word ~fizzbuzz_of",
        "n:pos -> str",
        """
        Return "FizzBuzz", "Fizz", "Buzz" or the number $n as a string.
        Return "Fizz" for multiples of 3, "Buzz" for 5, "FizzBuzz" for both, else str($n).
        = the word for $n in the game FizzBuzz[, or the number as text|]
        Play FizzBuzz for one number and return the word as a string.
        Say what comes for $n in FizzBuzz: a word, or the number as text.
        """,
        """
        if $n % 15 == 0:
            return "FizzBuzz"
        if $n % 3 == 0:
            return "Fizz"
        if $n % 5 == 0:
            return "Buzz"
        return str($n)
        ---
        $result = ""
        if $n % 3 == 0:
            $result += "Fizz"
        if $n % 5 == 0:
            $result += "Buzz"
        return $result or str($n)
        ---
        if $n % 3 == 0 and $n % 5 == 0:
            return "FizzBuzz"
        elif $n % 3 == 0:
            return "Fizz"
        elif $n % 5 == 0:
            return "Buzz"
        else:
            return str($n)
        """,
        lambda n: "Fizz" * (n % 3 == 0) + "Buzz" * (n % 5 == 0) or str(n),
        lambda rng: (rng.choice((15, 30, 3, 5, rng.randint(1, 40))),),
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
        "compare",
        "compare compare_numbers comparison compare_two",
        "a:int b:int -> str",
        """
        Return "less", "equal" or "greater" for $a compared with $b.
        = "less" if $a < $b, "greater" if $a > $b, otherwise "equal"
        Compare [two numbers|$a with $b] and return "less", "equal" or "greater".
        Say whether $a is "less" than, "equal" to or "greater" than $b.
        """,
        """
        if $a < $b:
            return "less"
        if $a > $b:
            return "greater"
        return "equal"
        ---
        if $a == $b:
            return "equal"
        return "less" if $a < $b else "greater"
        """,
        lambda a, b: "less" if a < b else "greater" if a > b else "equal",
        lambda rng: (rng.randint(0, 4), rng.randint(0, 4)),
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
