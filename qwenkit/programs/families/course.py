"""Families that a first programming course asks for and that the other tables lack."""

import math
from typing import Any

from qwenkit.programs.family import family


def bmi_word(weight: Any, height: Any) -> Any:
    """Return the class of a body mass index."""
    value = weight / height**2
    return "underweight" if value < 18.5 else "normal" if value < 25 else "overweight"


def fibonacci_below(limit: Any) -> Any:
    """Yield the Fibonacci numbers below a limit."""
    a, b = 0, 1
    while a < limit:
        yield a
        a, b = b, a + b


class Pair:
    """The reference of a point with a distance to another."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def distance_to(self, x: Any, y: Any) -> Any:
        """Return the distance."""
        return ((self.x - x) ** 2 + (self.y - y) ** 2) ** 0.5


class Book:
    """The reference of a book that can be lent."""

    def __init__(self, title: Any, author: Any) -> None:
        self.title, self.author, self.available = title, author, True

    def borrow(self) -> None:
        """Lend it."""
        self.available = False

    def give_back(self) -> None:
        """Take it back."""
        self.available = True


class Gradebook:
    """The reference of a list of grades."""

    def __init__(self) -> None:
        self.grades: list[Any] = []

    def add(self, grade: Any) -> None:
        """Add a grade."""
        self.grades.append(grade)

    def average(self) -> Any:
        """Return their average."""
        return sum(self.grades) / len(self.grades) if self.grades else 0


class Clicks:
    """The reference of a counter with a method for its value."""

    def __init__(self) -> None:
        self.count = 0

    def increment(self) -> None:
        """Count."""
        self.count += 1

    def reset(self) -> None:
        """Start again."""
        self.count = 0

    def get_value(self) -> Any:
        """Return the count."""
        return self.count


class CartList:
    """The reference of a cart that is a list."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def add(self, name: Any, price: Any) -> None:
        """Add an item."""
        self.items.append((name, price))

    def count(self) -> Any:
        """Count the items."""
        return len(self.items)

    def total(self) -> Any:
        """Add up the prices."""
        return sum(price for _, price in self.items)


class Dog:
    """The reference of a dog."""

    def __init__(self, name: Any, age: Any) -> None:
        self.name, self.age = name, age

    def bark(self) -> Any:
        """Bark."""
        return self.name + " says woof!"


class Line:
    """The reference of a queue with a length."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def enqueue(self, item: Any) -> None:
        """Add an item."""
        self.items.append(item)

    def dequeue(self) -> Any:
        """Remove the oldest item."""
        return self.items.pop(0)

    def __len__(self) -> int:
        return len(self.items)


class Car:
    """The reference of a car."""

    def __init__(self, brand: Any) -> None:
        self.brand, self.kilometers = brand, 0

    def drive(self, distance: Any) -> None:
        """Drive on."""
        self.kilometers += distance


def fibonacci(n: Any) -> Any:
    """Return Fibonacci number n."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


