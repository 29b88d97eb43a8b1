"""Letters: counting, keeping and replacing single characters."""

from qwenkit.programs.family import family

VOWELS = "aeiouAEIOU"


def caesar(text: str, k: int) -> str:
    """Return text with its lowercase letters shifted."""
    return "".join(chr((ord(c) - 97 + k) % 26 + 97) if "a" <= c <= "z" else c for c in text)


FAMILIES = [
    family(
        "count_vowels",
        "count_vowels ~number_of_vowels num_vowels ~vowel_count",
        "text:text -> int",
        """
        # the number of vowels in $text
        = how many vowels $text has
        Count the vowels in [a string|the string $text|$text].
        # the number of letters in $text that are vowels
        Given a string, return how many of its letters are a, e, i, o or u.
        """,
        """
        $count = 0
        for $ch in $text.lower():
            if $ch in "aeiou":
                $count += 1
        return $count
        ---
        return sum(1 for $ch in $text if $ch in "aeiouAEIOU")
        ---
        return len([$ch for $ch in $text if $ch.lower() in "aeiou"])
        """,
        lambda text: sum(c in VOWELS for c in text),
    ),
    family(
        "count_consonants",
        "count_consonants ~number_of_consonants num_consonants ~consonant_count",
        "text:text -> int",
        """
        # the number of consonants in $text
        = how many consonants $text has
        Count the consonants in [a string|the string $text|$text].
        # the number of letters in $text that are not vowels
        """,
        """
        $count = 0
        for $ch in $text.lower():
            if $ch.isalpha() and $ch not in "aeiou":
                $count += 1
        return $count
        ---
        return sum(1 for $ch in $text if $ch.isalpha() and $ch not in "aeiouAEIOU")
        """,
        lambda text: sum(c.isalpha() and c not in VOWELS for c in text),
    ),
    family(
        "remove_vowels",
        "remove_vowels without_vowels drop_vowels strip_vowels",
        "text:text -> str",
        """
        = $text without its vowels
        Remove [all|the] vowels from [a string|$text].
        = a copy of $text in which all vowels are left out
        Delete the letters a, e, i, o and u, in either case, from $text.
        Given a string, return it with its vowels removed.
        """,
        """
        return "".join($ch for $ch in $text if $ch not in "aeiouAEIOU")
        ---
        $result = ""
        for $ch in $text:
            if $ch.lower() not in "aeiou":
                $result += $ch
        return $result
        """,
        lambda text: "".join(c for c in text if c not in VOWELS),
    ),
    family(
        "is_vowel",
        "is_vowel vowel check_vowel is_a_vowel",
        "letter:letter -> bool",
        """
        ? $letter is a vowel
        ? the letter $letter is one of a, e, i, o, u
        ? a character is a vowel, in upper or lower case
        Tell whether a letter is a vowel.
        """,
        """
        return $letter.lower() in "aeiou"
        ---
        return $letter in "aeiouAEIOU"
        ---
        if $letter in "aeiouAEIOU":
            return True
        return False
        """,
        lambda letter: letter in VOWELS,
        lambda rng: (rng.choice("aeiouAEIOUbcdxyzBTS"),),
    ),
    family(
        "count_letter",
        "count_letter count_char ~letter_count count_character count_occurrences",
        "text:text letter:letter -> int",
        """
        # the number of times $letter occurs in $text
        = how often $letter appears in $text
        Count the occurrences of [a letter|the character $letter|$letter] in [a string|$text].
        # how many characters of $text are equal to $letter
        """,
        """
        return $text.count($letter)
        ---
        $count = 0
        for $ch in $text:
            if $ch == $letter:
                $count += 1
        return $count
        ---
        return sum(1 for $ch in $text if $ch == $letter)
        """,
        lambda text, letter: text.count(letter),
    ),
    family(
        "count_upper",
        "count_upper count_uppercase ~number_of_capitals count_capitals",
        "text:text -> int",
        """
        # the number of uppercase letters in $text
        = how many capital letters $text has
        Count the uppercase letters [in a string|of $text].
        Count the characters of $text that are upper case.
        """,
        """
        return sum(1 for $ch in $text if $ch.isupper())
        ---
        $count = 0
        for $ch in $text:
            if $ch.isupper():
                $count += 1
        return $count
        """,
        lambda text: sum(c.isupper() for c in text),
    ),
    family(
        "count_digits_in_text",
        "count_digits ~number_of_digits count_numbers_in ~digit_count",
        "text:text -> int",
        """
        # the number of digits in the string $text
        = how many characters of $text are digits
        Count the characters of a string that are digits.
        Count the digits from 0 to 9 in the text.
        """,
        """
        return sum(1 for $ch in $text if $ch.isdigit())
        ---
        $count = 0
        for $ch in $text:
            if $ch.isdigit():
                $count += 1
        return $count
        """,
        lambda text: sum(c.isdigit() for c in text),
        lambda rng: ("".join(rng.choices("0123456789ab xyz", k=rng.randint(0, 9))),),
    ),
    family(
        "only_letters",
        "only_letters keep_letters letters_of remove_non_letters",
        "text:text -> str",
        """
        = only the letters of $text
        Remove everything from $text that is not a letter.
        = $text without the characters that are not letters
        Keep the letters of a string and drop all other characters.
        """,
        """
        return "".join($ch for $ch in $text if $ch.isalpha())
        ---
        $result = ""
        for $ch in $text:
            if $ch.isalpha():
                $result += $ch
        return $result
        """,
        lambda text: "".join(c for c in text if c.isalpha()),
    ),
    family(
        "remove_letter",
        "remove_letter remove_char without_letter delete_letter",
        "text:text letter:letter -> str",
        """
        = $text without the letter $letter
        Remove every $letter from $text.
        Remove all occurrences of a character from a string.
        = a copy of $text in which each $letter is left out
        """,
        """
        return $text.replace($letter, "")
        ---
        return "".join($ch for $ch in $text if $ch != $letter)
        ---
        $result = ""
        for $ch in $text:
            if $ch != $letter:
                $result += $ch
        return $result
        """,
        lambda text, letter: text.replace(letter, ""),
    ),
    family(
        "unique_letters",
        "has_unique_letters all_unique is_unique unique_chars",
        "text:word -> bool",
        """
        ? all characters of $text are different
        ? no character occurs twice in $text
        ? each letter of $text appears only once
        Tell whether a string has no repeated characters.
        """,
        """
        return len(set($text)) == len($text)
        ---
        $seen = set()
        for $ch in $text:
            if $ch in $seen:
                return False
            $seen.add($ch)
        return True
        """,
        lambda text: len(set(text)) == len(text),
    ),
    family(
        "double_letters",
        "double_letters double_each double_chars stutter",
        "text:word -> str",
        """
        = $text with each character doubled
        Repeat every character of [a string|$text] twice.
        = a string in which each letter of $text occurs twice in a row
        Double [every letter of|each character in] $text.
        """,
        """
        return "".join($ch * 2 for $ch in $text)
        ---
        $result = ""
        for $ch in $text:
            $result += $ch + $ch
        return $result
        """,
        lambda text: "".join(c * 2 for c in text),
    ),
    family(
        "caesar",
        "caesar caesar_shift shift_letters ~caesar_cipher encrypt",
        "text:text k:small -> str",
        """
        Shift each lowercase letter of $text by $k places in the alphabet.
        = $text with its lowercase letters moved $k places on, from z back to a
        Encrypt the lowercase letters of $text with a Caesar shift of $k.
        Apply a Caesar cipher with shift $k to the small letters of $text.
        """,
        """
        $result = ""
        for $ch in $text:
            if "a" <= $ch <= "z":
                $result += chr((ord($ch) - ord("a") + $k) % 26 + ord("a"))
            else:
                $result += $ch
        return $result
        ---
        alphabet = "abcdefghijklmnopqrstuvwxyz"
        $result = ""
        for $ch in $text:
            if $ch in alphabet:
                $ch = alphabet[(alphabet.index($ch) + $k) % 26]
            $result += $ch
        return $result
        """,
        caesar,
    ),
    family(
        "swap_case",
        "swap_case swapcase invert_case flip_case toggle_case",
        "text:text -> str",
        """
        = $text with upper and lower case swapped
        Swap the case of [all letters in $text|each letter of a string].
        Turn lowercase letters into uppercase ones and the other way around.
        = a copy of $text where small letters are capital and capital ones small
        """,
        """
        return $text.swapcase()
        ---
        $result = ""
        for $ch in $text:
            if $ch.isupper():
                $result += $ch.lower()
            else:
                $result += $ch.upper()
        return $result
        ---
        return "".join($ch.lower() if $ch.isupper() else $ch.upper() for $ch in $text)
        """,
        str.swapcase,
    ),
    family(
        "compress",
        "compress run_length encode_runs rle",
        "text:word -> str",
        """
        Replace each run of a character in $text by the character and its length.
        = the run-length encoding of $text, as in "aab" -> "a2b1"
        Compress a string such as "aaab" to "a3b1".
        Write each run of equal characters as the character and a count.
        """,
        """
        $result = ""
        $i = 0
        while $i < len($text):
            $j = $i
            while $j < len($text) and $text[$j] == $text[$i]:
                $j += 1
            $result += $text[$i] + str($j - $i)
            $i = $j
        return $result
        ---
        from itertools import groupby
        return "".join($ch + str(len(list($parts))) for $ch, $parts in groupby($text))
        """,
        lambda text: _runs(text),
        lambda rng: ("".join(c * rng.randint(1, 4) for c in rng.choices("abc", k=3)),),
    ),
    family(
        "mask",
        "mask hide_all_but_last mask_digits hide",
        "text:text -> str",
        """
        Replace all but the last $k characters of $text with "$sep".
        = $text with "$sep" in place of every character but the last $k
        Hide a string with "$sep", except for its last $k characters.
        Mask $text so that only its last $k characters can be read, using "$sep".
        """,
        """
        return "$sep" * (len($text) - $k) + $text[-$k:]
        ---
        $result = ""
        for $i, $ch in enumerate($text):
            if $i < len($text) - $k:
                $result += "$sep"
            else:
                $result += $ch
        return $result
        """,
        lambda text, k, sep: sep * (len(text) - k) + text[-k:],
        lambda rng: ("".join(rng.choices("0123456789", k=rng.randint(4, 12))),),
        choices={"k": (2, 3, 4), "sep": ("*", "#", "x")},
    ),
]


def _runs(text: str) -> str:
    result, i = "", 0
    while i < len(text):
        j = i
        while text[j : j + 1] == text[i]:
            j += 1
        result, i = f"{result}{text[i]}{j - i}", j
    return result
