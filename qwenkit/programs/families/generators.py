"""Functions that yield."""

from itertools import islice, pairwise

from qwenkit.programs.families.arithmetic import is_prime
from qwenkit.programs.families.loops import collatz, fibonacci
from qwenkit.programs.family import family

FAMILIES = [
    family(
        "countdown_generator",
        "countdown count_down down_from yield_down",
        "n:small -> Iterator[int]",
        """
        Yield the numbers from $n down to 1.
        Generate $n, $n - 1, and so on down to 1.
        Count down from $n to 1, one number at a time[, as a generator|].
        A generator of the integers from $n to 1 in decreasing order.
        Yield one number after another, from $n down to 1.
        """,
        """
        while $n > 0:
            yield $n
            $n -= 1
        ---
        for $i in range($n, 0, -1):
            yield $i
        ---
        yield from range($n, 0, -1)
        """,
        lambda n: list(range(n, 0, -1)),
    ),
    family(
        "count_up_generator",
        "count_up count_to up_to yield_numbers",
        "n:small -> Iterator[int]",
        """
        Yield the numbers from 1 to $n.
        Generate 1, 2, and so on up to $n.
        Count from 1 to $n, one number at a time[, as a generator|].
        A generator of the integers from 1 to $n.
        Yield one number after another, from 1 up to $n.
        """,
        """
        $i = 1
        while $i <= $n:
            yield $i
            $i += 1
        ---
        for $i in range(1, $n + 1):
            yield $i
        ---
        yield from range(1, $n + 1)
        """,
        lambda n: list(range(1, n + 1)),
    ),
    family(
        "evens_generator",
        "evens even_numbers generate_evens yield_evens",
        "n:nat -> Iterator[int]",
        """
        Yield the even numbers from 0 to $n.
        Generate all even numbers that are not greater than $n, starting at 0.
        A generator of 0, 2, 4 and so on up to $n.
        Yield every even number from 0 up to and including $n.
        Go through the even numbers up to $n with yield, from 0 on.
        """,
        """
        for $i in range(0, $n + 1, 2):
            yield $i
        ---
        for $i in range($n + 1):
            if $i % 2 == 0:
                yield $i
        ---
        $i = 0
        while $i <= $n:
            yield $i
            $i += 2
        """,
        lambda n: list(range(0, n + 1, 2)),
    ),
    family(
        "squares_generator",
        "squares generate_squares yield_squares square_numbers",
        "n:small -> Iterator[int]",
        """
        Yield the squares of the numbers from 1 to $n.
        Generate the first $n square numbers, starting with 1.
        A generator of 1, 4, 9 and so on, $n squares in all.
        Yield one square after another, from 1 to $n squared.
        Go through the squares of 1, 2, ..., $n with yield.
        """,
        """
        for $i in range(1, $n + 1):
            yield $i * $i
        ---
        for $i in range(1, $n + 1):
            yield $i ** 2
        """,
        lambda n: [i * i for i in range(1, n + 1)],
    ),
    family(
        "fibonacci_generator",
        "fibonacci_generator fib_gen generate_fibonacci yield_fibonacci",
        "n:nat -> Iterator[int]",
        """
        Yield the first $n Fibonacci numbers[, starting with 0|].
        Generate the first $n numbers of the sequence 0, 1, 1, 2, 3, 5, ...
        A generator of the first $n Fibonacci numbers.
        Yield $n Fibonacci numbers, one after the other, beginning with 0.
        Produce the Fibonacci sequence with yield, $n numbers long.
        """,
        """
        $x, $y = 0, 1
        for _ in range($n):
            yield $x
            $x, $y = $y, $x + $y
        ---
        $x, $y = 0, 1
        $count = 0
        while $count < $n:
            yield $x
            $x, $y = $y, $x + $y
            $count += 1
        """,
        fibonacci,
    ),
    family(
        "chunks_generator",
        "chunks generate_chunks yield_chunks in_chunks",
        "items:ints k:one -> Iterator[list[int]]",
        """
        Yield chunks of $k elements of $items (the last may be shorter).
        Generate lists of $k elements each from a list.
        A generator of the pieces of length $k of $items.
        Yield one piece of $k elements after another until $items is used up.
        Go through $items in chunks of size $k with yield.
        """,
        """
        for $i in range(0, len($items), $k):
            yield $items[$i : $i + $k]
        ---
        while $items:
            yield $items[:$k]
            $items = $items[$k:]
        """,
        lambda items, k: [items[i : i + k] for i in range(0, len(items), k)],
    ),
    family(
        "running_total_generator",
        "running_total running_totals yield_sums cumulative",
        "numbers:ints -> Iterator[int]",
        """
        Yield the running total of $numbers after each number.
        Generate the sums of the first 1, 2, 3, ... numbers.
        A generator of the cumulative sums of $numbers.
        Yield for each number the sum of it and all numbers before it.
        Add up $numbers and yield the total after every step.
        """,
        """
        $total = 0
        for $x in $numbers:
            $total += $x
            yield $total
        ---
        for $i in range(len($numbers)):
            yield sum($numbers[: $i + 1])
        """,
        lambda numbers: [sum(numbers[: i + 1]) for i in range(len(numbers))],
    ),
    family(
        "pairs_generator",
        "pairs neighbors yield_pairs adjacent",
        "items:ints -> Iterator[tuple[int, int]]",
        """
        Yield each element of $items together with the next one as a tuple.
        Generate the pairs of neighbors in $items.
        A generator of all pairs of consecutive elements of a list.
        Yield the tuples of two elements that are next to each other in $items.
        Go through the list and yield every element with its successor.
        """,
        """
        for $i in range(len($items) - 1):
            yield $items[$i], $items[$i + 1]
        ---
        for $x, $y in zip($items, $items[1:]):
            yield $x, $y
        """,
        lambda items: list(pairwise(items)),
    ),
    family(
        "primes_generator",
        "primes generate_primes yield_primes prime_numbers",
        "n:nat -> Iterator[int]",
        """
        Yield the prime numbers up to $n.
        Generate all primes that are not greater than $n.
        A generator of the primes from 2 to $n.
        Yield every prime number up to and including $n.
        Go through the primes up to $n with yield.
        """,
        """
        for $x in range(2, $n + 1):
            if all($x % $i != 0 for $i in range(2, $x)):
                yield $x
        ---
        for $x in range(2, $n + 1):
            for $i in range(2, $x):
                if $x % $i == 0:
                    break
            else:
                yield $x
        """,
        lambda n: [x for x in range(n + 1) if is_prime(x)],
        lambda rng: (rng.randint(0, 24),),
    ),
    family(
        "repeat_generator",
        "repeat repeat_value yield_times repeated",
        "value:int n:small -> Iterator[int]",
        """
        Yield $value $n times.
        Generate the same value $n times.
        A generator that gives $value again and again, $n times in all.
        Yield a value as often as $n says.
        Repeat $value $n times with yield.
        """,
        """
        for _ in range($n):
            yield $value
        ---
        while $n > 0:
            yield $value
            $n -= 1
        """,
        lambda value, n: [value] * n,
    ),
    family(
        "words_generator",
        "words_of yield_words each_word generate_words",
        "text:text -> Iterator[str]",
        """
        Yield the words of $text in upper case.
        Generate each word of $text, converted to uppercase.
        A generator of the words in $text, all in capital letters.
        Yield one word of a sentence after another in upper case.
        Go through the words of $text and yield each in uppercase.
        """,
        """
        for $w in $text.split():
            yield $w.upper()
        ---
        yield from $text.upper().split()
        """,
        lambda text: text.upper().split(),
    ),
    family(
        "filter_even_generator",
        "only_even yield_even even_only keep_even",
        "numbers:ints -> Iterator[int]",
        """
        Yield the even numbers in $numbers.
        Generate those numbers of a list that are even.
        A generator of the even elements of $numbers.
        Go through the list and yield each even number.
        Yield a number of $numbers only if it is even.
        """,
        """
        for $x in $numbers:
            if $x % 2 == 0:
                yield $x
        ---
        yield from ($x for $x in $numbers if $x % 2 == 0)
        """,
        lambda numbers: [x for x in numbers if x % 2 == 0],
    ),
    family(
        "cycle_generator",
        "cycle_times repeat_list loop_over go_round",
        "items:ints n:small -> Iterator[int]",
        """
        Yield the elements of $items in order, $n times over.
        Go $n times through $items and yield each element.
        A generator of all elements of a list, repeated $n times.
        Generate the elements of $items from first to last, $n rounds.
        Yield the list's elements again and again, for $n rounds.
        """,
        """
        for _ in range($n):
            for $x in $items:
                yield $x
        ---
        for _ in range($n):
            yield from $items
        """,
        lambda items, n: items * n,
    ),
    family(
        "collatz_generator",
        "collatz generate_collatz yield_collatz collatz_numbers",
        "n:pos -> Iterator[int]",
        """
        Yield the Collatz sequence from $n to 1.
        Generate the numbers that the Collatz rule visits from $n to 1.
        A generator of the Collatz sequence that starts at $n and ends with 1.
        Yield $n, then half of it if even or 3 * $n + 1 if odd, and so on to 1.
        Go through the Collatz numbers of $n with yield, 1 included.
        """,
        """
        while $n != 1:
            yield $n
            if $n % 2 == 0:
                $n //= 2
            else:
                $n = 3 * $n + 1
        yield 1
        ---
        yield $n
        while $n > 1:
            $n = $n // 2 if $n % 2 == 0 else 3 * $n + 1
            yield $n
        """,
        collatz,
        lambda rng: (rng.choice((1, 2, 3, 6, rng.randint(1, 16))),),
    ),
    family(
        "frange",
        "float_range frange steps step_range",
        "start:int stop:int step:one -> Iterator[int]",
        """
        Yield $start, $start + $step and so on, as long as it is below $stop.
        Generate numbers from $start to below $stop in steps of $step.
        A generator like range: from $start up to $stop (not included) by $step.
        Yield the numbers from $start in steps of $step; stop before $stop.
        Count from $start by $step and yield each number below $stop.
        """,
        """
        while $start < $stop:
            yield $start
            $start += $step
        ---
        $x = $start
        while $x < $stop:
            yield $x
            $x += $step
        """,
        lambda start, stop, step: list(range(start, stop, step)),
        lambda rng: (rng.randint(-3, 5), rng.randint(0, 12), rng.randint(1, 4)),
    ),
    family(
        "take_generator",
        "take first_items yield_first limit",
        "items:ints n:small -> Iterator[int]",
        """
        Yield the first $n elements of $items.
        Generate at most $n elements from the beginning of a list.
        A generator of the first $n items in $items.
        Go through $items and stop after $n elements.
        Yield no more than $n elements of a list, from its beginning.
        """,
        """
        for $i, $x in enumerate($items):
            if $i >= $n:
                break
            yield $x
        ---
        for $x in $items[:$n]:
            yield $x
        ---
        for $x in $items:
            if $n == 0:
                return
            yield $x
            $n -= 1
        """,
        lambda items, n: list(islice(items, n)),
    ),
]
