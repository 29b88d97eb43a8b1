"""Numbers of everyday life: money, shapes, dates, games."""

import math

from qwenkit.programs.family import family

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
BEATS = {"rock": "scissors", "scissors": "paper", "paper": "rock"}

FAMILIES = [
    family(
        "bmi",
        "bmi ~body_mass_index ~bmi_value body_mass",
        "kilograms:size height:size -> float",
        """
        # the body mass index from a weight in kilograms and a height in meters
        # the BMI: the weight in kilograms divided by the square of the height in meters
        Given a weight in kilograms and a height in meters, return the body mass index.
        Divide the weight by the square of the height to get the BMI.
        """,
        """
        return $kilograms / $height ** 2
        ---
        return $kilograms / ($height * $height)
        """,
        lambda weight, height: weight / height**2,
        lambda rng: (float(rng.randint(40, 110)), rng.choice((1.5, 1.6, 1.75, 1.8, 2.0))),
    ),
    family(
        "simple_interest",
        "~simple_interest ~interest interest_earned ~interest_amount",
        "principal:size rate:int years:int -> float",
        """
        # the simple interest on $principal at $rate percent for $years years
        # the interest without compounding: principal times rate times years over 100
        Given a principal, a rate in percent and a number of years, return the simple interest.
        Return how much simple interest $principal earns in $years years at $rate percent.
        """,
        """
        return $principal * $rate * $years / 100
        ---
        interest = $principal * $rate / 100
        return interest * $years
        """,
        lambda principal, rate, years: principal * rate * years / 100,
        lambda rng: (
            float(rng.choice((100, 200, 500, 1000))),
            rng.randint(1, 10),
            rng.randint(1, 10),
        ),
    ),
    family(
        "compound_interest",
        "~compound_amount ~final_balance grow_savings ~future_value",
        "principal:size rate:int years:int -> float",
        """
        # the amount that $principal grows to in $years years at $rate percent a year
        # the balance after $years years with compound interest of $rate percent
        Let $principal grow by $rate percent each year for $years years.
        Given a principal, a yearly rate in percent and years, return the final amount.
        """,
        """
        return $principal * (1 + $rate / 100) ** $years
        ---
        for _ in range($years):
            $principal += $principal * $rate / 100
        return $principal
        ---
        $total = $principal
        for _ in range($years):
            $total *= 1 + $rate / 100
        return $total
        """,
        lambda principal, rate, years: principal * (1 + rate / 100) ** years,
        lambda rng: (
            float(rng.choice((100, 200, 1000))),
            rng.choice((0, 5, 10, 50, 100)),
            rng.randint(0, 4),
        ),
    ),
    family(
        "with_tip",
        "~total_with_tip add_tip bill_with_tip with_tip",
        "bill:size percent:int -> float",
        """
        # the total of a bill with a tip of $percent percent
        # $bill plus a tip of $percent percent
        Add a tip in percent to a bill[ and return the total|].
        Given a bill and a tip in percent, return what must be paid in all.
        """,
        """
        return $bill + $bill * $percent / 100
        ---
        tip = $bill * $percent / 100
        return $bill + tip
        ---
        return $bill * (100 + $percent) / 100
        """,
        lambda bill, percent: bill * (100 + percent) / 100,
        lambda rng: (float(rng.choice((10, 20, 40, 50, 80))), rng.choice((0, 10, 15, 20))),
    ),
    family(
        "with_tax",
        "~price_with_tax add_tax with_tax ~gross_price",
        "price:size -> float",
        """
        # the price with $k percent tax added
        # $price plus a tax of $k percent
        Add a tax of $k percent to a price.
        Given a net price, return the price with $k percent tax.
        """,
        """
        return $price * (100 + $k) / 100
        ---
        tax = $price * $k / 100
        return $price + tax
        """,
        lambda price, k: price * (100 + k) / 100,
        lambda rng: (float(rng.choice((10, 20, 50, 80, 200))),),
        choices={"k": (5, 7, 8, 10, 19, 20, 25)},
    ),
    family(
        "total_with_tax",
        "~total_with_tax total_price ~gross_total ~amount_due sum_with_tax",
        "prices:floats1 rate:rate -> float",
        """
        # the total of $prices with tax added; $rate is a fraction such as 0.25
        # the price of all items with tax at the rate $rate
        Add up $prices and add the tax, which is $rate times the sum.
        Given prices and a tax rate (0.5 is 50 percent), return the total price with tax.
        """,
        """
        return sum($prices) * (1 + $rate)
        ---
        $total = sum($prices)
        return $total + $total * $rate
        ---
        $total = 0
        for $x in $prices:
            $total += $x
        return $total * (1 + $rate)
        ---
        $total = sum($prices)
        tax = $total * $rate
        return $total + tax
        """,
        lambda prices, rate: float(sum(prices) * (1 + rate)),
        lambda rng: (
            [rng.randint(1, 40) / 2 for _ in range(rng.randint(1, 5))],
            rng.choice((0.125, 0.25, 0.5)),
        ),
        weight=6.0,
    ),
    family(
        "percent_change",
        "~percent_change ~percentage_change change_in_percent ~growth",
        "old:size new:size -> float",
        """
        # the change from $old to $new in percent of $old
        # by how many percent a value has grown from $old to $new
        Given an old and a new value, return the change in percent of the old one.
        Return the percentage by which $new is more than $old (negative if less).
        """,
        """
        return ($new - $old) * 100 / $old
        ---
        difference = $new - $old
        return 100 * difference / $old
        """,
        lambda old, new: (new - old) / old * 100,
        lambda rng: (float(rng.choice((10, 20, 50, 100))), float(rng.choice((5, 10, 40, 150)))),
    ),
    family(
        "speed",
        "~speed ~average_speed speed_of ~velocity",
        "kilometers:size hours:size -> float",
        """
        # the average speed for a distance and a time
        # the speed in kilometers per hour
        Divide the distance by the time to get the speed.
        Given kilometers and hours, return the average speed.
        """,
        """
        return $kilometers / $hours
        ---
        speed = $kilometers / $hours
        return speed
        """,
        lambda distance, time: distance / time,
        lambda rng: (float(rng.randint(1, 30) * 10), rng.choice((0.5, 1.0, 2.0, 4.0))),
    ),
    family(
        "distance",
        "~distance distance_between ~point_distance euclidean",
        "x:int y:int u:int v:int -> float",
        """
        # the distance between the points ($x, $y) and ($u, $v)
        # the Euclidean distance from ($x, $y) to ($u, $v)
        Given the coordinates of two points, return the distance between them.
        Return how far the point ($x, $y) is from ($u, $v).
        """,
        """
        return (($u - $x) ** 2 + ($v - $y) ** 2) ** 0.5
        ---
        import math
        return math.hypot($u - $x, $v - $y)
        ---
        dx = $u - $x
        dy = $v - $y
        return (dx ** 2 + dy ** 2) ** 0.5
        """,
        lambda x, y, u, v: math.hypot(u - x, v - y),
        lambda rng: tuple(rng.choice(((0, 0, 3, 4), tuple(rng.choices(range(-5, 9), k=4))))),
    ),
    family(
        "triangle_type",
        "triangle_type ~kind_of_triangle classify_triangle triangle_kind",
        "a:pos b:pos c:pos -> str",
        """
        Return "equilateral", "isosceles" or "scalene" for the sides of a triangle.
        = "equilateral" for three equal sides, "isosceles" for two, else "scalene"
        Classify a triangle by its sides: "equilateral", "isosceles" or "scalene".
        Tell whether a triangle is "equilateral", "isosceles" or "scalene".
        """,
        """
        if $a == $b == $c:
            return "equilateral"
        if $a == $b or $b == $c or $a == $c:
            return "isosceles"
        return "scalene"
        ---
        $count = len({$a, $b, $c})
        if $count == 1:
            return "equilateral"
        elif $count == 2:
            return "isosceles"
        else:
            return "scalene"
        """,
        lambda a, b, c: ("equilateral", "isosceles", "scalene")[len({a, b, c}) - 1],
        lambda rng: tuple(
            rng.choice(
                ((x := rng.randint(3, 9),) * 3, (x, x, x + 1), (x, x + 2, x), (x, x + 1, x + 2))
            )
        ),
    ),
    family(
        "day_name",
        "day_name ~weekday name_of_day number_to_day",
        "n:nat -> str",
        """
        = the English name of day $n of the week, where 1 is Monday
        = the name of the weekday with the number $n, from 1 for Monday to 7 for Sunday
        Turn a number from 1 (Monday) to 7 (Sunday) into the name of the day.
        Given a number from 1 to 7, return the day of the week; 1 is Monday.
        """,
        """
        days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
        days += ["Saturday", "Sunday"]
        return days[$n - 1]
        ---
        names = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
        return names.split()[$n - 1]
        """,
        lambda n: DAYS[n - 1],
        lambda rng: (rng.randint(1, 7),),
    ),
    family(
        "season",
        "~season season_of month_to_season ~season_for_month",
        "month:nat -> str",
        """
        = "winter", "spring", "summer" or "autumn" for a month, with winter in 12, 1 and 2
        = the season of $month: 12-2 winter, 3-5 spring, 6-8 summer, 9-11 autumn
        Turn a month from 1 to 12 into a season: spring is 3-5, summer 6-8, autumn 9-11.
        Given a month, return the season; "winter" is December to February.
        """,
        """
        if $month in (12, 1, 2):
            return "winter"
        if $month in (3, 4, 5):
            return "spring"
        if $month in (6, 7, 8):
            return "summer"
        return "autumn"
        ---
        if 3 <= $month <= 5:
            return "spring"
        elif 6 <= $month <= 8:
            return "summer"
        elif 9 <= $month <= 11:
            return "autumn"
        else:
            return "winter"
        """,
        lambda month: ("winter", "spring", "summer", "autumn")[month % 12 // 3],
        lambda rng: (rng.randint(1, 12),),
    ),
    family(
        "rock_paper_scissors",
        "rock_paper_scissors ~winner play_round rps",
        "a:word b:word -> str",
        """
        Return "first", "second" or "draw" for a round of rock, paper, scissors.
        = the winner of rock, paper, scissors: "first" ($a), "second" ($b) or "draw"
        Decide rock, paper, scissors between $a and $b: "first", "second" or "draw".
        Tell who wins with $a against $b: "first", "second", or "draw" if they are equal.
        """,
        """
        if $a == $b:
            return "draw"
        beats = {"rock": "scissors", "scissors": "paper", "paper": "rock"}
        return "first" if beats[$a] == $b else "second"
        ---
        if $a == $b:
            return "draw"
        wins = [("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")]
        if ($a, $b) in wins:
            return "first"
        return "second"
        """,
        lambda a, b: "draw" if a == b else "first" if BEATS[a] == b else "second",
        lambda rng: (rng.choice(list(BEATS)), rng.choice(list(BEATS))),
    ),
    family(
        "is_armstrong",
        "is_armstrong armstrong is_narcissistic check_armstrong",
        "n:nat -> bool",
        """
        ? $n is an Armstrong number
        ? $n equals the sum of its digits, each raised to the number of digits
        ? the powers of its digits, with the number of digits as exponent, add up to $n
        Tell whether a number is the sum of its own digits to the power of their count.
        """,
        """
        digits = str($n)
        return sum(int($ch) ** len(digits) for $ch in digits) == $n
        ---
        digits = [int($ch) for $ch in str($n)]
        $total = 0
        for $x in digits:
            $total += $x ** len(digits)
        return $total == $n
        """,
        lambda n: sum(int(c) ** len(str(n)) for c in str(n)) == n,
        lambda rng: (rng.choice((153, 370, 371, 407, 9, rng.randint(0, 500), 10, 100)),),
    ),
    family(
        "largest_digit",
        "~largest_digit max_digit ~biggest_digit highest_digit",
        "n:big -> int",
        """
        = the largest digit of $n
        = the largest of the digits of a non-negative integer
        Find the biggest digit in the number $n.
        Given a non-negative integer, return its largest digit.
        """,
        """
        return max(int($ch) for $ch in str($n))
        ---
        $best = 0
        while $n > 0:
            $best = max($best, $n % 10)
            $n //= 10
        return $best
        """,
        lambda n: max(map(int, str(n))),
    ),
    family(
        "count_even_digits",
        "count_even_digits ~number_of_even_digits even_digits num_even_digits",
        "n:big -> int",
        """
        # the number of even digits in $n
        = how many digits of $n are even
        Count the even digits of a non-negative integer.
        Count those digits of $n that are divisible by 2.
        """,
        """
        return sum(1 for $ch in str($n) if int($ch) % 2 == 0)
        ---
        $count = 0
        for $ch in str($n):
            if $ch in "02468":
                $count += 1
        return $count
        """,
        lambda n: sum(int(c) % 2 == 0 for c in str(n)),
    ),
    family(
        "sum_evens_to",
        "sum_evens_to sum_of_evens_up_to ~even_sum_to add_evens_to",
        "n:nat -> int",
        """
        # the sum of the even numbers from 1 to $n
        # the sum of all even numbers up to and including $n
        Add up the even numbers that are not greater than $n, from 2 on.
        # 2 + 4 + 6 and so on, up to $n
        """,
        """
        return sum(range(2, $n + 1, 2))
        ---
        $total = 0
        for $i in range(1, $n + 1):
            if $i % 2 == 0:
                $total += $i
        return $total
        ---
        return sum($i for $i in range($n + 1) if $i % 2 == 0)
        """,
        lambda n: sum(range(0, n + 1, 2)),
    ),
    family(
        "sum_odds_to",
        "sum_odds_to sum_of_odds_up_to ~odd_sum_to add_odds_to",
        "n:nat -> int",
        """
        # the sum of the odd numbers from 1 to $n
        # the sum of all odd numbers up to and including $n
        Add up the odd numbers that are not greater than $n, from 1 on.
        # 1 + 3 + 5 and so on, up to $n
        """,
        """
        return sum(range(1, $n + 1, 2))
        ---
        $total = 0
        for $i in range(1, $n + 1):
            if $i % 2 == 1:
                $total += $i
        return $total
        ---
        return sum($i for $i in range($n + 1) if $i % 2 == 1)
        """,
        lambda n: sum(range(1, n + 1, 2)),
    ),
    family(
        "sum_range",
        "sum_range sum_between ~range_sum add_range",
        "start:int stop:int -> int",
        """
        # the sum of the integers from $start to $stop, both included
        # the sum of all integers between $start and $stop, ends included
        Add up the numbers from $start to $stop[, including both|, ends included].
        # $start + ($start + 1) + ... + $stop
        """,
        """
        return sum(range($start, $stop + 1))
        ---
        $total = 0
        for $i in range($start, $stop + 1):
            $total += $i
        return $total
        """,
        lambda start, stop: sum(range(start, stop + 1)),
        lambda rng: (a := rng.randint(-5, 10), a + rng.randint(0, 8)),
    ),
    family(
        "to_base_k",
        "to_base_$base ~base_$base_digits in_base_$base convert_to_base_$base",
        "n:nat -> str",
        """
        = the digits of $n in base $base as a string
        = $n written in base $base
        Convert a non-negative integer to a string in base $base.
        Write $n with the digits of base $base[, as a string|].
        """,
        """
        if $n == 0:
            return "0"
        $result = ""
        while $n > 0:
            $result = str($n % $base) + $result
            $n //= $base
        return $result
        ---
        if $n < $base:
            return str($n)
        return $self($n // $base) + str($n % $base)
        """,
        lambda n, base: _in_base(n, base),
        lambda rng: (rng.randint(0, 120),),
        choices={"base": (3, 4, 5, 7, 8)},
    ),
    family(
        "count_roots",
        "~root_count ~number_of_roots count_roots real_roots",
        "a:int b:int c:int -> int",
        """
        # the number of real solutions of $a * x**2 + $b * x + $c = 0, where $a is not 0
        # how many different real roots a quadratic equation has
        Count the real roots of the quadratic equation with coefficients $a, $b and $c.
        Use the discriminant to say how many real roots there are: 0, 1 or 2.
        """,
        """
        d = $b * $b - 4 * $a * $c
        if d > 0:
            return 2
        if d == 0:
            return 1
        return 0
        ---
        d = $b ** 2 - 4 * $a * $c
        if d < 0:
            return 0
        return 1 if d == 0 else 2
        """,
        lambda a, b, c: 1 + ((d := b * b - 4 * a * c) > 0) - (d < 0),
        lambda rng: rng.choice(
            ((1, 2, 1), (1, -4, 4), (rng.randint(1, 4), rng.randint(-6, 6), rng.randint(-3, 5)))
        ),
    ),
    family(
        "count_coins",
        "count_coins min_coins ~number_of_coins coins_needed",
        "n:big -> int",
        """
        # the least number of coins of 10, 5 and 1 that make $n
        = how many coins of value 10, 5 and 1 are needed to pay $n
        Count the coins when $n is paid with as few coins of 10, 5 and 1 as possible.
        Pay $n with coins of 10, 5 and 1, the largest first, and count the coins.
        """,
        """
        $count = 0
        for coin in (10, 5, 1):
            $count += $n // coin
            $n %= coin
        return $count
        ---
        return $n // 10 + $n % 10 // 5 + $n % 5
        """,
        lambda n: n // 10 + n % 10 // 5 + n % 5,
        lambda rng: (rng.randint(0, 99),),
    ),
    family(
        "ticket_price",
        "ticket_price ~price_for_age entry_fee ~admission",
        "age:nat -> int",
        """
        = the price of a ticket: 0 under 6 years, $k under 18, otherwise $full
        Return the ticket price for an age: free under 6, $k under 18, else $full.
        Tell what somebody of $age years pays: nothing below 6, $k below 18, else $full.
        = 0 for an age under 6, $k for one under 18, and $full for adults
        """,
        """
        if $age < 6:
            return 0
        if $age < 18:
            return $k
        return $full
        ---
        if $age < 6:
            return 0
        elif $age < 18:
            return $k
        else:
            return $full
        """,
        lambda age, k, full: 0 if age < 6 else k if age < 18 else full,
        lambda rng: (rng.choice((5, 6, 17, 18, rng.randint(1, 70))),),
        choices={"k": (3, 4, 5, 6), "full": (8, 10, 12, 15)},
    ),
]


def _in_base(n: int, base: int) -> str:
    return (_in_base(n // base, base) if n >= base else "") + str(n % base)
