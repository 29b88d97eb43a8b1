"""Exercises with text and lists that ask for a second thought."""

from collections import Counter

from qwenkit.programs.family import family
from qwenkit.programs.slots import WORDS

ROMAN = {"M": 1000, "CM": 900, "D": 500, "CD": 400, "C": 100, "XC": 90, "L": 50, "XL": 40,
         "X": 10, "IX": 9, "V": 5, "IV": 4, "I": 1}  # fmt: skip


def roman(n: int) -> str:
    """Return n in Roman numerals."""
    for sign, value in ROMAN.items():
        if n >= value:
            return sign + roman(n - value)
    return ""


FAMILIES = [
    family(
        "second_smallest",
        "~second_smallest second_min ~second_lowest ~next_to_smallest",
        "numbers:unique -> int",
        """
        = the second smallest number in $numbers
        = the second smallest of at least two different numbers
        = the least number in $numbers apart from the minimum
        Given a list of different numbers, return the second smallest.
        """,
        """
        return sorted($numbers)[1]
        ---
        $rest = [$x for $x in $numbers if $x != min($numbers)]
        return min($rest)
        """,
        lambda numbers: sorted(numbers)[1],
    ),
    family(
        "two_sum",
        "two_sum ~pair_with_sum has_pair_sum find_pair",
        "numbers:ints target:int -> bool",
        """
        ? two different elements of $numbers add up to $target
        ? there are two positions in $numbers whose numbers have the sum $target
        ? $target is the sum of two numbers in the list
        Tell whether a list has two elements with the sum $target.
        """,
        """
        for $i in range(len($numbers)):
            for $j in range($i + 1, len($numbers)):
                if $numbers[$i] + $numbers[$j] == $target:
                    return True
        return False
        ---
        $seen = set()
        for $x in $numbers:
            if $target - $x in $seen:
                return True
            $seen.add($x)
        return False
        """,
        lambda numbers, target: any(
            a + b == target for i, a in enumerate(numbers) for b in numbers[:i]
        ),
        lambda rng: ((xs := rng.sample(range(12), 4)), rng.choice((xs[0] + xs[2], 5, 20))),
    ),
    family(
        "replace_vowels",
        "replace_vowels hide_vowels mask_vowels vowels_to_sign",
        "text:text -> str",
        """
        = $text with every vowel replaced by "$sep"
        Replace all vowels in [a string|$text] by "$sep".
        Put "$sep" in the place of each vowel of $text.
        Hide the vowels of a string behind "$sep".
        """,
        """
        return "".join("$sep" if $ch in "aeiouAEIOU" else $ch for $ch in $text)
        ---
        $result = ""
        for $ch in $text:
            if $ch.lower() in "aeiou":
                $result += "$sep"
            else:
                $result += $ch
        return $result
        ---
        for $ch in "aeiouAEIOU":
            $text = $text.replace($ch, "$sep")
        return $text
        """,
        lambda text, sep: "".join(sep if c in "aeiouAEIOU" else c for c in text),
        choices={"sep": ("*", "_", "-", "#", ".")},
    ),
    family(
        "vowels_of",
        "vowels_of list_vowels ~vowels vowels_in",
        "text:text -> list[str]",
        """
        = a list of the vowels in $text, in order
        = all vowels of a string as a list, in the order of the text
        List the vowels that occur in $text, with repetitions.
        Collect each vowel of $text in a list.
        """,
        """
        return [$ch for $ch in $text if $ch in "aeiouAEIOU"]
        ---
        $result = []
        for $ch in $text:
            if $ch.lower() in "aeiou":
                $result.append($ch)
        return $result
        """,
        lambda text: [c for c in text if c in "aeiouAEIOU"],
    ),
    family(
        "count_substring",
        "count_substring count_text ~occurrences_of times_found",
        "text:text other:word -> int",
        """
        # the number of times $other occurs in $text, without overlaps
        = how often the string $other is found in $text, not counting overlaps
        Count the occurrences of a string in another, without overlaps.
        Count how many times $text contains $other; occurrences do not overlap.
        """,
        """
        return $text.count($other)
        ---
        return len($text.split($other)) - 1
        ---
        $count = 0
        $i = $text.find($other)
        while $i != -1:
            $count += 1
            $i = $text.find($other, $i + len($other))
        return $count
        """,
        lambda text, other: text.count(other),
        lambda rng: ("".join(rng.choices("ab", k=8)), rng.choice(("a", "ab", "aa", "aba"))),
    ),
    family(
        "common_prefix",
        "~common_prefix shared_prefix ~longest_common_prefix ~common_start",
        "a:word b:word -> str",
        """
        = the longest common prefix of $a and $b
        = the beginning that the strings $a and $b have in common
        Find the letters with which both words begin alike.
        = the longest string with which both $a and $b start
        """,
        """
        $result = ""
        for $x, $y in zip($a, $b):
            if $x != $y:
                break
            $result += $x
        return $result
        ---
        $i = 0
        while $i < min(len($a), len($b)) and $a[$i] == $b[$i]:
            $i += 1
        return $a[:$i]
        """,
        lambda a, b: _common(a, b),
        lambda rng: (
            (w := rng.choice(WORDS)),
            rng.choice((w[:2] + "x", w + "s", rng.choice(WORDS))),
        ),
    ),
    family(
        "roman",
        "to_roman ~roman roman_numeral int_to_roman",
        "n:pos -> str",
        """
        = $n in Roman numerals
        Convert a positive integer [below 90|less than 90] to Roman numerals.
        Write $n as a Roman number, as in "XIV" for 14.
        = the Roman numeral of the number $n
        """,
        """
        values = [50, 40, 10, 9, 5, 4, 1]
        signs = ["L", "XL", "X", "IX", "V", "IV", "I"]
        $result = ""
        for value, sign in zip(values, signs):
            while $n >= value:
                $result += sign
                $n -= value
        return $result
        ---
        table = [(50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
        $result = ""
        for value, sign in table:
            $result += sign * ($n // value)
            $n %= value
        return $result
        """,
        roman,
        lambda rng: (rng.choice((4, 9, 14, 40, rng.randint(1, 89))),),
    ),
    family(
        "alternate_case",
        "alternate_case mixed_case zigzag_case spongecase",
        "text:text -> str",
        """
        = $text in alternating case, beginning with upper case
        Make every second letter of $text upper case, from the first on, the others lower.
        Write the characters of a string in upper and lower case in turns.
        = $text with capital letters at even positions and small ones at odd positions
        """,
        """
        $result = ""
        for $i, $ch in enumerate($text):
            if $i % 2 == 0:
                $result += $ch.upper()
            else:
                $result += $ch.lower()
        return $result
        ---
        return "".join(
            $ch.upper() if $i % 2 == 0 else $ch.lower() for $i, $ch in enumerate($text)
        )
        """,
        lambda text: "".join(c.lower() if i % 2 else c.upper() for i, c in enumerate(text)),
    ),
    family(
        "average_length",
        "~average_length ~mean_length average_word_length ~mean_word_length",
        "words:words1 -> float",
        """
        # the average length of the words in $words
        # the mean number of letters of a non-empty list of words
        Given a non-empty list of words, return their average length.
        Return how many letters the words in $words have on average.
        """,
        """
        return sum(len($w) for $w in $words) / len($words)
        ---
        $total = 0
        for $w in $words:
            $total += len($w)
        return $total / len($words)
        """,
        lambda words: sum(map(len, words)) / len(words),
    ),
    family(
        "longest_string",
        "~longest longest_string ~longest_of ~longest_name",
        "words:words1 -> str",
        """
        = the longest string in $words
        = the longest word of a non-empty list (the first if there are several)
        = the first of the words in $words that have the most letters
        Given a non-empty list of words, return the longest one.
        """,
        """
        return max($words, key=len)
        ---
        $best = $words[0]
        for $w in $words:
            if len($w) > len($best):
                $best = $w
        return $best
        """,
        lambda words: max(words, key=len),
    ),
    family(
        "most_common_letter",
        "~most_common_letter most_frequent_letter ~top_letter most_common_char",
        "text:word -> str",
        """
        = the character that occurs most often in $text (the first if several do)
        = the most common letter of a non-empty word, the first in case of a tie
        Find the most frequent character of $text; of equals, the first.
        Given a non-empty string, return the first of its most common characters.
        """,
        """
        return max($text, key=$text.count)
        ---
        $best = $text[0]
        for $ch in $text:
            if $text.count($ch) > $text.count($best):
                $best = $ch
        return $best
        ---
        $counts = {}
        for $ch in $text:
            $counts[$ch] = $counts.get($ch, 0) + 1
        return max($counts, key=$counts.get)
        """,
        lambda text: max(text, key=text.count),
    ),
    family(
        "first_unique",
        "first_unique first_unique_letter ~first_single ~first_not_repeated",
        "text:word -> str | None",
        """
        = the first character that occurs only once in $text, or None
        Find the first letter of $text that is not repeated; None if there is none.
        = the first of the characters that $text has only once, or None
        Search a string for the first character without a second one; None if all repeat.
        """,
        """
        for $ch in $text:
            if $text.count($ch) == 1:
                return $ch
        return None
        ---
        $counts = {}
        for $ch in $text:
            $counts[$ch] = $counts.get($ch, 0) + 1
        for $ch in $text:
            if $counts[$ch] == 1:
                return $ch
        return None
        """,
        lambda text: next((c for c in text if text.count(c) == 1), None),
        lambda rng: ("".join(rng.choices("abc", k=rng.randint(0, 6))),),
    ),
    family(
        "remove_punctuation",
        "remove_punctuation strip_punctuation without_punctuation clean_text",
        "text:text -> str",
        """
        = $text without the signs . , ! ? ; and :
        Remove the punctuation marks . , ! ? ; and : from $text.
        Delete all of the characters .,!?;: from a string.
        = a copy of $text in which the signs .,!?;: are left out
        """,
        """
        return "".join($ch for $ch in $text if $ch not in ".,!?;:")
        ---
        for $ch in ".,!?;:":
            $text = $text.replace($ch, "")
        return $text
        ---
        $result = ""
        for $ch in $text:
            if $ch not in ".,!?;:":
                $result += $ch
        return $result
        """,
        lambda text: "".join(c for c in text if c not in ".,!?;:"),
        lambda rng: (
            "".join(
                rng.choice(WORDS) + rng.choice((", ", "! ", "?", ".", ": "))
                for _ in range(rng.randint(0, 3))
            ),
        ),
    ),
    family(
        "is_strong_password",
        "is_strong strong_password valid_password check_password",
        "text:word -> bool",
        """
        ? $text has at least $k characters and contains a digit
        ? a password is at least $k characters long and has a digit in it
        ? $text is $k or more characters long and has at least one digit
        Tell whether a password is long enough ($k characters) and contains a digit.
        """,
        """
        return len($text) >= $k and any($ch.isdigit() for $ch in $text)
        ---
        if len($text) < $k:
            return False
        for $ch in $text:
            if $ch.isdigit():
                return True
        return False
        """,
        lambda text, k: len(text) >= k and any(c.isdigit() for c in text),
        lambda rng: (
            rng.choice(
                (
                    "abc",
                    "secret1",
                    "longpassword",
                    "x1y2z3w4v5",
                    "pass12word",
                    "butterfly",
                    "42",
                    "rainyday2day",
                )
            ),
        ),
        choices={"k": (6, 8, 9, 10)},
    ),
    family(
        "user_name",
        "user_name ~username ~name_from_email before_at",
        "text:word -> str",
        """
        = the part of an email address before the "@"
        Get the user name from an email address such as "anna@example.org".
        = what stands before the "@" in $text
        Cut the address $text at the "@" and return the first part.
        """,
        """
        return $text.split("@")[0]
        ---
        return $text[: $text.index("@")]
        """,
        lambda text: text.split("@")[0],
        lambda rng: (f"{rng.choice(WORDS)}@{rng.choice(WORDS)}.org".lower(),),
    ),
    family(
        "extension",
        "~extension file_extension ~suffix_of ~file_type",
        "path:word -> str",
        """
        = the part of a file name after its last dot
        Get the extension of a file name such as "notes.txt", without the dot.
        = what follows the last dot in $path
        Cut the file name $path at its last dot and return the end.
        """,
        """
        return $path.split(".")[-1]
        ---
        return $path.rsplit(".", 1)[1]
        """,
        lambda path: path.rsplit(".", 1)[1],
        lambda rng: (f"{rng.choice(WORDS)}.{rng.choice(('txt', 'py', 'tar.gz', 'csv'))}",),
    ),
    family(
        "group_anagrams",
        "group_anagrams anagram_groups collect_anagrams anagrams_together",
        "words:words -> list[list[str]]",
        """
        = the words in lists of anagrams, in the order in which each list begins
        Group the words of $words that are anagrams of each other.
        Put words with the same letters into one list and return all these lists.
        = a list of the groups of words in $words that have the same letters
        """,
        """
        $result = {}
        for $w in $words:
            $k = "".join(sorted($w))
            $result.setdefault($k, []).append($w)
        return list($result.values())
        ---
        $result = {}
        for $w in $words:
            $k = tuple(sorted($w))
            if $k not in $result:
                $result[$k] = []
            $result[$k].append($w)
        return list($result.values())
        """,
        lambda words: [
            [w for w in words if sorted(w) == list(k)]
            for k in dict.fromkeys(tuple(sorted(w)) for w in words)
        ],
        lambda rng: (rng.choices(("tea", "eat", "ate", "stone", "notes", "dog"), k=4),),
    ),
    family(
        "majority",
        "majority ~majority_element more_than_half ~majority_vote",
        "items:nats -> int | None",
        """
        = the element that fills more than half of $items, or None
        Find the value that occurs in more than half of the places; None if there is none.
        = the majority element of a list, or None if it has none
        Tell which element has more than half of the places in $items, else None.
        """,
        """
        for $x in $items:
            if $items.count($x) > len($items) / 2:
                return $x
        return None
        ---
        $counts = {}
        for $x in $items:
            $counts[$x] = $counts.get($x, 0) + 1
            if $counts[$x] > len($items) / 2:
                return $x
        return None
        """,
        lambda items: next((x for x in items if items.count(x) > len(items) / 2), None),
        lambda rng: ([rng.randint(1, 2 + rng.randrange(2)) for _ in range(rng.randint(0, 6))],),
    ),
    family(
        "max_run",
        "~longest_run max_run ~longest_streak longest_repeat",
        "items:nats -> int",
        """
        # the length of the longest run of equal elements in $items
        = how many equal elements stand next to each other in $items at most
        Find the length of the longest streak of the same value.
        Count the elements of the longest run of equal neighbors (0 for an empty list).
        """,
        """
        $best = 0
        $count = 0
        for $i in range(len($items)):
            if $i > 0 and $items[$i] == $items[$i - 1]:
                $count += 1
            else:
                $count = 1
            $best = max($best, $count)
        return $best
        ---
        from itertools import groupby
        return max((len(list($parts)) for _, $parts in groupby($items)), default=0)
        """,
        lambda items: max(
            (
                len(r)
                for r in "".join(map(str, items)).replace("01", "0 1").replace("10", "1 0").split()
            ),
            default=0,
        ),
        lambda rng: ([rng.randint(0, 1) for _ in range(rng.randint(0, 7))],),
    ),
    family(
        "pig_latin",
        "pig_latin to_pig_latin pig translate",
        "word:word -> str",
        """
        Move the first letter of $word to its end and add "ay".
        = $word in simple Pig Latin: the first letter at the end, then "ay"
        Turn "cat" into "atcay": put the first letter last and append "ay".
        Translate a non-empty word to simple Pig Latin, as in "atcay" for "cat".
        """,
        """
        return $word[1:] + $word[0] + "ay"
        ---
        $head = $word[0]
        $rest = $word[1:]
        return f"{$rest}{$head}ay"
        """,
        lambda word: word[1:] + word[0] + "ay",
    ),
    family(
        "letter_position",
        "letter_position ~alphabet_position position_of_letter letter_number",
        "letter:letter -> int",
        """
        = the position of a lowercase letter in the alphabet, where "a" is 1
        = the number of the letter $letter in the alphabet, from 1 for "a"
        Turn a letter into a number: "a" is 1, "b" is 2, "z" is 26.
        Find which letter of the alphabet $letter is, counting from 1.
        """,
        """
        return ord($letter) - ord("a") + 1
        ---
        return "abcdefghijklmnopqrstuvwxyz".index($letter) + 1
        """,
        lambda letter: ord(letter) - 96,
    ),
    family(
        "add_matrices",
        "add_matrices matrix_add sum_matrices ~matrix_sum_of",
        "left:matrix right:matrix -> list[list[int]]",
        """
        # the sum of the matrices $left and $right as a list of rows
        Add two matrices of the same size.
        = a matrix whose elements are the sums of those of $left and $right
        Add up the elements of two equally large matrices, place by place.
        """,
        """
        return [[$x + $y for $x, $y in zip(r, s)] for r, s in zip($left, $right)]
        ---
        $result = []
        for $i in range(len($left)):
            $row = []
            for $j in range(len($left[0])):
                $row.append($left[$i][$j] + $right[$i][$j])
            $result.append($row)
        return $result
        """,
        lambda left, right: [
            [x + y for x, y in zip(a, b, strict=True)] for a, b in zip(left, right, strict=True)
        ],
        lambda rng: tuple([[rng.randint(0, 9) for _ in range(2)] for _ in range(2)] for _ in "ab"),
    ),
    family(
        "equal_pairs",
        "count_pairs_equal count_pairs ~equal_pairs ~number_of_pairs",
        "items:nats -> int",
        """
        # the number of pairs of positions in $items with equal elements
        = how many pairs of equal elements there are in $items
        Count the pairs (i, j) with i < j and equal elements of $items at i and j.
        Count in how many ways two equal elements can be picked from a list.
        """,
        """
        $count = 0
        for $i in range(len($items)):
            for $j in range($i + 1, len($items)):
                if $items[$i] == $items[$j]:
                    $count += 1
        return $count
        ---
        return sum($items[:$i].count($x) for $i, $x in enumerate($items))
        """,
        lambda items: sum(n * (n - 1) // 2 for n in Counter(items).values()),
        lambda rng: ([rng.randint(0, 2) for _ in range(rng.randint(0, 5))],),
    ),
]


def _common(a: str, b: str) -> str:
    return a[0] + _common(a[1:], b[1:]) if a and b and a[0] == b[0] else ""
