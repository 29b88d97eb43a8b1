"""Words and numbers for cases: grades, signs, the larger of two."""

import calendar

from qwenkit.programs.family import family

FAMILIES = [
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
]
