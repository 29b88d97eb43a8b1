"""Dictionaries: counting, grouping, inverting, filtering."""

from collections import Counter
from typing import Any

from qwenkit.programs.family import family


def _grouped(values: Any, key: Any) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for one in values:
        found.setdefault(key(one), []).append(one)
    return found


FAMILIES = [
    family(
        "word_counts",
        "word_counts count_each_word ~word_frequencies word_freq ~frequencies",
        "text:text -> dict[str, int]",
        """
        = a dictionary with the number of times each word occurs in $text
        Count how often each word occurs in [$text|a string] and return a dictionary.
        = the frequencies of the words of $text as a dictionary
        Map each word of a sentence to the number of its occurrences.
        """,
        """
        $counts = {}
        for $w in $text.split():
            $counts[$w] = $counts.get($w, 0) + 1
        return $counts
        ---
        $counts = {}
        for $w in $text.split():
            if $w in $counts:
                $counts[$w] += 1
            else:
                $counts[$w] = 1
        return $counts
        ---
        from collections import Counter
        return dict(Counter($text.split()))
        """,
        lambda text: dict(Counter(text.split())),
        lambda rng: (" ".join(rng.choices(("a", "b", "cat", "dog"), k=rng.randint(0, 6))),),
    ),
    family(
        "letter_counts",
        "letter_counts count_letters char_counts ~letter_frequencies char_freq",
        "text:word -> dict[str, int]",
        """
        = a dictionary with the number of times each character occurs in $text
        Count how often each character occurs in [$text|a string]; return a dictionary.
        = the frequencies of the characters of $text as a dictionary
        Map each character of $text to the number of its occurrences.
        """,
        """
        $counts = {}
        for $ch in $text:
            $counts[$ch] = $counts.get($ch, 0) + 1
        return $counts
        ---
        $counts = {}
        for $ch in $text:
            if $ch not in $counts:
                $counts[$ch] = 0
            $counts[$ch] += 1
        return $counts
        ---
        return {$ch: $text.count($ch) for $ch in $text}
        """,
        lambda text: dict(Counter(text)),
    ),
    family(
        "count_items",
        "count_items count_each ~frequencies tally item_counts",
        "items:nats -> dict[int, int]",
        """
        = a dictionary with the number of times each element occurs in $items
        Count how often each element occurs in [$items|a list]; return a dictionary.
        = the frequencies of the elements of $items as a dictionary
        Map each element of a list to the number of its occurrences.
        """,
        """
        $counts = {}
        for $x in $items:
            $counts[$x] = $counts.get($x, 0) + 1
        return $counts
        ---
        $counts = {}
        for $x in $items:
            if $x in $counts:
                $counts[$x] += 1
            else:
                $counts[$x] = 1
        return $counts
        """,
        lambda items: dict(Counter(items)),
    ),
    family(
        "most_common",
        "~most_common ~mode most_frequent ~commonest",
        "items:ints1 -> int",
        """
        = the element that occurs most often in $items (the first if several do)
        = the most common element of a non-empty list, the first in case of a tie
        = the first of the most frequent elements of $items
        Find the value that is repeated most in $items; of equals, the first.
        """,
        """
        return max($items, key=$items.count)
        ---
        $best = $items[0]
        for $x in $items:
            if $items.count($x) > $items.count($best):
                $best = $x
        return $best
        ---
        $counts = {}
        for $x in $items:
            $counts[$x] = $counts.get($x, 0) + 1
        return max($counts, key=$counts.get)
        """,
        lambda items: max(items, key=items.count),
        lambda rng: ([rng.randint(0, 3) for _ in range(rng.randint(1, 7))],),
    ),
    family(
        "most_common_word",
        "~most_common_word most_frequent_word ~top_word ~commonest_word",
        "text:text1 -> str",
        """
        = the word that occurs most often in $text (the first if several do)
        = the most common word of a non-empty sentence, the first in case of a tie
        = the first of the most frequent words in $text
        Find the word that is repeated most in $text; of equals, the first.
        """,
        """
        $parts = $text.split()
        return max($parts, key=$parts.count)
        ---
        $counts = {}
        for $w in $text.split():
            $counts[$w] = $counts.get($w, 0) + 1
        return max($counts, key=$counts.get)
        """,
        lambda text: max(text.split(), key=text.split().count),
        lambda rng: (" ".join(rng.choices(("tea", "milk", "is", "a"), k=rng.randint(1, 6))),),
    ),
    family(
        "invert_dict",
        "invert_dict invert swap_keys_and_values flip_dict reverse_dict",
        "d:names -> dict[str, str]",
        """
        = a dictionary with the keys and values of $d swapped
        Swap the keys and the values of [a dictionary|$d].
        Invert [a dictionary|$d]: its values become keys.
        = a new dictionary that maps each value of $d to its key
        """,
        """
        return {$v: $k for $k, $v in $d.items()}
        ---
        $result = {}
        for $k, $v in $d.items():
            $result[$v] = $k
        return $result
        """,
        lambda d: {v: k for k, v in d.items()},
    ),
    family(
        "merge_dicts",
        "merge_dicts merge combine_dicts join_dicts",
        "d:dict e:dict -> dict[str, int]",
        """
        = a dictionary with the entries of $d and $e; those of $e win
        Merge two dictionaries into a new one, where the second takes precedence.
        = a new dictionary: $d updated with $e
        Combine $d and $e; for keys in both, take the value of $e.
        """,
        """
        return {**$d, **$e}
        ---
        $result = dict($d)
        $result.update($e)
        return $result
        ---
        return $d | $e
        ---
        $result = $d.copy()
        for $k, $v in $e.items():
            $result[$k] = $v
        return $result
        """,
        lambda d, e: {**d, **e},
        lambda rng: tuple({w: rng.randint(0, 9) for w in rng.sample("abcd", 2)} for _ in range(2)),
    ),
    family(
        "add_dicts",
        "add_dicts sum_dicts add_counts merge_counts",
        "d:dict e:dict -> dict[str, int]",
        """
        = a dictionary with the sums of the values that $d and $e have for each key
        Add the values of two dictionaries key by key; a missing key counts as 0.
        Merge $d and $e, and add the values of keys that are in both.
        Combine two dictionaries of counts by adding up the counts of each key.
        """,
        """
        $result = dict($d)
        for $k, $v in $e.items():
            $result[$k] = $result.get($k, 0) + $v
        return $result
        ---
        $result = {}
        for $k in [*$d, *$e]:
            $result[$k] = $d.get($k, 0) + $e.get($k, 0)
        return $result
        """,
        lambda d, e: {key: d.get(key, 0) + e.get(key, 0) for key in (*d, *e)},
        lambda rng: tuple({w: rng.randint(0, 9) for w in rng.sample("abcd", 2)} for _ in range(2)),
    ),
    family(
        "group_by_length",
        "group_by_length words_by_length by_length group_words",
        "words:words -> dict[int, list[str]]",
        """
        = a dictionary that maps each length to the list of words of that length
        Group [the words|$words] by their length in a dictionary.
        = the words of $words in lists by length, as a dictionary
        Collect words of equal length in lists, with the length as key.
        """,
        """
        $result = {}
        for $w in $words:
            if len($w) not in $result:
                $result[len($w)] = []
            $result[len($w)].append($w)
        return $result
        ---
        $result = {}
        for $w in $words:
            $result.setdefault(len($w), []).append($w)
        return $result
        """,
        lambda words: _grouped(words, len),
    ),
    family(
        "group_by_first",
        "group_by_first_letter by_first_letter index_words group_by_initial",
        "words:words -> dict[str, list[str]]",
        """
        = a dictionary that maps each first letter to the list of its words
        Group [the words|$words] by their first letter in a dictionary.
        = the words of $words in lists by first letter, as a dictionary
        Collect words that begin alike in lists, with the first letter as key.
        """,
        """
        $result = {}
        for $w in $words:
            $result.setdefault($w[0], []).append($w)
        return $result
        ---
        $result = {}
        for $w in $words:
            $ch = $w[0]
            if $ch not in $result:
                $result[$ch] = []
            $result[$ch].append($w)
        return $result
        """,
        lambda words: _grouped(words, lambda word: word[0]),
    ),
    family(
        "group_even_odd",
        "group_by_parity split_even_odd even_odd_groups by_parity",
        "numbers:ints -> dict[str, list[int]]",
        """
        = a dictionary with the lists of "even" and "odd" numbers in $numbers
        Group the numbers of a list under the keys "even" and "odd".
        Sort the numbers into two lists of a dictionary, "even" and "odd".
        = the even and the odd numbers of a list as {"even": ..., "odd": ...}
        """,
        """
        $result = {"even": [], "odd": []}
        for $x in $numbers:
            if $x % 2 == 0:
                $result["even"].append($x)
            else:
                $result["odd"].append($x)
        return $result
        ---
        return {
            "even": [$x for $x in $numbers if $x % 2 == 0],
            "odd": [$x for $x in $numbers if $x % 2 != 0],
        }
        """,
        lambda numbers: {
            "even": [x for x in numbers if x % 2 == 0],
            "odd": [x for x in numbers if x % 2],
        },
    ),
    family(
        "dict_of_squares",
        "dict_of_squares squares_dict square_table map_to_squares",
        "n:small -> dict[int, int]",
        """
        = a dictionary with the squares of the numbers from 1 to $n
        Map each number from 1 to $n to its square[ in a dictionary|].
        = a dictionary whose keys are 1 to $n and whose values are their squares
        Make a dictionary of the squares of 1, 2, ..., $n.
        """,
        """
        return {$i: $i * $i for $i in range(1, $n + 1)}
        ---
        $result = {}
        for $i in range(1, $n + 1):
            $result[$i] = $i ** 2
        return $result
        """,
        lambda n: {i: i * i for i in range(1, n + 1)},
    ),
    family(
        "word_lengths",
        "word_lengths lengths_of_words map_lengths length_by_word",
        "words:words -> dict[str, int]",
        """
        = a dictionary with the length of each word in $words
        Map each word of a list to its length[ in a dictionary|].
        = a dictionary whose keys are the words and whose values are their lengths
        Make a dictionary of words and how many letters they have.
        """,
        """
        return {$w: len($w) for $w in $words}
        ---
        $result = {}
        for $w in $words:
            $result[$w] = len($w)
        return $result
        """,
        lambda words: {w: len(w) for w in words},
    ),
    family(
        "keys_with_max",
        "keys_with_max best_keys ~winners ~top_keys",
        "d:dict1 -> list[str]",
        """
        = a list of the keys with the largest value in $d
        = all keys of a non-empty dictionary whose value is the maximum
        Find the keys of $d that have the highest value.
        = the names in $d with the greatest number, as a list
        """,
        """
        $best = max($d.values())
        return [$k for $k, $v in $d.items() if $v == $best]
        ---
        $best = max($d.values())
        $result = []
        for $k in $d:
            if $d[$k] == $best:
                $result.append($k)
        return $result
        """,
        lambda d: [k for k in d if d[k] == max(d.values())],
        lambda rng: ({w: rng.randint(0, 3) for w in rng.sample(("Anna", "Bob", "Eve", "Tom"), 3)},),
    ),
    family(
        "key_of_max",
        "key_of_max ~best_key ~max_key ~winner",
        "d:dict1 -> str",
        """
        = the key with the largest value in $d
        = the key of a non-empty dictionary that has the greatest value
        Find the key of $d whose value is highest (the first if several are).
        = the name in $d with the most points
        """,
        """
        return max($d, key=$d.get)
        ---
        return max($d, key=lambda $k: $d[$k])
        ---
        $best = None
        for $k in $d:
            if $best is None or $d[$k] > $d[$best]:
                $best = $k
        return $best
        """,
        lambda d: max(d, key=d.get),
    ),
    family(
        "key_of_min",
        "key_of_min ~lowest_key ~min_key cheapest",
        "d:dict1 -> str",
        """
        = the key with the smallest value in $d
        = the key of a non-empty dictionary that has the least value
        Find the key of $d whose value is lowest (the first if several are).
        = the cheapest item in a dictionary of prices
        """,
        """
        return min($d, key=$d.get)
        ---
        return min($d, key=lambda $k: $d[$k])
        ---
        $best = None
        for $k in $d:
            if $best is None or $d[$k] < $d[$best]:
                $best = $k
        return $best
        """,
        lambda d: min(d, key=d.get),
    ),
    family(
        "sum_values",
        "sum_values ~total_of_values add_values ~value_sum",
        "d:dict -> int",
        """
        # the sum of the values in $d
        # the sum of all values of a dictionary
        Add up the values of [a dictionary|$d].
        # the total of the numbers in the dictionary $d
        """,
        """
        return sum($d.values())
        ---
        $total = 0
        for $v in $d.values():
            $total += $v
        return $total
        ---
        $total = 0
        for $k in $d:
            $total += $d[$k]
        return $total
        """,
        lambda d: sum(d.values()),
    ),
    family(
        "filter_by_value",
        "filter_by_value keep_above_$k values_over_$k filter_dict",
        "d:dict -> dict[str, int]",
        """
        = a dictionary of the entries of $d whose value is greater than $k
        Keep only the entries of [a dictionary|$d] with a value above $k.
        Filter $d: keep the keys whose values are larger than $k.
        = the part of the dictionary $d where the values exceed $k
        """,
        """
        return {$x: $v for $x, $v in $d.items() if $v > $k}
        ---
        $result = {}
        for $x, $v in $d.items():
            if $v > $k:
                $result[$x] = $v
        return $result
        """,
        lambda d, k: {x: v for x, v in d.items() if v > k},
        choices={"k": (0, 2, 3, 5, 10)},
    ),
    family(
        "keys_above",
        "keys_above keys_over names_above keys_greater_than",
        "d:dict limit:nat -> list[str]",
        """
        = a list of the keys of $d whose value is greater than $limit
        List the keys of a dictionary that have a value above $limit.
        = the keys with values larger than $limit, in the order of $d
        Find all names in $d with more than $limit points.
        """,
        """
        return [$k for $k, $v in $d.items() if $v > $limit]
        ---
        $result = []
        for $k, $v in $d.items():
            if $v > $limit:
                $result.append($k)
        return $result
        """,
        lambda d, limit: [k for k, v in d.items() if v > limit],
    ),
    family(
        "lists_to_dict",
        "lists_to_dict make_dict zip_to_dict build_dict",
        "keys:words values:ints -> dict[str, int]",
        """
        = a dictionary with keys from $keys and values from $values, in order
        Make a dictionary from a list of keys and a list of values.
        Combine $keys and $values into a dictionary.
        Map each key to the value at the same position of the second list.
        """,
        """
        return dict(zip($keys, $values))
        ---
        $result = {}
        for $k, $v in zip($keys, $values):
            $result[$k] = $v
        return $result
        ---
        return {$k: $v for $k, $v in zip($keys, $values)}
        """,
        lambda keys, values: dict(zip(keys, values, strict=False)),
    ),
    family(
        "pairs_to_dict",
        "pairs_to_dict dict_from_pairs to_dict from_pairs",
        "pairs:pairs -> dict[str, int]",
        """
        = a dictionary made of the pairs in $pairs
        Turn a list of (key, value) pairs into a dictionary.
        Build a dictionary from [key-value tuples|the tuples in $pairs].
        = a dictionary that maps the first of each pair to the second
        """,
        """
        return dict($pairs)
        ---
        $result = {}
        for $k, $v in $pairs:
            $result[$k] = $v
        return $result
        ---
        return {$k: $v for $k, $v in $pairs}
        """,
        dict,
    ),
    family(
        "get_or_default",
        "get_or_default lookup value_or_default safe_get",
        "d:dict key:word default:int -> int",
        """
        = the value of $key in $d, or $default if the key is missing
        Look up $key in $d; return $default if it is not there.
        = $d[$key] where it exists, otherwise $default
        Get a value from a dictionary, with a default for missing keys.
        """,
        """
        return $d.get($key, $default)
        ---
        if $key in $d:
            return $d[$key]
        return $default
        ---
        try:
            return $d[$key]
        except KeyError:
            return $default
        """,
        lambda d, key, default: d.get(key, default),
        lambda rng: (
            {w: rng.randint(1, 9) for w in rng.sample("abcd", 2)},
            rng.choice("abcd"),
            rng.choice((0, -1)),
        ),
    ),
    family(
        "sort_by_value",
        "sort_by_value items_by_value ranked ~ranking",
        "d:dict -> list[tuple[str, int]]",
        """
        = a list of the items of $d, sorted by value from largest to smallest
        Sort the (key, value) pairs of a dictionary by value, largest first.
        = the entries of $d as a list of tuples, highest value first
        Rank the entries of $d by their values in descending order.
        """,
        """
        return sorted($d.items(), key=lambda $x: $x[1], reverse=True)
        ---
        $result = list($d.items())
        $result.sort(key=lambda $x: $x[1], reverse=True)
        return $result
        """,
        lambda d: sorted(d.items(), key=lambda item: item[1], reverse=True),
    ),
    family(
        "sorted_keys",
        "sorted_keys ~keys_in_order keys_sorted list_keys",
        "d:dict -> list[str]",
        """
        = a sorted list of the keys of $d
        = the keys of a dictionary in alphabetical order
        List the keys of $d in sorted order.
        Sort the keys of [a dictionary|$d] and return them as a list.
        """,
        """
        return sorted($d)
        ---
        return sorted($d.keys())
        ---
        $result = list($d)
        $result.sort()
        return $result
        """,
        sorted,
    ),
    family(
        "common_keys",
        "common_keys ~shared_keys keys_in_both same_keys",
        "d:dict e:dict -> list[str]",
        """
        = a list of the keys that are in both $d and $e, in the order of $d
        List the keys of $d that $e has as well.
        Find the keys which two dictionaries have in common, in the first's order.
        = the keys of the first dictionary that also occur in the second
        """,
        """
        return [$k for $k in $d if $k in $e]
        ---
        $result = []
        for $k in $d:
            if $k in $e:
                $result.append($k)
        return $result
        """,
        lambda d, e: [key for key in d if key in e],
        lambda rng: tuple({w: rng.randint(0, 9) for w in rng.sample("abcde", 3)} for _ in range(2)),
    ),
    family(
        "remove_key",
        "remove_key without_key drop_key delete_key",
        "d:dict key:word -> dict[str, int]",
        """
        = a copy of $d without the key $key
        Remove a key from a dictionary, if it is there, without changing the original.
        = a new dictionary with all entries of $d except the one of $key
        Copy the dictionary $d, but leave out $key.
        """,
        """
        return {$k: $v for $k, $v in $d.items() if $k != $key}
        ---
        $result = dict($d)
        $result.pop($key, None)
        return $result
        """,
        lambda d, key: {k: v for k, v in d.items() if k != key},
        lambda rng: ({w: rng.randint(0, 9) for w in rng.sample("abcd", 2)}, rng.choice("abcd")),
    ),
    family(
        "double_values",
        "multiply_values values_times_$k scale_values multiply_values_by_$k",
        "d:dict -> dict[str, int]",
        """
        = a dictionary with the values of $d multiplied by $k
        Multiply all values of [a dictionary|$d] by $k.
        = a new dictionary with the same keys and $k times the values
        Make a copy of $d in which each value is $k times as large.
        """,
        """
        return {$x: $v * $k for $x, $v in $d.items()}
        ---
        $result = {}
        for $x in $d:
            $result[$x] = $d[$x] * $k
        return $result
        """,
        lambda d, k: {x: v * k for x, v in d.items()},
        choices={"k": (2, 3, 5, 10)},
    ),
    family(
        "total_price",
        "~total_price ~cart_total price_of_cart ~total_cost",
        "prices:dict cart:names -> int",
        """
        # the total price of the items in $cart, with their prices in $prices
        Add up the prices of all items in the list $cart.
        # what the items of $cart cost together, by the dictionary $prices
        Given prices and a list of items, return the sum to be paid.
        """,
        """
        return sum($prices[$x] for $x in $cart)
        ---
        $total = 0
        for $x in $cart:
            $total += $prices[$x]
        return $total
        """,
        lambda prices, cart: sum(prices[item] for item in cart),
        lambda rng: (
            {w: rng.randint(1, 9) for w in ("tea", "milk", "bread")},
            rng.choices(("tea", "milk", "bread"), k=rng.randint(0, 4)),
        ),
    ),
]
