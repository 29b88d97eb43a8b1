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
        "first_item",
        "~first ~first_item ~first_element ~head",
        "items:ints1 -> int",
        """
        = the first item of $items
        = the first element of a non-empty list
        = what the list $items begins with
        Given a non-empty list, return its first item.
        """,
        """
        return $items[0]
        ---
        $head, *$rest = $items
        return $head
        """,
        lambda items: items[0],
    ),
    family(
        "last_item",
        "~last ~last_item ~last_element last_of",
        "items:ints1 -> int",
        """
        = the last item of $items
        = the last element of a non-empty list
        = what the list $items ends with
        Given a non-empty list, return its last item.
        """,
        """
        return $items[-1]
        ---
        return $items[len($items) - 1]
        """,
        lambda items: items[-1],
    ),
    family(
        "first_k_items",
        "first_$k first_$k_items take_$k ~first_$k_elements",
        "items:ints -> list[int]",
        """
        = the first $k items of $items
        = a list of the first $k elements, or all if there are fewer
        = the beginning of the list $items, at most $k elements
        Take the first $k elements of a list.
        """,
        """
        return $items[:$k]
        ---
        $result = []
        for $x in $items:
            if len($result) == $k:
                break
            $result.append($x)
        return $result
        """,
        lambda items, k: items[:k],
        choices={"k": (2, 3, 4, 5)},
    ),
    family(
        "drop_first_k",
        "drop_first_$k skip_$k without_first_$k drop_$k",
        "items:ints -> list[int]",
        """
        = $items without its first $k elements
        Drop the first $k elements of a list.
        = the elements of $items after the first $k
        Skip the first $k items of $items and return the rest.
        """,
        """
        return $items[$k:]
        ---
        return [$x for $i, $x in enumerate($items) if $i >= $k]
        """,
        lambda items, k: items[k:],
        choices={"k": (1, 2, 3, 4)},
    ),
    family(
        "take",
        "take first_k ~first_items ~prefix",
        "items:ints k:small -> list[int]",
        """
        = the first $k items of $items
        = a list of the first $k elements of $items
        Take the first $k elements of [a list|$items].
        Given a list and a number, return that many items from the start.
        """,
        """
        return $items[:$k]
        ---
        $result = []
        for $x in $items:
            if len($result) == $k:
                break
            $result.append($x)
        return $result
        """,
        lambda items, k: items[:k],
    ),
    family(
        "reverse_list",
        "reverse_list reverse ~reversed_list reverse_items",
        "items:ints -> list[int]",
        """
        = $items in reverse order
        Reverse [a list|the list $items], without changing [it|the original].
        = a new list with the elements of $items from last to first
        Given a list, return a copy of it in reverse order.
        """,
        """
        return $items[::-1]
        ---
        return list(reversed($items))
        ---
        $result = []
        for $x in $items:
            $result.insert(0, $x)
        return $result
        """,
        lambda items: items[::-1],
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
        "remove_duplicates",
        "remove_duplicates unique dedupe distinct without_duplicates",
        "items:nats -> list[int]",
        """
        = $items without duplicates, in the original order
        Remove duplicates from [a list|$items], keeping the first of each.
        = a list of the different elements of $items in order of appearance
        Keep only the first occurrence of each element of $items.
        Drop repeated elements of a list and keep the order.
        """,
        """
        $result = []
        for $x in $items:
            if $x not in $result:
                $result.append($x)
        return $result
        ---
        return list(dict.fromkeys($items))
        ---
        $seen = set()
        $result = []
        for $x in $items:
            if $x not in $seen:
                $seen.add($x)
                $result.append($x)
        return $result
        """,
        lambda items: list(dict.fromkeys(items)),
        lambda rng: ([rng.randint(0, 4) for _ in range(rng.randint(0, 7))],),
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
        "is_sorted",
        "is_sorted check_sorted is_ascending sorted_already",
        "numbers:ints -> bool",
        """
        ? $numbers is sorted in ascending order
        ? the list is sorted from smallest to largest
        ? no number in $numbers is smaller than the one before it
        Tell whether a list of numbers is in ascending order.
        """,
        """
        return $numbers == sorted($numbers)
        ---
        for $i in range(len($numbers) - 1):
            if $numbers[$i] > $numbers[$i + 1]:
                return False
        return True
        ---
        return all($x <= $y for $x, $y in zip($numbers, $numbers[1:]))
        """,
        lambda numbers: numbers == sorted(numbers),
        lambda rng: (
            (sorted if rng.random() < 0.5 else list)([rng.randint(0, 9) for _ in range(4)]),
        ),
    ),
    family(
        "sort_descending",
        "sort_descending sorted_descending sort_desc largest_first",
        "numbers:ints -> list[int]",
        """
        = $numbers sorted from largest to smallest
        = a copy of $numbers in descending order
        Sort a list of numbers in descending order and return it.
        = the numbers of a list, the largest first
        """,
        """
        return sorted($numbers, reverse=True)
        ---
        $result = sorted($numbers)
        $result.reverse()
        return $result
        ---
        return sorted($numbers)[::-1]
        """,
        lambda numbers: sorted(numbers, reverse=True),
    ),
    family(
        "largest_k",
        "largest_$k top_$k ~biggest_$k ~largest_$k_numbers",
        "numbers:ints -> list[int]",
        """
        = the $k largest numbers in $numbers, largest first
        = a list of the $k largest numbers in descending order
        = the top $k of $numbers, the largest first
        Find the $k biggest numbers of a list, in descending order.
        """,
        """
        return sorted($numbers, reverse=True)[:$k]
        ---
        $new = sorted($numbers)
        $new.reverse()
        return $new[:$k]
        """,
        lambda numbers, k: sorted(numbers, reverse=True)[:k],
        choices={"k": (2, 3, 4, 5)},
    ),
    family(
        "smallest_k",
        "smallest_$k lowest_$k ~least_$k ~smallest_$k_numbers",
        "numbers:ints -> list[int]",
        """
        = the $k smallest numbers in $numbers, smallest first
        = a list of the $k smallest numbers in ascending order
        = the lowest $k of $numbers, the smallest first
        Find the $k smallest numbers of a list, in ascending order.
        """,
        """
        return sorted($numbers)[:$k]
        ---
        $new = sorted($numbers)
        return $new[:$k]
        """,
        lambda numbers, k: sorted(numbers)[:k],
        choices={"k": (2, 3, 4, 5)},
    ),
    family(
        "flatten",
        "flatten ~flat_list join_lists flatten_lists concat",
        "lists:lists -> list[int]",
        """
        = one list with the elements of all the lists in $lists
        Flatten a list of lists[ into one list|].
        Join the lists in $lists into one list.
        = the elements of the inner lists of $lists, one after the other
        """,
        """
        $result = []
        for $x in $lists:
            $result.extend($x)
        return $result
        ---
        return [$y for $x in $lists for $y in $x]
        ---
        $result = []
        for $x in $lists:
            for $y in $x:
                $result.append($y)
        return $result
        """,
        lambda lists: [x for one in lists for x in one],
    ),
    family(
        "chunk",
        "chunk ~chunks split_into_chunks in_groups group_list",
        "items:ints k:one -> list[list[int]]",
        """
        Split $items into lists of $k elements (the last may be shorter).
        = $items cut into chunks of size $k
        = a list of lists with $k elements each, the last with what is left
        Cut a list into pieces of length $k.
        """,
        """
        return [$items[$i : $i + $k] for $i in range(0, len($items), $k)]
        ---
        $result = []
        for $i in range(0, len($items), $k):
            $result.append($items[$i : $i + $k])
        return $result
        ---
        $result = []
        while $items:
            $result.append($items[:$k])
            $items = $items[$k:]
        return $result
        """,
        lambda items, k: [items[i : i + k] for i in range(0, len(items), k)],
    ),
    family(
        "rotate_left",
        "rotate_left rotate shift_left rotate_list",
        "items:ints1 k:nat -> list[int]",
        """
        Rotate $items to the left by $k places.
        = $items with its first $k elements moved to the end, in a circle
        Move the first $k elements of a non-empty list to its end ($k may be larger).
        = a non-empty list rotated $k places to the left
        """,
        """
        $k = $k % len($items)
        return $items[$k:] + $items[:$k]
        ---
        $result = list($items)
        for _ in range($k):
            $result.append($result.pop(0))
        return $result
        """,
        lambda items, k: items[k % len(items) :] + items[: k % len(items)],
    ),
    family(
        "rotate_right",
        "rotate_right shift_right rotate_once last_to_front",
        "items:ints -> list[int]",
        """
        Rotate $items to the right by one place.
        = $items with its last element moved to the front
        Move the last element of a list to its beginning.
        = a copy of the list that starts with its last element
        """,
        """
        return $items[-1:] + $items[:-1]
        ---
        if not $items:
            return []
        return [$items[-1]] + $items[:-1]
        """,
        lambda items: items[-1:] + items[:-1],
    ),
    family(
        "swap_ends",
        "swap_ends exchange_ends swap_first_last swap_first_and_last",
        "items:ints2 -> list[int]",
        """
        = a copy of $items with the first and the last element swapped
        Swap the first and the last element of a list with at least two elements.
        Exchange the two ends of $items and return the new list.
        = the list $items, but its first and last items have changed places
        """,
        """
        return [$items[-1]] + $items[1:-1] + [$items[0]]
        ---
        $new = list($items)
        $new[0], $new[-1] = $new[-1], $new[0]
        return $new
        """,
        lambda items: [items[-1], *items[1:-1], items[0]],
    ),
    family(
        "middle",
        "~middle without_ends strip_ends ~inner",
        "items:ints -> list[int]",
        """
        = $items without its first and its last element
        Remove the first and the last element of a list and return the rest.
        = all elements of $items except the two at the ends
        Cut off both ends of the list $items.
        """,
        """
        return $items[1:-1]
        ---
        $result = []
        for $i in range(1, len($items) - 1):
            $result.append($items[$i])
        return $result
        """,
        lambda items: items[1:-1],
    ),
    family(
        "pair_up",
        "pair_up zip_lists ~pairs make_pairs combine",
        "left:ints right:ints -> list[tuple[int, int]]",
        """
        = a list of pairs of the elements of $left and $right at equal positions
        Pair the elements of two lists, as long as both have some.
        Combine $left and $right into a list of tuples.
        = tuples (x, y) with x from $left and y from $right, in order
        """,
        """
        return list(zip($left, $right))
        ---
        $result = []
        for $i in range(min(len($left), len($right))):
            $result.append(($left[$i], $right[$i]))
        return $result
        ---
        return [($x, $y) for $x, $y in zip($left, $right)]
        """,
        lambda left, right: list(zip(left, right, strict=False)),
    ),
    family(
        "neighbor_pairs",
        "neighbor_pairs adjacent_pairs ~consecutive_pairs ~neighbors",
        "items:ints -> list[tuple[int, int]]",
        """
        = a list of the pairs of neighbors in $items
        = all pairs of consecutive elements of $items as tuples
        List each element of $items together with the next one.
        Pair every element of a list with its successor.
        """,
        """
        return list(zip($items, $items[1:]))
        ---
        $result = []
        for $i in range(len($items) - 1):
            $result.append(($items[$i], $items[$i + 1]))
        return $result
        """,
        lambda items: list(itertools.pairwise(items)),
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
    family(
        "join_words",
        "join_words join_strings to_text words_to_text",
        "words:words -> str",
        """
        = the words joined by "$sep"
        Join the strings in $words with "$sep" between them.
        = one string made of all words in $words, separated by "$sep"
        Put the words of a list together, with "$sep" between every two.
        """,
        """
        return "$sep".join($words)
        ---
        $result = ""
        for $i, $w in enumerate($words):
            if $i > 0:
                $result += "$sep"
            $result += $w
        return $result
        """,
        lambda words, sep: sep.join(words),
        choices={"sep": (", ", "-", " ", "; ", "/", "_")},
    ),
    family(
        "move_zeros",
        "move_zeros zeros_to_end push_zeros zeros_last",
        "numbers:ints -> list[int]",
        """
        Move all zeros of $numbers to the end, keeping the order of the rest.
        = $numbers with its zeros at the end and the others in their order
        Put the zeros of a list last and leave the other numbers in order.
        = the nonzero numbers of $numbers, followed by its zeros
        """,
        """
        $result = [$x for $x in $numbers if $x != 0]
        return $result + [0] * (len($numbers) - len($result))
        ---
        $left = [$x for $x in $numbers if $x != 0]
        $right = [$x for $x in $numbers if $x == 0]
        return $left + $right
        """,
        lambda numbers: sorted(numbers, key=lambda x: x == 0),
        lambda rng: ([rng.choice((0, rng.randint(1, 9))) for _ in range(rng.randint(0, 6))],),
    ),
    family(
        "insert_sorted",
        "insert_sorted insert_in_order add_sorted insert_into_sorted",
        "numbers:sorted value:nat -> list[int]",
        """
        Insert $value into the sorted list $numbers and return a sorted list.
        = a sorted list with $value added to the sorted list $numbers
        Add a number to a sorted list so that it stays sorted.
        = the sorted list $numbers together with $value, still in order
        """,
        """
        return sorted($numbers + [$value])
        ---
        $i = 0
        while $i < len($numbers) and $numbers[$i] < $value:
            $i += 1
        return $numbers[:$i] + [$value] + $numbers[$i:]
        """,
        lambda numbers, value: sorted([*numbers, value]),
    ),
    family(
        "merge_sorted",
        "merge_sorted merge merge_lists merge_sorted_lists",
        "left:sorted right:sorted -> list[int]",
        """
        Merge two sorted lists into one sorted list.
        = the elements of the sorted lists $left and $right in one sorted list
        Merge the sorted lists $left and $right[ so that the result is sorted|].
        = one sorted list made of two sorted ones
        """,
        """
        $result = []
        $i = $j = 0
        while $i < len($left) and $j < len($right):
            if $left[$i] <= $right[$j]:
                $result.append($left[$i])
                $i += 1
            else:
                $result.append($right[$j])
                $j += 1
        return $result + $left[$i:] + $right[$j:]
        ---
        return sorted($left + $right)
        """,
        lambda left, right: sorted(left + right),
    ),
    family(
        "interleave",
        "interleave alternate weave mix_lists",
        "left:ints right:ints -> list[int]",
        """
        = the elements of $left and $right in turns, starting with $left
        Interleave two lists of the same length.
        Mix two equally long lists: one element from each in turn.
        = a list that takes alternately from $left and from $right
        """,
        """
        $result = []
        for $x, $y in zip($left, $right):
            $result.append($x)
            $result.append($y)
        return $result
        ---
        return [$v for $x in zip($left, $right) for $v in $x]
        """,
        lambda left, right: [x for pair in zip(left, right, strict=True) for x in pair],
        lambda rng: tuple([[rng.randint(0, 9) for _ in range(3)] for _ in range(2)]),
    ),
]
