"""Lists made from other lists: kept, changed, numbered."""

from qwenkit.programs.family import family

FAMILIES = [
    family(
        "squares_to",
        "~squares squares_up_to list_of_squares first_squares",
        "n:small -> list[int]",
        """
        = a list of the squares of the numbers from 1 to $n
        = the squares of 1, 2, ..., $n as a list
        List the squares of the first $n positive integers.
        = the first $n square numbers, starting with 1
        """,
        """
        return [$i ** 2 for $i in range(1, $n + 1)]
        ---
        return [$i * $i for $i in range(1, $n + 1)]
        ---
        $result = []
        for $i in range(1, $n + 1):
            $result.append($i * $i)
        return $result
        """,
        lambda n: [i * i for i in range(1, n + 1)],
    ),
    family(
        "positions",
        "~positions indices_of all_indices find_all",
        "items:nats target:small -> list[int]",
        """
        = a list of all positions of $target in $items
        = the indices at which $target occurs in a list
        List every index of $items where the element is $target.
        Find all positions of a value in a list, counted from 0.
        """,
        """
        return [$i for $i, $x in enumerate($items) if $x == $target]
        ---
        $result = []
        for $i in range(len($items)):
            if $items[$i] == $target:
                $result.append($i)
        return $result
        """,
        lambda items, target: [i for i, x in enumerate(items) if x == target],
        lambda rng: ([rng.randint(0, 3) for _ in range(rng.randint(0, 6))], rng.randint(0, 3)),
    ),
    family(
        "numbered",
        "numbered number_lines with_numbers enumerate_words",
        "words:words -> list[str]",
        """
        = the words with their numbers in front, as in "1. apple"
        Number the strings in $words from 1, as in "2. pear".
        = a list of the words, each after its number from 1 on, a dot and a space
        Put a number, a dot and a space before each word, starting with 1.
        """,
        """
        return [f"{$i}. {$w}" for $i, $w in enumerate($words, 1)]
        ---
        $result = []
        for $i, $w in enumerate($words):
            $result.append(f"{$i + 1}. {$w}")
        return $result
        ---
        $result = []
        $i = 1
        for $w in $words:
            $result.append(str($i) + ". " + $w)
            $i += 1
        return $result
        """,
        lambda words: [f"{i}. {word}" for i, word in enumerate(words, 1)],
    ),
    family(
        "all_pairs",
        "all_pairs ~pairs ~combinations cross",
        "left:nats right:nats -> list[tuple[int, int]]",
        """
        = all pairs with one element from $left and one from $right
        List all tuples (x, y) with x from $left and y from $right.
        Combine each element of the first list with each of the second.
        = the Cartesian product of two lists as a list of tuples
        """,
        """
        return [($x, $y) for $x in $left for $y in $right]
        ---
        $result = []
        for $x in $left:
            for $y in $right:
                $result.append(($x, $y))
        return $result
        """,
        lambda left, right: [(x, y) for x in left for y in right],
        lambda rng: tuple([rng.randint(0, 9) for _ in range(rng.randint(0, 3))] for _ in range(2)),
    ),
    family(
        "even_or_odd_words",
        "label_parity even_odd_labels parity_words label_numbers",
        "numbers:ints -> list[str]",
        """
        = a list with "even" or "odd" for each number in $numbers
        Say for each number of a list whether it is "even" or "odd".
        Replace each even number by "even" and each odd number by "odd".
        = the parities of the numbers in $numbers as words
        """,
        """
        return ["even" if $x % 2 == 0 else "odd" for $x in $numbers]
        ---
        $result = []
        for $x in $numbers:
            if $x % 2 == 0:
                $result.append("even")
            else:
                $result.append("odd")
        return $result
        """,
        lambda numbers: ["odd" if x % 2 else "even" for x in numbers],
    ),
    family(
        "replace_negatives",
        "replace_negatives negatives_to_zero clip_at_zero no_negatives",
        "numbers:ints -> list[int]",
        """
        = $numbers with every negative number replaced by $k
        Replace the negative numbers of a list by $k.
        = a copy of $numbers in which numbers below zero have become $k
        Put $k in the place of each negative number in $numbers.
        """,
        """
        return [$x if $x >= 0 else $k for $x in $numbers]
        ---
        $result = []
        for $x in $numbers:
            if $x < 0:
                $result.append($k)
            else:
                $result.append($x)
        return $result
        """,
        lambda numbers, k: [k if x < 0 else x for x in numbers],
        choices={"k": (0, 0, 1, 100)},
    ),
    family(
        "partition",
        "partition split_by_sign separate split_at_zero",
        "numbers:ints -> tuple[list[int], list[int]]",
        """
        = two lists: the negative numbers in $numbers, and the others
        Split $numbers into a list of the negative ones and a list of the rest.
        Separate negative numbers from the others[; return both lists|, as a pair of lists].
        = a tuple of the numbers below zero and those from zero on
        """,
        """
        $left = [$x for $x in $numbers if $x < 0]
        $right = [$x for $x in $numbers if $x >= 0]
        return $left, $right
        ---
        $left = []
        $right = []
        for $x in $numbers:
            if $x < 0:
                $left.append($x)
            else:
                $right.append($x)
        return $left, $right
        """,
        lambda numbers: ([x for x in numbers if x < 0], [x for x in numbers if x >= 0]),
    ),
    family(
        "split_even_odd",
        "split_even_odd evens_and_odds separate_even_odd partition_parity",
        "numbers:ints -> tuple[list[int], list[int]]",
        """
        = two lists: the even numbers in $numbers, and the odd ones
        Split $numbers into a list of even and a list of odd numbers.
        Separate even numbers from odd ones and return both lists.
        = a tuple of the even numbers and the odd numbers of a list
        """,
        """
        $left = [$x for $x in $numbers if $x % 2 == 0]
        $right = [$x for $x in $numbers if $x % 2 != 0]
        return $left, $right
        ---
        $left = []
        $right = []
        for $x in $numbers:
            if $x % 2 == 0:
                $left.append($x)
            else:
                $right.append($x)
        return $left, $right
        """,
        lambda numbers: ([x for x in numbers if x % 2 == 0], [x for x in numbers if x % 2]),
    ),
    family(
        "words_with_letter",
        "words_with_letter words_containing with_letter filter_by_letter",
        "words:words letter:letter -> list[str]",
        """
        = the words in $words that contain $letter
        List the strings in $words in which $letter occurs.
        Keep only the words that contain a given letter.
        = all words of a list with the letter $letter in them
        """,
        """
        return [$w for $w in $words if $letter in $w]
        ---
        $result = []
        for $w in $words:
            if $letter in $w:
                $result.append($w)
        return $result
        """,
        lambda words, letter: [w for w in words if letter in w],
    ),
    family(
        "longer_than",
        "longer_than words_longer_than long_words filter_long",
        "words:words n:small -> list[str]",
        """
        = the words in $words that have more than $n letters
        List the strings in $words that are longer than $n characters.
        Keep only words longer than $n.
        = all words of a list whose length is greater than $n
        """,
        """
        return [$w for $w in $words if len($w) > $n]
        ---
        $result = []
        for $w in $words:
            if len($w) > $n:
                $result.append($w)
        return $result
        ---
        return list(filter(lambda $w: len($w) > $n, $words))
        """,
        lambda words, n: [w for w in words if len(w) > n],
    ),
    family(
        "lengths",
        "~lengths word_lengths lengths_of string_lengths",
        "words:words -> list[int]",
        """
        = a list of the lengths of the words in $words
        = the length of each string in $words
        List how many characters each word has.
        Replace each word of a list by its length.
        """,
        """
        return [len($w) for $w in $words]
        ---
        return list(map(len, $words))
        ---
        $result = []
        for $w in $words:
            $result.append(len($w))
        return $result
        """,
        lambda words: list(map(len, words)),
    ),
    family(
        "parse_ints",
        "parse_ints to_ints ~numbers_in parse_numbers",
        "text:text -> list[int]",
        """
        = the integers in $text, which are separated by "$sep", as a list
        Turn a string of integers separated by "$sep" into a list of numbers.
        Split $text at "$sep" and convert the parts to integers.
        Parse numbers with "$sep" between them into a list of integers.
        """,
        """
        return [int($x) for $x in $text.split("$sep")]
        ---
        return list(map(int, $text.split("$sep")))
        ---
        $result = []
        for $x in $text.split("$sep"):
            $result.append(int($x))
        return $result
        """,
        lambda text, sep: [int(x) for x in text.split(sep)],
        lambda rng, sep: (sep.join(str(rng.randint(0, 99)) for _ in range(rng.randint(1, 5))),),
        choices={"sep": (",", " ", ";", ":")},
    ),
    family(
        "count_if_equal",
        "count_matches ~matches equal_positions same_positions",
        "left:nats right:nats -> int",
        """
        # the number of positions at which $left and $right are equal
        Count the positions where two lists of the same length agree.
        = how many elements of $left are equal to those of $right in the same place
        Count at how many indices both lists have the same value.
        """,
        """
        return sum(1 for $x, $y in zip($left, $right) if $x == $y)
        ---
        $count = 0
        for $i in range(len($left)):
            if $left[$i] == $right[$i]:
                $count += 1
        return $count
        """,
        lambda left, right: sum(a == b for a, b in zip(left, right, strict=True)),
        lambda rng: tuple([rng.randint(0, 2) for _ in range(4)] for _ in range(2)),
    ),
    family(
        "hamming",
        "~hamming_distance hamming count_differences ~mismatches",
        "a:word b:word -> int",
        """
        # the number of positions at which the strings $a and $b differ
        # the Hamming distance of two strings of the same length
        Count the positions where two equally long strings have different characters.
        = how many characters of $a are not the same in $b
        """,
        """
        return sum(1 for $x, $y in zip($a, $b) if $x != $y)
        ---
        $count = 0
        for $i in range(len($a)):
            if $a[$i] != $b[$i]:
                $count += 1
        return $count
        """,
        lambda a, b: sum(x != y for x, y in zip(a, b, strict=True)),
        lambda rng: tuple("".join(rng.choices("ab", k=4)) for _ in range(2)),
    ),
    family(
        "full_names",
        "full_names join_names make_full_names combine_names",
        "left:words right:words -> list[str]",
        """
        = the full names made of the first names $left and the last names $right
        Join first and last names, with a space between, into a list of full names.
        Combine two lists of strings into one, with a space between each two.
        = a list of "first last" from a list of first and a list of last names
        """,
        """
        return [f"{$x} {$y}" for $x, $y in zip($left, $right)]
        ---
        return [$x + " " + $y for $x, $y in zip($left, $right)]
        ---
        $result = []
        for $i in range(len($left)):
            $result.append($left[$i] + " " + $right[$i])
        return $result
        """,
        lambda left, right: [f"{a} {b}" for a, b in zip(left, right, strict=True)],
        lambda rng: (rng.sample(("Ada", "Bob", "Eve"), 2), rng.sample(("Lee", "Fox", "Ray"), 2)),
    ),
    family(
        "every_kth",
        "every_$k step_by_$k take_every_$k every_nth",
        "items:ints -> list[int]",
        """
        = every $k-th element of $items, starting with the first
        = the elements of $items at the positions 0, $k and so on
        Take one in $k elements of a list, beginning with the first.
        Walk through $items in steps of $k and list the elements.
        """,
        """
        return $items[::$k]
        ---
        return [$items[$i] for $i in range(0, len($items), $k)]
        ---
        $result = []
        for $i, $x in enumerate($items):
            if $i % $k == 0:
                $result.append($x)
        return $result
        """,
        lambda items, k: items[::k],
        choices={"k": (2, 3, 4)},
    ),
]