FAMILIES = [
    family(
        "bmi_category",
        "bmi_category ~bmi_class classify_bmi weight_category",
        "kilograms:size height:size -> str",
        """
        [Classify|Name] the BMI: "underweight" below 18.5, "normal" below 25, else "overweight".
        Return "underweight" (BMI below 18.5), "normal" (below 25) or "overweight".
        Given weight and height, say "underweight" (BMI < 18.5), "normal" (< 25) or "overweight".
        Tell "underweight" (BMI < 18.5), "normal" (< 25) and "overweight" apart.
        = "underweight", "normal" (BMI from 18.5) or "overweight" (from 25)
        """,
        """
        bmi = $kilograms / $height ** 2
        if bmi < 18.5:
            return "underweight"
        if bmi < 25:
            return "normal"
        return "overweight"
        ---
        bmi = $kilograms / ($height * $height)
        if bmi < 18.5:
            return "underweight"
        elif bmi < 25:
            return "normal"
        else:
            return "overweight"
        """,
        bmi_word,
        lambda rng: (float(rng.randint(40, 110)), rng.choice((1.5, 1.6, 1.75, 1.8))),
    ),
    family(
        "hours_minutes_seconds",
        "format_time ~time_string seconds_to_time to_hms",
        "seconds:big -> str",
        """
        Convert [a number of |]seconds to [a string of the form |]'h:mm:ss'.
        Format seconds as hours, minutes and seconds, as in "1:05:09".
        = the time in $seconds seconds as text like "1:02:03"
        Turn seconds into a clock time such as "0:01:05".
        """,
        """
        hours = $seconds // 3600
        minutes = $seconds % 3600 // 60
        return f"{hours}:{minutes:02d}:{$seconds % 60:02d}"
        ---
        hours, $rest = divmod($seconds, 3600)
        minutes, $rest = divmod($rest, 60)
        return f"{hours}:{minutes:02}:{$rest:02}"
        ---
        hours = $seconds // 3600
        minutes = ($seconds - hours * 3600) // 60
        $rest = $seconds % 60
        return "%d:%02d:%02d" % (hours, minutes, $rest)
        """,
        lambda s: f"{s // 3600}:{s % 3600 // 60:02d}:{s % 60:02d}",
        lambda rng: (rng.choice((rng.randint(0, 200), rng.randint(1000, 20000))),),
    ),
    family(
        "dotted_initials",
        "~initials name_initials initials_of dotted_initials",
        "text:text -> str",
        """
        = the initials of a [full name|name], each followed by a dot
        = the initials of a full name, as "A.L." for "ada lovelace"
        For a full name such as "Ada Lovelace", return "A.L.".
        Take the first letter of each name in upper case, with a dot after each.
        """,
        """
        return "".join($w[0].upper() + "." for $w in $text.split())
        ---
        $result = ""
        for $w in $text.split():
            $result += $w[0].upper() + "."
        return $result
        """,
        lambda text: "".join(part[0].upper() + "." for part in text.split()),
        lambda rng: (
            " ".join(rng.sample(["Ada", "Alan", "grace", "Anna", "bob", "Lee"], rng.randint(1, 3))),
        ),
    ),
    family(
        "first_occurrences",
        "remove_duplicate_letters remove_repeated remove_repeats unique_chars_in_order",
        "text:word -> str",
        """
        Remove repeated letters from [a string|$text], keeping the first [of each|occurrence].
        = the string without repeated characters[, in the same order|]
        Remove all duplicate [letters|characters] from [$text|a string].
        Keep only the first occurrence of each character[ of a string|].
        """,
        """
        $result = ""
        for $ch in $text:
            if $ch not in $result:
                $result += $ch
        return $result
        ---
        return "".join(dict.fromkeys($text))
        ---
        $seen = []
        for $ch in $text:
            if $ch not in $seen:
                $seen.append($ch)
        return "".join($seen)
        """,
        lambda text: "".join(dict.fromkeys(text)),
    ),
    family(
        "circle_area_rounded",
        "~circle_area area_of_circle rounded_area circle_area_rounded",
        "radius:size -> float",
        """
        # the area of a circle with [the given $radius|radius $radius], rounded to two decimals
        # the area of a circle to two decimal places
        Given the radius, return the area of the circle rounded to 2 decimals.
        = the area of a circle, rounded to 2 decimal places
        """,
        """
        import math
        return round(math.pi * $radius ** 2, 2)
        ---
        from math import pi
        area = pi * $radius * $radius
        return round(area, 2)
        """,
        lambda r: round(3.141592653589793 * r**2, 2),
    ),
    family(
        "phone_book",
        "lookup find_number ~phone_number look_up",
        "book:names word:word -> str",
        """
        = the [phone |]number of a person, or "not found" if the name is not in [the|$book] $book
        Look up a name in a phone book; return "not found" if it is not there.
        Given a dictionary of names, return the entry of $word, or "not found".
        Search for $word in the phone book $book and return "not found" if it is missing.
        """,
        """
        return $book.get($word, "not found")
        ---
        if $word in $book:
            return $book[$word]
        return "not found"
        ---
        try:
            return $book[$word]
        except KeyError:
            return "not found"
        """,
        lambda book, word: book.get(word, "not found"),
        lambda rng: (
            {"Ann": "555-12", "Bob": "555-34", "Eve": "555-56"},
            rng.choice(("Ann", "Bob", "Eve", "Zoe", "Max")),
        ),
    ),
    family(
        "fibonacci_below_generator",
        "fibonacci_numbers fibonacci_below fib_below yield_fibonacci_below",
        "limit:nat -> int",
        """
        Generate the Fibonacci numbers [below|smaller than|less than] $limit[, starting with 0|].
        Yield [all |the ]Fibonacci numbers that are less than $limit.
        Yield 0, 1, 1, 2, 3, 5, ... as long as they are below $limit.
        A generator of the Fibonacci numbers below $limit.
        Produce each Fibonacci number below $limit, one at a time.
        Starting with 0 and 1, yield every Fibonacci number below $limit.
        """,
        """
        a, b = 0, 1
        while a < $limit:
            yield a
            a, b = b, a + b
        ---
        $x = 0
        $y = 1
        while $x < $limit:
            yield $x
            $temp = $x + $y
            $x = $y
            $y = $temp
        """,
        lambda limit: list(fibonacci_below(limit)),
        lambda rng: (rng.randint(0, 60),),
    ),
    family(
        "first_ten_multiples",
        "multiplication_table times_table table first_ten_multiples",
        "n:int -> list[int]",
        """
        = a list [with|of] the first ten multiples of $n
        = the multiplication table of $n[, from 1 to 10| up to 10] as a list
        Build the times table of $n from 1 * $n to 10 * $n.
        Multiply $n by each number from 1 to 10 and return the results as a list.
        """,
        """
        return [$n * $i for $i in range(1, 11)]
        ---
        $result = []
        for $i in range(1, 11):
            $result.append($n * $i)
        return $result
        ---
        return list(range($n, $n * 11, $n)) if $n else [0] * 10
        """,
        lambda n: [n * i for i in range(1, 11)],
    ),
    family(
        "age_price",
        "ticket_price ~price_for_age cinema_price entry_price",
        "age:int -> int",
        """
        Children under 12 pay $p, people of 65 or over $q, everyone else $r.
        = the ticket price: $p under 12, $q from 65 on, otherwise $r
        Return $p if $age is below 12, $q if it is at least 65, and $r otherwise.
        # the price of a ticket: $p for children under 12, $q from 65, else $r
        """,
        """
        if $age < 12:
            return $p
        if $age >= 65:
            return $q
        return $r
        ---
        if $age < 12:
            return $p
        elif $age >= 65:
            return $q
        else:
            return $r
        """,
        lambda age, p, q, r: p if age < 12 else q if age >= 65 else r,
        lambda rng: (rng.choice((5, 11, 12, 30, 64, 65, 80, rng.randint(1, 90))),),
        choices={"p": (2, 3, 4, 5), "q": (6, 7, 8), "r": (9, 10, 12, 15)},
    ),
    family(
        "cart_quantities",
        "~total_price cart_value order_total bill_total",
        "cart:dict prices:dict -> int",
        """
        # the total price of a cart that maps items to quantities, with a dictionary of prices
        # the cost of all items in $cart: each quantity times its price in $prices
        Given quantities and unit prices by item, return the total price.
        Multiply each quantity in $cart by the price of the item and add everything up.
        """,
        """
        return sum($prices[$k] * $v for $k, $v in $cart.items())
        ---
        $total = 0
        for $k in $cart:
            $total += $cart[$k] * $prices[$k]
        return $total
        ---
        $total = 0
        for $k, $v in $cart.items():
            $total += $v * $prices[$k]
        return $total
        """,
        lambda cart, prices: sum(prices[k] * v for k, v in cart.items()),
        lambda rng: (
            {
                k: rng.randint(1, 4)
                for k in rng.sample(["apple", "pear", "milk"], rng.randint(1, 3))
            },
            {k: rng.randint(2, 9) for k in ("apple", "pear", "milk")},
        ),
    ),
    family(
        "average_grades",
        "average_grades ~averages student_averages mean_grades",
        "grades:dict -> dict[str, float]",
        """
        = a dictionary with the average [grade|score] of each student
        Given a dictionary of students and their lists of grades, return each average.
        Map each name in $grades to the average of its list of grades.
        # the average of the list of grades of every student in a dictionary
        """,
        """
        return {$k: sum($v) / len($v) for $k, $v in $grades.items()}
        ---
        $result = {}
        for $k, $v in $grades.items():
            $result[$k] = sum($v) / len($v)
        return $result
        """,
        lambda grades: {k: sum(v) / len(v) for k, v in grades.items()},
        lambda rng: (
            {
                k: [rng.randint(1, 6) for _ in range(rng.choice((1, 2, 4)))]
                for k in rng.sample(["Ann", "Bob", "Eve", "Tom"], rng.randint(1, 3))
            },
        ),
    ),
    family(
        "calculator",
        "calculate calculator compute apply_operator",
        "a:int b:int sign:word -> float",
        """
        Apply the operator "+", "-" or "*" [given as |in ]$sign to $a and $b.
        A simple calculator: $sign is "+", "-" or "*".
        = the result of $a and $b by the operator $sign, which is "+", "-" or "*"
        Add, subtract or multiply $a and $b, depending on $sign ("+", "-" or "*").
        """,
        """
        if $sign == "+":
            return $a + $b
        if $sign == "-":
            return $a - $b
        return $a * $b
        ---
        if $sign == "+":
            return $a + $b
        elif $sign == "-":
            return $a - $b
        elif $sign == "*":
            return $a * $b
        """,
        lambda a, b, sign: a + b if sign == "+" else a - b if sign == "-" else a * b,
        lambda rng: (rng.randint(0, 12), rng.randint(1, 9), rng.choice("+-*")),
    ),
    family(
        "introduce",
        "introduce describe_person introduction about_me",
        "word:word age:pos -> str",
        """
        = a sentence of the form "My name is Bob and I am 9 years old." from $word and $age
        Return "My name is ... and I am ... years old." with name and age filled in.
        Introduce a person, as in "My name is Eve and I am 9 years old.", by name and age.
        Put $word and $age into "My name is ... and I am ... years old.", in this order.
        """,
        """
        return f"My name is {$word} and I am {$age} years old."
        ---
        return "My name is " + $word + " and I am " + str($age) + " years old."
        ---
        return "My name is %s and I am %d years old." % ($word, $age)
        ---
        return "My name is {} and I am {} years old.".format($word, $age)
        """,
        lambda name, age: f"My name is {name} and I am {age} years old.",
        lambda rng: (rng.choice(("Ann", "Bob", "Eve", "Tom")), rng.randint(2, 60)),
    ),
    family(
        "book_class",
        "Book LibraryBook Novel Volume",
        "",
        """
        A book with title, author and available (True at first); borrow() and give_back() set it.
        Has title and author; available is False after borrow() and True after give_back().
        A library book: title, author, available, and the methods borrow and give_back.
        Store title and author; borrow() makes available False, give_back() True.
        """,
        """
        def __init__(self, title, author):
            self.title = title
            self.author = author
            self.available = True

        def borrow(self):
            self.available = False

        def give_back(self):
            self.available = True
        ---
        available = True

        def __init__(self, title, author):
            self.title = title
            self.author = author

        def borrow(self):
            self.available = False

        def give_back(self):
            self.available = True
        """,
        Book,
        lambda rng: (
            (rng.choice(("Emma", "Dune", "Momo")), rng.choice(("Austen", "Herbert", "Ende"))),
            [
                *rng.choice(([], [("borrow",)], [("borrow",), ("give_back",)])),
                ("title",),
                ("author",),
                ("available",),
            ],
        ),
        kind="class",
    ),
    family(
        "gradebook_class",
        "Gradebook GradeBook Scores Marks",
        "",
        """
        A list of grades with the methods add(grade) and average() (0 if there are none).
        Collect grades by add(grade); average() returns their mean, or 0 without grades.
        Has grades, an empty list at first, add(grade) and average(), 0 for no grades.
        Keep grades in a list; add appends one, average is their mean (0 if empty).
        """,
        """
        def __init__(self):
            self.grades = []

        def add(self, grade):
            self.grades.append(grade)

        def average(self):
            if not self.grades:
                return 0
            return sum(self.grades) / len(self.grades)
        ---
        def __init__(self):
            self.grades = []

        def add(self, grade):
            self.grades.append(grade)

        def average(self):
            if len(self.grades) == 0:
                return 0
            total = 0
            for grade in self.grades:
                total += grade
            return total / len(self.grades)
        """,
        Gradebook,
        lambda rng: (
            (),
            [*(("add", rng.randint(1, 6)) for _ in range(rng.choice((0, 1, 2, 4)))), ("average",)],
        ),
        kind="class",
    ),
    family(
        "point_distance_between_class",
        "Point Point2D Dot Place",
        "",
        """
        A point with x and y, and distance_to(x, y), the distance to another point.
        Has coordinates x and y; distance_to(x, y) is the distance from there.
        A point in the plane; the method distance_to(x, y) measures how far (x, y) is.
        Store x and y; distance_to(x, y) returns the distance to these coordinates.
        """,
        """
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def distance_to(self, x, y):
            return ((self.x - x) ** 2 + (self.y - y) ** 2) ** 0.5
        ---
        import math
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def distance_to(self, x, y):
            return math.hypot(self.x - x, self.y - y)
        ---
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def distance_to(self, x, y):
            dx = self.x - x
            dy = self.y - y
            return (dx * dx + dy * dy) ** 0.5
        """,
        Pair,
        lambda rng: (
            (rng.randint(-5, 9), rng.randint(-5, 9)),
            [("distance_to", rng.randint(-5, 9), rng.randint(-5, 9)), ("x",), ("y",)],
        ),
        kind="class",
    ),
    family(
        "recursive_factorial",
        "recursive_factorial factorial_recursive rec_factorial factorial_rec",
        "n:nat -> int",
        """
        # the factorial of $n [recursively|by recursion|using recursion]
        = the factorial of $n, computed recursively
        = $n factorial; the function calls itself
        Use recursion to [compute|find] the factorial of $n.
        """,
        """
        if $n <= 1:
            return 1
        return $n * $self($n - 1)
        ---
        if $n == 0:
            return 1
        else:
            return $n * $self($n - 1)
        ---
        return 1 if $n < 2 else $n * $self($n - 1)
        """,
        math.factorial,
    ),
    family(
        "recursive_fibonacci",
        "recursive_fibonacci fibonacci_recursive rec_fibonacci fib_rec",
        "n:nat -> int",
        """
        # the $n-th Fibonacci number [recursively|by recursion], where the first two are 0 and 1
        = the $n-th Fibonacci number (0, 1, 1, 2, ...), computed recursively
        Use recursion to find Fibonacci number $n, where number 0 is 0 and number 1 is 1.
        = Fibonacci number $n; the function calls itself twice
        """,
        """
        if $n < 2:
            return $n
        return $self($n - 1) + $self($n - 2)
        ---
        if $n == 0:
            return 0
        if $n == 1:
            return 1
        return $self($n - 1) + $self($n - 2)
        ---
        if $n <= 1:
            return $n
        else:
            return $self($n - 1) + $self($n - 2)
        """,
        fibonacci,
    ),
    family(
        "recursive_gcd",
        "recursive_gcd gcd_recursive rec_gcd gcd_rec",
        "a:pos b:pos -> int",
        """
        # the greatest common divisor of $a and $b recursively[, by Euclid's algorithm|]
        = the greatest common divisor of $a and $b, computed by recursion
        Use Euclid's algorithm and recursion to find the greatest common divisor.
        Apply Euclid's algorithm recursively to $a and $b.
        """,
        """
        if $b == 0:
            return $a
        return $self($b, $a % $b)
        ---
        return $a if $b == 0 else $self($b, $a % $b)
        """,
        math.gcd,
    ),
    family(
        "guess_hint",
        "check_guess guess_hint compare_guess hint",
        "guess:int secret:int -> str",
        """
        Return "too low", "too high" or "correct" for a guess of the secret number.
        Compare $guess with $secret and answer "too low", "too high" or "correct".
        = "correct" if the guess is right, otherwise "too low" or "too high"
        In a guessing game, tell whether $guess is "too low", "too high" or "correct".
        """,
        """
        if $guess < $secret:
            return "too low"
        if $guess > $secret:
            return "too high"
        return "correct"
        ---
        if $guess == $secret:
            return "correct"
        elif $guess < $secret:
            return "too low"
        else:
            return "too high"
        """,
        lambda g, s: "too low" if g < s else "too high" if g > s else "correct",
        lambda rng: (rng.randint(1, 9), rng.randint(1, 9)),
    ),
    family(
        "water_state",
        "water_state state_of_water ~state phase",
        "celsius:int -> str",
        """
        Return "ice" up to 0 degrees, "steam" from 100 degrees, otherwise "water".
        = "ice", "water" or "steam" for a temperature in Celsius (ice to 0, steam from 100)
        Say whether water is "ice" (0 or less), "water" or "steam" (100 or more).
        = the state of water: "ice" at 0 or below, "steam" at 100 or above, else "water"
        """,
        """
        if $celsius <= 0:
            return "ice"
        if $celsius >= 100:
            return "steam"
        return "water"
        ---
        if $celsius <= 0:
            return "ice"
        elif $celsius < 100:
            return "water"
        else:
            return "steam"
        """,
        lambda c: "ice" if c <= 0 else "steam" if c >= 100 else "water",
        lambda rng: (rng.choice((-10, 0, 1, 25, 60, 99, 100, 101, rng.randint(-30, 130))),),
    ),
    family(
        "remove_all",
        "remove_all remove_value without_item delete_all",
        "items:nats value:small -> list[int]",
        """
        Remove [all|every] occurrences of $value from [a list|$items] and return the new list.
        = a list without the items that equal $value
        = [a copy of |]$items without $value
        Delete every $value from the list and return the result.
        """,
        """
        return [$x for $x in $items if $x != $value]
        ---
        $result = []
        for $x in $items:
            if $x != $value:
                $result.append($x)
        return $result
        ---
        $new = list($items)
        while $value in $new:
            $new.remove($value)
        return $new
        """,
        lambda items, value: [x for x in items if x != value],
    ),
    family(
        "star_box",
        "star_rectangle rectangle_of_stars draw_rectangle ~box",
        "width:one height:one -> str",
        """
        = a rectangle of stars as a string with $height lines of $width stars
        Draw a rectangle of stars, $width wide and $height high, as one string.
        Build $height lines of $width stars each, joined by line breaks.
        = text of $height rows with $width stars in each row
        """,
        """
        return "\\n".join("*" * $width for $i in range($height))
        ---
        $row = "*" * $width
        return "\\n".join([$row] * $height)
        ---
        $parts = []
        for $i in range($height):
            $parts.append("*" * $width)
        return "\\n".join($parts)
        """,
        lambda width, height: "\n".join(["*" * width] * height),
    ),
    family(
        "average_of_three",
        "average_of_three mean_of_three average_three mean_three",
        "a:int b:int c:int -> float",
        """
        # the average of three numbers
        # the mean of $a, $b and $c
        Add $a, $b and $c and divide the sum by 3.
        Given three numbers, return their average.
        """,
        """
        return ($a + $b + $c) / 3
        ---
        $total = $a + $b + $c
        return $total / 3
        ---
        return sum([$a, $b, $c]) / 3
        """,
        lambda a, b, c: (a + b + c) / 3,
    ),
    family(
        "car_class",
        "Car Truck Van Bus",
        "",
        """
        A car with a brand, kilometers (0 at first) and drive(distance), which adds to them.
        Has brand and kilometers; drive(distance) adds the distance to kilometers.
        A car: brand, kilometers (starting at 0), and the method drive(distance).
        Store the brand; kilometers begins at 0 and grows by drive(distance).
        """,
        """
        def __init__(self, brand):
            self.brand = brand
            self.kilometers = 0

        def drive(self, distance):
            self.kilometers += distance
        ---
        def __init__(self, brand, kilometers=0):
            self.brand = brand
            self.kilometers = kilometers

        def drive(self, distance):
            self.kilometers = self.kilometers + distance
        """,
        Car,
        lambda rng: (
            (rng.choice(("Fiat", "Volvo", "Ford")),),
            [
                *(("drive", rng.randint(1, 90)) for _ in range(rng.choice((0, 1, 2)))),
                ("brand",),
                ("kilometers",),
            ],
        ),
        kind="class",
    ),
    family(
        "counter_method_class",
        "Counter Clicker SimpleCounter PushCounter",
        "",
        """
        A counter that starts at zero, with the methods increment, reset and get_value.
        Counts from 0: increment() adds 1, reset() goes back to 0, get_value() tells the count.
        A simple counter with increment(), reset() and get_value(), which returns the count.
        Keep a count: increment raises it, reset sets it to 0, get_value returns it.
        """,
        """
        def __init__(self):
            self.count = 0

        def increment(self):
            self.count += 1

        def reset(self):
            self.count = 0

        def get_value(self):
            return self.count
        ---
        def __init__(self):
            self.value = 0

        def increment(self):
            self.value = self.value + 1

        def reset(self):
            self.value = 0

        def get_value(self):
            return self.value
        """,
        Clicks,
        lambda rng: (
            (),
            [
                *(
                    rng.choice((("increment",), ("increment",), ("reset",)))
                    for _ in range(rng.randint(1, 5))
                ),
                ("get_value",),
            ],
        ),
        kind="class",
    ),
    family(
        "cart_list_class",
        "ShoppingCart Cart Basket Receipt",
        "",
        """
        A shopping cart with add(name, price), count() and total().
        Keeps a list of items: add(name, price) appends one, count() and total() tell about them.
        A cart where add puts in a name and a price; count is of items, total of prices.
        Store names and prices by add; total() adds up the prices, count() the items.
        """,
        """
        def __init__(self):
            self.items = []

        def add(self, name, price):
            self.items.append((name, price))

        def count(self):
            return len(self.items)

        def total(self):
            return sum(price for name, price in self.items)
        ---
        def __init__(self):
            self.items = []

        def add(self, name, price):
            self.items.append((name, price))

        def count(self):
            return len(self.items)

        def total(self):
            total = 0
            for name, price in self.items:
                total += price
            return total
        """,
        CartList,
        lambda rng: (
            (),
            [
                *(
                    ("add", rng.choice(("tea", "milk", "bread")), rng.randint(1, 9))
                    for _ in range(rng.randint(0, 3))
                ),
                ("count",),
                ("total",),
            ],
        ),
        kind="class",
    ),
    family(
        "aged_speaker_class",
        "Dog Puppy Hound Pet",
        "",
        """
        A dog with a name and an age; bark() returns "NAME says woof!".
        Has name and age; bark() returns the name followed by " says woof!".
        A dog made from name and age, with a method bark that returns "NAME says woof!".
        Store name and age, and let bark() return, for Rex, "Rex says woof!".
        """,
        """
        def __init__(self, name, age):
            self.name = name
            self.age = age

        def bark(self):
            return self.name + " says woof!"
        ---
        def __init__(self, name, age):
            self.name = name
            self.age = age

        def bark(self):
            return f"{self.name} says woof!"
        """,
        Dog,
        lambda rng: (
            (rng.choice(("Rex", "Bo", "Bella", "Max")), rng.randint(1, 12)),
            [("name",), ("age",), ("bark",)],
        ),
        kind="class",
    ),
    family(
        "word_counts_any_case",
        "count_words word_frequency word_counts_any_case count_words_any_case",
        "text:text -> dict[str, int]",
        """
        = a dictionary with the frequency of each word in $text, ignoring case
        Count how often each word occurs, in lower case.
        Build a dictionary of word frequencies (case-insensitive).
        = how often each word occurs, ignoring upper and lower case, as a dictionary
        """,
        """
        $counts = {}
        for $w in $text.lower().split():
            $counts[$w] = $counts.get($w, 0) + 1
        return $counts
        ---
        $counts = {}
        for $w in $text.split():
            $w = $w.lower()
            if $w in $counts:
                $counts[$w] += 1
            else:
                $counts[$w] = 1
        return $counts
        """,
        lambda text: {w: text.lower().split().count(w) for w in text.lower().split()},
        lambda rng: (
            " ".join(
                rng.choice(("the", "The", "cat", "Cat", "a")) for _ in range(rng.randint(0, 6))
            ),
        ),
    ),
    family(
        "queue_length_class",
        "Queue Line WaitingQueue FifoQueue",
        "",
        """
        A first-in, first-out queue with enqueue, dequeue and __len__.
        A queue: enqueue adds an item, dequeue removes the oldest, len() counts them.
        Store items so that dequeue returns the one first added by enqueue; has a len().
        A queue of items with the methods enqueue, dequeue and __len__.
        """,
        """
        def __init__(self):
            self.items = []

        def enqueue(self, item):
            self.items.append(item)

        def dequeue(self):
            return self.items.pop(0)

        def __len__(self):
            return len(self.items)
        ---
        from collections import deque
        def __init__(self):
            self.items = deque()

        def enqueue(self, item):
            self.items.append(item)

        def dequeue(self):
            return self.items.popleft()

        def __len__(self):
            return len(self.items)
        """,
        Line,
        lambda rng: (
            (),
            [
                ("enqueue", rng.randint(0, 9)),
                ("enqueue", rng.randint(10, 19)),
                *rng.choice(([], [("dequeue",)], [("dequeue",), ("dequeue",)])),
                ("len",),
            ],
        ),
        kind="class",
    ),
]
