"""Lists: sums, extremes, order, parts."""

import itertools
import math
import statistics

from qwenkit.programs.family import family

FAMILIES = [
    family(
        "sum_list",
        "sum_list ~total sum_numbers add_all ~list_sum",
        "numbers:ints -> int",
        """
        # the sum of the numbers in $numbers
        # the sum of a list of numbers
        # the total of all numbers in the list[ $numbers|]
        Add up [the numbers in $numbers|all elements of a list].
        Given a list of numbers, return their sum (0 if it is empty).
        """,
        """
        return sum($numbers)
        ---
        $total = 0
        for $x in $numbers:
            $total += $x
        return $total
        ---
        $total = 0
        for $i in range(len($numbers)):
            $total += $numbers[$i]
        return $total
        """,
        sum,
    ),
    family(
        "product_list",
        "~product multiply_all product_of_list multiply_list",
        "numbers:ints -> int",
        """
        # the product of the numbers in $numbers
        # the product of a list of numbers
        Multiply all numbers in [the list|a list|$numbers].
        Given a list of numbers, return their product (1 if it is empty).
        """,
        """
        $result = 1
        for $x in $numbers:
            $result *= $x
        return $result
        ---
        import math
        return math.prod($numbers)
        """,
        lambda numbers: math.prod(numbers),
    ),
    family(
        "average",
        "~average ~mean average_of ~mean_value",
        "numbers:ints1 -> float",
        """
        # the average of the numbers in $numbers
        # the mean of a non-empty list of numbers
        # the arithmetic mean of $numbers
        Given a non-empty list of numbers, return their average.
        Return the sum of $numbers divided by how many there are.
        """,
        """
        return sum($numbers) / len($numbers)
        ---
        $total = 0
        for $x in $numbers:
            $total += $x
        return $total / len($numbers)
        """,
        lambda numbers: sum(numbers) / len(numbers),
    ),
    family(
        "average_or_zero",
        "~average ~mean safe_average average_or_zero",
        "numbers:ints -> float",
        """
        # the average of $numbers, or 0 if the list is empty
        # the mean of a list of numbers, and 0 for an empty list
        Average the numbers in a list[, with 0 for an empty one|; return 0 if there are none].
        Given a list of numbers, return their average, or 0 if there are none.
        """,
        """
        if not $numbers:
            return 0
        return sum($numbers) / len($numbers)
        ---
        return sum($numbers) / len($numbers) if $numbers else 0
        ---
        if len($numbers) == 0:
            return 0
        return sum($numbers) / len($numbers)
        """,
        lambda numbers: sum(numbers) / len(numbers) if numbers else 0,
    ),
    family(
        "median",
        "~median median_of ~middle_value ~median_value",
        "numbers:ints1 -> float",
        """
        # the median of $numbers
        # the median of a non-empty list of numbers
        = the middle of the sorted numbers, or the mean of the middle two
        Given a non-empty list of numbers, return the median.
        """,
        """
        $new = sorted($numbers)
        $mid = len($new) // 2
        if len($new) % 2 == 1:
            return $new[$mid]
        return ($new[$mid - 1] + $new[$mid]) / 2
        ---
        $numbers = sorted($numbers)
        $mid = len($numbers) // 2
        if len($numbers) % 2 == 0:
            return ($numbers[$mid - 1] + $numbers[$mid]) / 2
        return $numbers[$mid]
        ---
        import statistics
        return statistics.median($numbers)
        """,
        lambda numbers: statistics.median(numbers),
    ),
    family(
        "maximum",
        "~maximum ~largest max_of find_max ~biggest list_max",
        "numbers:ints1 -> int",
        """
        = the largest number in $numbers
        = the maximum of a non-empty list
        = the greatest element of $numbers
        Given a non-empty list of numbers, return the [largest|biggest] one.
        Find the biggest number in [a non-empty list|$numbers].
        """,
        """
        return max($numbers)
        ---
        $best = $numbers[0]
        for $x in $numbers:
            if $x > $best:
                $best = $x
        return $best
        ---
        $best = $numbers[0]
        for $x in $numbers[1:]:
            $best = max($best, $x)
        return $best
        """,
        max,
    ),
    family(
        "minimum",
        "~minimum ~smallest min_of find_min ~least list_min",
        "numbers:ints1 -> int",
        """
        = the smallest number in $numbers
        = the minimum of a non-empty list
        = the least element of $numbers
        Given a non-empty list of numbers, return the smallest one.
        Find the smallest number in [a non-empty list|$numbers].
        """,
        """
        return min($numbers)
        ---
        $best = $numbers[0]
        for $x in $numbers:
            if $x < $best:
                $best = $x
        return $best
        ---
        return sorted($numbers)[0]
        """,
        min,
    ),
    family(
        "second_largest",
        "~second_largest second_max ~second_biggest ~runner_up",
        "numbers:unique -> int",
        """
        = the second largest number in $numbers
        = the second largest of at least two different numbers
        = the biggest number in $numbers apart from the maximum
        Given a list of different numbers, return the second largest.
        """,
        """
        return sorted($numbers)[-2]
        ---
        return sorted($numbers, reverse=True)[1]
        ---
        $rest = [$x for $x in $numbers if $x != max($numbers)]
        return max($rest)
        """,
        lambda numbers: sorted(numbers)[-2],
    ),
    family(
        "spread",
        "~spread ~range_of ~value_range max_minus_min",
        "numbers:ints1 -> int",
        """
        # the difference between the largest and the smallest of $numbers
        # the range of a non-empty list: its maximum minus its minimum
        # how far apart the largest and the smallest number are
        Subtract the minimum of $numbers from the maximum.
        """,
        """
        return max($numbers) - min($numbers)
        ---
        $new = sorted($numbers)
        return $new[-1] - $new[0]
        """,
        lambda numbers: max(numbers) - min(numbers),
    ),
    family(
        "min_and_max",
        "min_and_max min_max ~extremes ~bounds",
        "numbers:ints1 -> tuple[int, int]",
        """
        = the smallest and the largest of $numbers as a tuple
        = a tuple with the minimum and the maximum of a non-empty list
        Find both the minimum and the maximum of $numbers.
        = a pair: the least and the greatest number in $numbers
        """,
        """
        return min($numbers), max($numbers)
        ---
        $new = sorted($numbers)
        return $new[0], $new[-1]
        ---
        $left = $right = $numbers[0]
        for $x in $numbers:
            if $x < $left:
                $left = $x
            if $x > $right:
                $right = $x
        return $left, $right
        """,
        lambda numbers: (min(numbers), max(numbers)),
    ),
    family(
        "count_item",
        "count_item count_occurrences occurrences count_in_list how_often",
        "items:nats target:small -> int",
        """
        # how often $target occurs in $items
        # the number of elements of $items that are equal to $target
        Count the occurrences of [$target|a value] in [a list|$items].
        Given a list and a value, count how many times the value appears.
        """,
        """
        return $items.count($target)
        ---
        $count = 0
        for $x in $items:
            if $x == $target:
                $count += 1
        return $count
        ---
        return sum(1 for $x in $items if $x == $target)
        """,
        lambda items, target: items.count(target),
    ),
    family(
        "contains",
        "contains includes is_in has_item in_list",
        "items:nats target:small -> bool",
        """
        ? $target is in $items
        ? the list $items contains $target
        ? a value occurs in a list
        Tell whether $target is one of the elements of $items.
        """,
        """
        return $target in $items
        ---
        for $x in $items:
            if $x == $target:
                return True
        return False
        ---
        return any($x == $target for $x in $items)
        """,
        lambda items, target: target in items,
    ),
    family(
        "linear_search",
        "linear_search find_index index_of ~position search",
        "items:nats target:small -> int",
        """
        = the index of $target in $items, or -1 if it is not there
        = the position of $target in a list, or -1
        Search $items for $target and return its first index or -1.
        Find where $target first occurs in $items; -1 if nowhere.
        """,
        """
        for $i, $x in enumerate($items):
            if $x == $target:
                return $i
        return -1
        ---
        for $i in range(len($items)):
            if $items[$i] == $target:
                return $i
        return -1
        ---
        return $items.index($target) if $target in $items else -1
        ---
        if $target in $items:
            return $items.index($target)
        return -1
        """,
        lambda items, target: items.index(target) if target in items else -1,
    ),
    family(
        "index_of_max",
        "index_of_max argmax ~max_index ~position_of_max",
        "numbers:ints1 -> int",
        """
        = the index of the largest number in $numbers
        = the position of the maximum of a non-empty list (the first if equal)
        = where the greatest element of $numbers first stands
        Find the first index at which $numbers has its maximum.
        """,
        """
        return $numbers.index(max($numbers))
        ---
        $best = 0
        for $i in range(len($numbers)):
            if $numbers[$i] > $numbers[$best]:
                $best = $i
        return $best
        """,
        lambda numbers: numbers.index(max(numbers)),
    ),
    family(
        "has_duplicates",
        "has_duplicates contains_duplicates any_duplicates has_repeats",
        "items:ints -> bool",
        """
        ? $items contains duplicates
        ? some element occurs more than once in $items
        ? a list has two equal elements
        Tell whether any value is repeated in $items.
        """,
        """
        return len(set($items)) != len($items)
        ---
        $seen = set()
        for $x in $items:
            if $x in $seen:
                return True
            $seen.add($x)
        return False
        ---
        return len($items) > len(set($items))
        """,
        lambda items: len(set(items)) < len(items),
    ),
    family(
        "differences",
        "~differences ~steps ~gaps ~changes",
        "numbers:ints -> list[int]",
        """
        # the differences between neighboring numbers in $numbers
        = a list of how much each number exceeds the one before it
        Subtract each number in $numbers from the next one.
        = the list of changes from one number to the next
        """,
        """
        return [$y - $x for $x, $y in zip($numbers, $numbers[1:])]
        ---
        $result = []
        for $i in range(1, len($numbers)):
            $result.append($numbers[$i] - $numbers[$i - 1])
        return $result
        """,
        lambda numbers: [b - a for a, b in itertools.pairwise(numbers)],
    ),
    family(
        "running_sum",
        "running_sum ~cumulative_sum ~running_totals ~partial_sums",
        "numbers:ints -> list[int]",
        """
        # the running sums of $numbers
        = a list of the sums of the first 1, 2, 3, ... numbers
        # the cumulative sums of a list of numbers as a list
        Replace each number by the sum of it and all numbers before it.
        """,
        """
        $total = 0
        $result = []
        for $x in $numbers:
            $total += $x
            $result.append($total)
        return $result
        ---
        from itertools import accumulate
        return list(accumulate($numbers))
        ---
        return [sum($numbers[: $i + 1]) for $i in range(len($numbers))]
        """,
        lambda numbers: [sum(numbers[: i + 1]) for i in range(len(numbers))],
    ),
    family(
        "dot_product",
        "~dot_product dot ~scalar_product inner_product",
        "left:ints right:ints -> int",
        """
        # the dot product of $left and $right
        # the sum of the products of the elements at equal positions
        # the dot product of two lists of the same length
        Multiply the lists element by element and add up the products.
        """,
        """
        return sum($x * $y for $x, $y in zip($left, $right))
        ---
        $total = 0
        for $i in range(len($left)):
            $total += $left[$i] * $right[$i]
        return $total
        """,
        lambda left, right: sum(a * b for a, b in zip(left, right, strict=True)),
        lambda rng: tuple([rng.randint(-5, 9) for _ in range(3)] for _ in range(2)),
    ),
    family(
        "add_lists",
        "add_lists sum_lists add_vectors ~elementwise_sum",
        "left:ints right:ints -> list[int]",
        """
        # the sums of the elements of $left and $right at equal positions
        Add two lists of the same length element by element.
        = a list in which each element is the sum of those of $left and $right
        Add the vectors $left and $right.
        """,
        """
        return [$x + $y for $x, $y in zip($left, $right)]
        ---
        $result = []
        for $i in range(len($left)):
            $result.append($left[$i] + $right[$i])
        return $result
        """,
        lambda left, right: [a + b for a, b in zip(left, right, strict=True)],
        lambda rng: tuple([rng.randint(0, 9) for _ in range(3)] for _ in range(2)),
    ),
]
