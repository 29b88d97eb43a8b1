"""The order of a list, and parts of it."""

import itertools

from qwenkit.programs.family import family

FAMILIES = [
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
]
