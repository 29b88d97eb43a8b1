"""Sets: what two collections have in common, and what is different."""

from qwenkit.programs.family import family

FAMILIES = [
    family(
        "common_elements",
        "common_elements common in_both shared_elements intersection",
        "left:nats right:nats -> list[int]",
        """
        = a sorted list of the elements that are in both $left and $right
        = the elements that two lists have in common, sorted and without duplicates
        Find the common elements of $left and $right, in sorted order.
        List every value that occurs in both lists once, in ascending order.
        """,
        """
        return sorted(set($left) & set($right))
        ---
        return sorted({$x for $x in $left if $x in $right})
        ---
        $result = []
        for $x in sorted($left):
            if $x in $right and $x not in $result:
                $result.append($x)
        return $result
        """,
        lambda left, right: sorted(set(left) & set(right)),
        lambda rng: tuple([rng.randint(0, 6) for _ in range(rng.randint(0, 5))] for _ in range(2)),
    ),
    family(
        "unique_sorted",
        "unique_sorted sorted_unique sort_unique distinct_sorted",
        "numbers:nats -> list[int]",
        """
        = the different numbers in $numbers in ascending order
        = a sorted list of $numbers without duplicates
        Sort a list of numbers and remove the duplicates.
        List each number of $numbers once, from smallest to largest.
        """,
        """
        return sorted(set($numbers))
        ---
        $result = []
        for $x in sorted($numbers):
            if $x not in $result:
                $result.append($x)
        return $result
        """,
        lambda numbers: sorted(set(numbers)),
        lambda rng: ([rng.randint(0, 5) for _ in range(rng.randint(0, 7))],),
    ),
    family(
        "difference",
        "~difference only_in_first subtract_lists without missing",
        "left:nats right:nats -> list[int]",
        """
        = the elements of $left that are not in $right
        List the elements of the first list that the second does not contain.
        Remove from $left all elements of $right[ and return the rest|].
        = $left without the values that occur in $right
        """,
        """
        return [$x for $x in $left if $x not in $right]
        ---
        $result = []
        for $x in $left:
            if $x not in $right:
                $result.append($x)
        return $result
        """,
        lambda left, right: [x for x in left if x not in right],
        lambda rng: tuple([rng.randint(0, 6) for _ in range(rng.randint(0, 5))] for _ in range(2)),
    ),
    family(
        "union_sorted",
        "union_sorted ~union all_elements in_either",
        "left:nats right:nats -> list[int]",
        """
        = a sorted list of the elements that are in $left or in $right
        = all different elements of two lists in ascending order
        Unite two lists into one sorted list without duplicates.
        List every value that occurs in either list once, sorted.
        """,
        """
        return sorted(set($left) | set($right))
        ---
        return sorted(set($left + $right))
        """,
        lambda left, right: sorted(set(left) | set(right)),
        lambda rng: tuple([rng.randint(0, 6) for _ in range(rng.randint(0, 5))] for _ in range(2)),
    ),
    family(
        "count_distinct",
        "count_distinct count_unique ~number_of_distinct num_unique",
        "items:nats -> int",
        """
        # the number of different elements in $items
        = how many distinct values $items has
        Count the distinct elements of [a list|$items].
        Count the elements of a list, equal ones only once.
        """,
        """
        return len(set($items))
        ---
        $seen = []
        for $x in $items:
            if $x not in $seen:
                $seen.append($x)
        return len($seen)
        """,
        lambda items: len(set(items)),
        lambda rng: ([rng.randint(0, 5) for _ in range(rng.randint(0, 7))],),
    ),
    family(
        "distinct_words",
        "distinct_words unique_words ~vocabulary set_of_words",
        "text:text -> set[str]",
        """
        = the set of the words in $text
        = the different words of a sentence as a set
        Collect the words of $text in a set.
        = a set that contains each word of $text once
        """,
        """
        return set($text.split())
        ---
        $result = set()
        for $w in $text.split():
            $result.add($w)
        return $result
        ---
        return {$w for $w in $text.split()}
        """,
        lambda text: set(text.split()),
    ),
    family(
        "letters_used",
        "letters_used letter_set ~distinct_letters unique_letters_of",
        "text:text -> set[str]",
        """
        = the set of the letters in $text, in lower case
        = the different letters of a string as a set of lowercase letters
        Collect the letters of $text in a set[, all of them in lower case|, lowercased].
        = a set with each letter that occurs in $text, in lower case
        """,
        """
        return {$ch for $ch in $text.lower() if $ch.isalpha()}
        ---
        $result = set()
        for $ch in $text.lower():
            if $ch.isalpha():
                $result.add($ch)
        return $result
        """,
        lambda text: {c for c in text.lower() if c.isalpha()},
    ),
    family(
        "is_subset",
        "is_subset all_in contains_all subset_of",
        "left:nats right:nats -> bool",
        """
        ? all elements of $left are in $right
        ? every element of the first list is also in the second
        ? the set of $left is a subset of that of $right
        Tell whether $right contains each element of $left.
        """,
        """
        return set($left) <= set($right)
        ---
        return all($x in $right for $x in $left)
        ---
        for $x in $left:
            if $x not in $right:
                return False
        return True
        """,
        lambda left, right: set(left) <= set(right),
        lambda rng: (
            [rng.randint(0, 5) for _ in range(rng.randint(0, 3))],
            rng.sample(range(6), 4),
        ),
    ),
    family(
        "have_common",
        "have_common share_element overlap any_common",
        "left:nats right:nats -> bool",
        """
        ? $left and $right have an element in common
        ? some element is in both lists
        ? at least one element of $left is also in $right
        Tell whether two lists share any value.
        """,
        """
        return bool(set($left) & set($right))
        ---
        return any($x in $right for $x in $left)
        ---
        for $x in $left:
            if $x in $right:
                return True
        return False
        """,
        lambda left, right: bool(set(left) & set(right)),
        lambda rng: tuple([rng.randint(0, 9) for _ in range(rng.randint(0, 4))] for _ in range(2)),
    ),
    family(
        "missing_numbers",
        "~missing_numbers find_missing missing_from ~gaps",
        "numbers:nats n:one -> list[int]",
        """
        = a list of the numbers from 1 to $n that are not in $numbers
        List all integers from 1 to $n that are missing from $numbers.
        Find which of the numbers 1, 2, ..., $n do not occur in a list.
        = the numbers between 1 and $n, ends included, that $numbers lacks
        """,
        """
        return [$i for $i in range(1, $n + 1) if $i not in $numbers]
        ---
        $result = []
        for $i in range(1, $n + 1):
            if $i not in $numbers:
                $result.append($i)
        return $result
        ---
        return sorted(set(range(1, $n + 1)) - set($numbers))
        """,
        lambda numbers, n: [i for i in range(1, n + 1) if i not in numbers],
        lambda rng: ([rng.randint(1, 7) for _ in range(rng.randint(0, 5))], rng.randint(1, 7)),
    ),
    family(
        "symmetric_difference",
        "~symmetric_difference in_exactly_one ~unshared not_in_both",
        "a:set b:set -> set[int]",
        """
        = the set of elements that are in exactly one of the sets $a and $b
        = the elements of two sets that are not in both
        Collect what is in $a or in $b, but not in both sets.
        = the symmetric difference of two sets
        """,
        """
        return $a ^ $b
        ---
        return ($a - $b) | ($b - $a)
        ---
        return ($a | $b) - ($a & $b)
        """,
        lambda a, b: a ^ b,
    ),
    family(
        "repeated",
        "~repeated ~duplicates find_duplicates repeated_items",
        "items:nats -> list[int]",
        """
        = a sorted list of the values that occur more than once in $items
        Find the duplicates in [a list|$items] and list each once, sorted.
        = the elements that are repeated in $items, each once, in ascending order
        List in sorted order what occurs at least twice in $items.
        """,
        """
        return sorted({$x for $x in $items if $items.count($x) > 1})
        ---
        $seen = set()
        $result = set()
        for $x in $items:
            if $x in $seen:
                $result.add($x)
            $seen.add($x)
        return sorted($result)
        """,
        lambda items: sorted({x for x in items if items.count(x) > 1}),
        lambda rng: ([rng.randint(0, 4) for _ in range(rng.randint(0, 7))],),
    ),
]
