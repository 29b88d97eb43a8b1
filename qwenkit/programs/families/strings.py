"""Strings: reversing, counting, cases, parts."""

from qwenkit.programs.family import family
from qwenkit.programs.slots import WORDS

PALINDROMES = ("level", "noon", "radar", "kayak", "a", "", "wow", "stats", "abba")


FAMILIES = [
    family(
        "reverse_string",
        "reverse_string reverse reverse_text ~reversed_string backwards",
        "text:text -> str",
        """
        = $text reversed
        = the string $text in reverse order
        Reverse [a string|the string $text|$text].
        = the characters of $text from last to first
        Given a string, return it backwards.
        Turn a string around[ so that it reads backwards|].
        """,
        """
        return $text[::-1]
        ---
        return "".join(reversed($text))
        ---
        $result = ""
        for $ch in $text:
            $result = $ch + $result
        return $result
        """,
        lambda text: text[::-1],
    ),
    family(
        "is_palindrome",
        "is_palindrome palindrome check_palindrome is_palindromic",
        "text:word -> bool",
        """
        ? $text is a palindrome
        ? $text reads the same forwards and backwards
        ? the string $text is equal to its reverse
        Given a string, say whether it is a palindrome.
        Tell whether a word is the same when read from right to left.
        """,
        """
        return $text == $text[::-1]
        ---
        for $i in range(len($text) // 2):
            if $text[$i] != $text[-$i - 1]:
                return False
        return True
        ---
        $left, $right = 0, len($text) - 1
        while $left < $right:
            if $text[$left] != $text[$right]:
                return False
            $left += 1
            $right -= 1
        return True
        """,
        lambda text: text == text[::-1],
        lambda rng: (rng.choice((rng.choice(PALINDROMES), rng.choice(WORDS))),),
    ),
    family(
        "first_letter",
        "~first_letter ~first_char ~first_character ~initial",
        "text:text1 -> str",
        """
        = the first character of $text
        = the first letter of a non-empty string
        = the character that $text begins with
        Given a non-empty string, return its first character.
        """,
        """
        return $text[0]
        ---
        return $text[:1]
        """,
        lambda text: text[0],
    ),
    family(
        "last_letter",
        "~last_letter ~last_char ~last_character ~final_letter",
        "text:text1 -> str",
        """
        = the last character of $text
        = the last letter of a non-empty string
        = the character that $text ends with
        Given a non-empty string, return its last character.
        """,
        """
        return $text[-1]
        ---
        return $text[len($text) - 1]
        """,
        lambda text: text[-1],
    ),
    family(
        "first_k_letters",
        "first_$k_letters first_$k_chars first_$k ~prefix_$k",
        "text:text -> str",
        """
        = the first $k characters of $text
        = the first $k letters of a string, or all of a shorter one
        = the beginning of $text, at most $k characters long
        Cut [a string|$text] after its first $k characters.
        """,
        """
        return $text[:$k]
        ---
        $result = ""
        for $ch in $text:
            if len($result) == $k:
                break
            $result += $ch
        return $result
        """,
        lambda text, k: text[:k],
        choices={"k": (2, 3, 4, 5, 10)},
    ),
    family(
        "last_k_letters",
        "last_$k_letters last_$k_chars last_$k ~suffix_$k",
        "text:text -> str",
        """
        = the last $k characters of $text
        = the last $k letters of a string, or all of a shorter one
        = the end of $text, at most $k characters long
        Given a string, return its final $k characters.
        """,
        """
        return $text[-$k:]
        ---
        if len($text) <= $k:
            return $text
        return $text[len($text) - $k :]
        """,
        lambda text, k: text[-k:],
        choices={"k": (2, 3, 4, 5, 10)},
    ),
    family(
        "repeat_string",
        "repeat repeat_string repeat_text multiply_string",
        "text:word k:small -> str",
        """
        = $text repeated $k times
        Repeat [a string|$text] $k times.
        = a string that contains $text $k times in a row
        Join $k copies of $text into one string.
        """,
        """
        return $text * $k
        ---
        $result = ""
        for _ in range($k):
            $result += $text
        return $result
        """,
        lambda text, k: text * k,
    ),
    family(
        "to_upper",
        "to_upper shout upper uppercase make_upper",
        "text:text -> str",
        """
        = $text in upper case
        = $text with all letters in uppercase
        Convert [a string|$text] to uppercase.
        Make all letters of $text capital letters.
        """,
        """
        return $text.upper()
        ---
        $result = ""
        for $ch in $text:
            $result += $ch.upper()
        return $result
        """,
        str.upper,
    ),
    family(
        "to_lower",
        "to_lower lower lowercase make_lower whisper",
        "text:text -> str",
        """
        = $text in lower case
        = $text with all letters in lowercase
        Convert [a string|$text] to lowercase.
        Make all letters of $text small.
        """,
        """
        return $text.lower()
        ---
        $result = ""
        for $ch in $text:
            $result += $ch.lower()
        return $result
        """,
        str.lower,
    ),
    family(
        "capitalize",
        "capitalize capitalize_first upper_first capitalize_text",
        "text:text1 -> str",
        """
        = $text with its first letter in upper case and the rest unchanged
        Make the first letter of $text uppercase, and leave the rest as it is.
        Change only the first character of a non-empty string to upper case.
        = a non-empty string whose first letter is capital, the others as before
        """,
        """
        return $text[0].upper() + $text[1:]
        ---
        $head = $text[0].upper()
        return $head + $text[1:]
        """,
        lambda text: text[0].upper() + text[1:],
    ),
    family(
        "is_anagram",
        "is_anagram are_anagrams anagram check_anagram",
        "a:word b:word -> bool",
        """
        ? $a and $b are anagrams
        ? $a and $b consist of the same letters in any order
        ? two words are anagrams of each other
        Tell whether $a can be formed by rearranging the letters of $b.
        """,
        """
        return sorted($a) == sorted($b)
        ---
        if len($a) != len($b):
            return False
        for $ch in $a:
            if $a.count($ch) != $b.count($ch):
                return False
        return True
        ---
        from collections import Counter
        return Counter($a) == Counter($b)
        """,
        lambda a, b: sorted(a) == sorted(b),
        lambda rng: rng.choice(
            (
                ("listen", "silent"),
                ("tea", "eat"),
                ("stone", "notes"),
                ("night", "thing"),
                ("aab", "abb"),
                (rng.choice(WORDS), rng.choice(WORDS)),
            )
        ),
    ),
    family(
        "starts_with",
        "starts_with begins_with has_prefix is_prefix_of",
        "text:text other:word -> bool",
        """
        ? $text starts with $other
        ? the string $text begins with $other
        ? $other is a prefix of $text
        Tell whether the first characters of $text are those of $other.
        """,
        """
        return $text.startswith($other)
        ---
        return $text[: len($other)] == $other
        """,
        lambda text, other: text.startswith(other),
        lambda rng: ((w := rng.choice(WORDS)) + " day", rng.choice((w[:2], w, "b", "xy"))),
    ),
    family(
        "ends_with",
        "ends_with has_suffix is_suffix_of finishes_with",
        "text:text other:word -> bool",
        """
        ? $text ends with $other
        ? the string $text ends in $other
        ? $other is a suffix of $text
        Tell whether the last characters of $text are those of $other.
        """,
        """
        return $text.endswith($other)
        ---
        return $text[len($text) - len($other) :] == $other
        """,
        lambda text, other: text.endswith(other),
        lambda rng: ("a " + (w := rng.choice(WORDS)), rng.choice((w[-2:], w, "q", "xy"))),
    ),
    family(
        "every_second",
        "every_second every_other every_second_char skip_letters",
        "text:text -> str",
        """
        = every second character of $text, starting with the first
        = the characters of $text at the positions 0, 2, 4, ...
        Take every other character of a string, beginning with the first.
        Skip every second character of $text.
        """,
        """
        return $text[::2]
        ---
        return "".join($text[$i] for $i in range(0, len($text), 2))
        ---
        $result = ""
        for $i, $ch in enumerate($text):
            if $i % 2 == 0:
                $result += $ch
        return $result
        """,
        lambda text: text[::2],
    ),
    family(
        "center_text",
        "~centered frame_text pad_both center",
        "text:word k:pos -> str",
        """
        = $text centered in a line of $k characters
        Center $text in a string of width $k[, filled with spaces|].
        = $text with spaces on both sides, $k characters wide in all
        Pad a string with spaces on both sides to the width $k.
        """,
        """
        return $text.center($k)
        ---
        return f"{$text:^{$k}}"
        """,
        lambda text, k: text.center(k),
        lambda rng: ((w := rng.choice(WORDS)), len(w) + 2 * rng.randint(0, 4)),
    ),
]
