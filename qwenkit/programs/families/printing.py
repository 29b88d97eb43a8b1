"""Functions that print; what is compared is the text they print.

They are drawn more often than others, because a first course begins with such tasks.
"""

from collections.abc import Iterable

from qwenkit.programs.family import family
from qwenkit.programs.slots import WORDS

_NAMES = ("Ann", "Bob", "Eve", "Tom", "Anna", "Max", "Lena", "Sam")
_GREETINGS = ("Hello", "Hi", "Welcome", "Good morning")
_OFTEN = 4.0


def _lines(values: Iterable[object]) -> str:
    """Return each value in a line of its own."""
    return "".join(f"{value}\n" for value in values)


FAMILIES = [
    family(
        "print_greeting",
        "greet say_hello print_greeting welcome",
        'name:word greeting:word="Hello" -> None',
        """
        Print a greeting such as "Hello, Bob!" from $greeting and $name.
        Greet somebody by name: print $greeting, a comma, $name and an exclamation mark.
        Print "Hello, Bob!" for the name Bob; the first word is $greeting.
        Print $greeting and $name in the form "Hello, Bob!".
        """,
        """
        print("%s, %s!" % ($greeting, $name))
        ---
        print(f"{$greeting}, {$name}!")
        ---
        print($greeting + ", " + $name + "!")
        ---
        print("{}, {}!".format($greeting, $name))
        ---
        print('%s, %s!' % ($greeting, $name))
        """,
        lambda name, greeting="Hello": f"{greeting}, {name}!\n",
        lambda rng: (rng.choice(_NAMES), rng.choice(_GREETINGS))[: rng.randint(1, 2)],
        weight=2 * _OFTEN,
    ),
    family(
        "print_sentence",
        "introduce print_person print_age show_person",
        "name:word age:pos -> None",
        """
        Print "$name is $age years old." with the name and the age filled in.
        Print a sentence such as "Bob is 9 years old." about a person.
        Print how old somebody is, for example "Eve is 30 years old." for Eve and 30.
        Print $name and $age in a sentence like "Bob is 9 years old." and nothing else.
        """,
        """
        print("%s is %d years old." % ($name, $age))
        ---
        print(f"{$name} is {$age} years old.")
        ---
        print($name + " is " + str($age) + " years old.")
        ---
        print($name, "is", $age, "years old.")
        """,
        lambda name, age: f"{name} is {age} years old.\n",
        lambda rng: (rng.choice(_NAMES), rng.randint(2, 60)),
        weight=_OFTEN,
    ),
    family(
        "print_each",
        "print_items print_all print_list show_items",
        "items:words -> None",
        """
        Print each item of $items in a line of its own.
        Print all elements of [a list|$items], one per line.
        Go through $items and print every one of them.
        Print the elements of $items one after the other.
        """,
        """
        for $x in $items:
            print($x)
        ---
        for $i in range(len($items)):
            print($items[$i])
        """,
        _lines,
        lambda rng: ([rng.choice(WORDS) for _ in range(rng.randint(1, 5))],),
        weight=_OFTEN,
    ),
    family(
        "print_numbered",
        "print_numbered number_lines print_list show_numbered",
        "items:words -> None",
        """
        Print each item of $items after its number, as in "1. apple".
        Print a numbered list: "1. apple", "2. bread", and so on.
        Number the elements of $items from 1 and print them, as in "1. apple".
        Print the number of each item, a point, a space, and the item.
        """,
        """
        for $i, $x in enumerate($items, start=1):
            print(f"{$i}. {$x}")
        ---
        for $i, $x in enumerate($items, 1):
            print("%d. %s" % ($i, $x))
        ---
        $count = 1
        for $x in $items:
            print(str($count) + ". " + $x)
            $count += 1
        """,
        lambda items: _lines(f"{i}. {item}" for i, item in enumerate(items, 1)),
        lambda rng: ([rng.choice(WORDS) for _ in range(rng.randint(1, 4))],),
        weight=_OFTEN,
    ),
    family(
        "print_up_to",
        "print_numbers count_up print_up_to show_numbers",
        "n:pos -> None",
        """
        Print the numbers from 1 to $n, one per line.
        Count from 1 up to $n and print every number.
        Print all integers from 1 to $n, each in its own line.
        Print 1, 2, 3 and so on up to $n.
        """,
        """
        for $i in range(1, $n + 1):
            print($i)
        ---
        $i = 1
        while $i <= $n:
            print($i)
            $i += 1
        """,
        lambda n: _lines(range(1, n + 1)),
        lambda rng: (rng.randint(1, 8),),
        weight=_OFTEN,
    ),
    family(
        "print_countdown",
        "countdown count_down print_countdown launch",
        "n:pos -> None",
        """
        Print the numbers from $n down to 1, then "Go!".
        Count down from $n to 1, one number a line, and print "Go!" at the end.
        Print a countdown that starts at $n and ends with "Go!".
        Print $n, then the numbers below it down to 1, and last "Go!".
        """,
        """
        for $i in range($n, 0, -1):
            print($i)
        print("Go!")
        ---
        while $n > 0:
            print($n)
            $n -= 1
        print("Go!")
        """,
        lambda n: _lines([*range(n, 0, -1), "Go!"]),
        lambda rng: (rng.randint(1, 8),),
        weight=_OFTEN,
    ),
    family(
        "print_times_table",
        "print_table times_table multiplication_table print_multiples",
        "n:pos -> None",
        """
        Print the multiplication table of $n from 1 to $k, as in "3 x 2 = 6".
        Print the products of $n with the numbers from 1 to $k in the form "3 x 2 = 6".
        For each number from 1 to $k print a line such as "3 x 2 = 6", where $n comes first.
        Print the times table of $n with $k lines, each like "3 x 2 = 6".
        """,
        """
        for $i in range(1, $k + 1):
            print(f"{$n} x {$i} = {$n * $i}")
        ---
        for $i in range(1, $k + 1):
            print("%d x %d = %d" % ($n, $i, $n * $i))
        ---
        for $i in range(1, $k + 1):
            print($n, "x", $i, "=", $n * $i)
        """,
        lambda n, k: _lines(f"{n} x {i} = {n * i}" for i in range(1, k + 1)),
        lambda rng: (rng.randint(1, 12),),
        choices={"k": (3, 5, 10)},
        weight=_OFTEN,
    ),
    family(
        "print_triangle",
        "print_triangle draw_triangle print_stars stairs",
        "n:pos -> None",
        """
        Print a triangle of stars with $n rows: one star, then two, and so on.
        Print $n lines of stars; the first has one star, each other one more.
        Draw a triangle of "*" that is $n rows high.
        Print stairs of stars: "*", then "**", up to $n of them.
        """,
        """
        for $i in range(1, $n + 1):
            print("*" * $i)
        ---
        for $i in range($n):
            print("*" * ($i + 1))
        """,
        lambda n: _lines("*" * i for i in range(1, n + 1)),
        lambda rng: (rng.randint(1, 6),),
        weight=_OFTEN,
    ),
    family(
        "print_rectangle",
        "print_rectangle draw_rectangle print_box draw_box",
        "width:pos height:pos -> None",
        """
        Print a rectangle of stars, $width wide and $height high.
        Print $height lines of $width stars each.
        Draw a rectangle of "*" with $height rows and $width columns.
        Fill $height rows with $width stars each and print them.
        """,
        """
        for _ in range($height):
            print("*" * $width)
        ---
        for $i in range($height):
            print($width * "*")
        """,
        lambda width, height: _lines(["*" * width] * height),
        lambda rng: (rng.randint(1, 6), rng.randint(1, 4)),
        weight=_OFTEN,
    ),
    family(
        "print_mapping",
        "print_dict print_scores show_entries print_table",
        "d:dict -> None",
        """
        Print each key of $d with its value, as in "apple: 3".
        Print every entry of a dictionary in the form "apple: 3".
        Go through $d and print key, colon and value, one entry a line.
        Print the keys and values of $d, as in "apple: 3".
        """,
        """
        for $k, $v in $d.items():
            print(f"{$k}: {$v}")
        ---
        for $k in $d:
            print("%s: %s" % ($k, $d[$k]))
        ---
        for $k, $v in $d.items():
            print($k + ": " + str($v))
        """,
        lambda d: _lines(f"{k}: {v}" for k, v in d.items()),
        lambda rng: ({rng.choice(WORDS): rng.randint(0, 12) for _ in range(rng.randint(1, 4))},),
        weight=_OFTEN,
    ),
    family(
        "print_sum",
        "print_sum show_sum add_and_print print_total",
        "a:int b:int -> None",
        """
        Print the sum of $a and $b after the word "Sum:".
        Add $a and $b and print the result, as in "Sum: 7".
        Print "Sum: " and what $a and $b give together.
        Compute $a plus $b and print it in the form "Sum: 7".
        """,
        """
        print("Sum:", $a + $b)
        ---
        print(f"Sum: {$a + $b}")
        ---
        $total = $a + $b
        print("Sum: %d" % $total)
        ---
        $total = $a + $b
        print("Sum: " + str($total))
        """,
        lambda a, b: f"Sum: {a + b}\n",
        weight=_OFTEN,
    ),
    family(
        "print_even",
        "print_even print_evens show_even even_numbers",
        "numbers:ints -> None",
        """
        Print the even numbers of $numbers, one per line, and then "done".
        Print those numbers of $numbers that are even; at the end print "done".
        Go through $numbers and print only the even ones, then the word "done".
        Print every even element of a list and "done" after them.
        """,
        """
        for $x in $numbers:
            if $x % 2 == 0:
                print($x)
        print("done")
        ---
        for $x in $numbers:
            if $x % 2:
                continue
            print($x)
        print("done")
        """,
        lambda numbers: _lines([*(n for n in numbers if n % 2 == 0), "done"]),
        weight=_OFTEN,
    ),
]
