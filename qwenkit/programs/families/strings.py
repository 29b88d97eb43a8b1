"""Strings: reversing, counting, cases, parts."""

from qwenkit.programs.family import family
from qwenkit.programs.slots import WORDS

VOWELS = "aeiouAEIOU"
PALINDROMES = ("level", "noon", "radar", "kayak", "a", "", "wow", "stats", "abba")
SPACED = ("Never odd or even", "A nut for a jar of tuna", "Step on no pets", "Was it a car", "No")


def caesar(text: str, k: int) -> str:
    """Return text with its lowercase letters shifted."""
    return "".join(chr((ord(c) - 97 + k) % 26 + 97) if "a" <= c <= "z" else c for c in text)


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
        "is_palindrome_sentence",
        "is_palindrome is_palindrome_sentence is_palindrome_phrase palindrome",
        "text:text -> bool",
        """
        ? $text is a palindrome, ignoring case and spaces
        ? $text reads the same backwards, without regard to case or spaces
        ? a sentence is a palindrome when spaces and case are ignored
        Tell whether a string is a palindrome, not counting spaces and case.
        """,
        """
        $new = $text.lower().replace(" ", "")
        return $new == $new[::-1]
        ---
        $parts = [$ch for $ch in $text.lower() if $ch != " "]
        return $parts == $parts[::-1]
        """,
        lambda text: (s := text.lower().replace(" ", "")) == s[::-1],
        lambda rng: (rng.choice(SPACED),),
    ),
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
        "count_words",
        "count_words ~number_of_words ~word_count num_words",
        "text:text -> int",
        """
        # the number of words in $text
        = how many words $text has
        Count the words in [a string|the string $text|a sentence|$text].
        Given a sentence, return the number of its words.
        # how many words, separated by spaces, are in $text
        """,
        """
        return len($text.split())
        ---
        $count = 0
        for $w in $text.split():
            $count += 1
        return $count
        ---
        $parts = $text.split()
        return len($parts)
        """,
        lambda text: len(text.split()),
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
        "shout",
        "shout exclaim yell loud",
        "text:text -> str",
        """
        = $text in upper case with an exclamation mark at the end
        Write $text in capital letters and add "!".
        Convert $text to uppercase and append "!".
        = $text as if it were shouted: in capital letters, followed by "!"
        """,
        """
        return $text.upper() + "!"
        ---
        return f"{$text.upper()}!"
        """,
        lambda text: text.upper() + "!",
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
        "title_case",
        "title_case capitalize_words to_title capitalize_each_word titlecase",
        "text:text -> str",
        """
        = $text with the first letter of each word capitalized
        Capitalize [every word|each word] in [a string|$text].
        = $text in title case
        Make each word of a sentence start with a capital letter.
        Give every word of $text a capital first letter and small other letters.
        """,
        """
        return $text.title()
        ---
        return " ".join($w.capitalize() for $w in $text.split())
        ---
        $result = []
        for $w in $text.split():
            $result.append($w.capitalize())
        return " ".join($result)
        """,
        str.title,
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
        "remove_spaces",
        "remove_spaces without_spaces strip_spaces delete_spaces",
        "text:text -> str",
        """
        = $text without spaces
        Remove all spaces from [a string|$text].
        = a copy of $text in which every space is left out
        Delete each space in $text.
        """,
        """
        return $text.replace(" ", "")
        ---
        return "".join($ch for $ch in $text if $ch != " ")
        ---
        $result = ""
        for $ch in $text:
            if $ch != " ":
                $result += $ch
        return $result
        """,
        lambda text: text.replace(" ", ""),
    ),
    family(
        "clean_spaces",
        "clean_spaces normalize_spaces squeeze_spaces collapse_spaces",
        "text:text -> str",
        """
        = $text with single spaces between words and none at the ends
        Reduce every run of spaces in $text to one space and trim the ends.
        Remove extra spaces from [a string|$text], also at its ends.
        Join the words of $text with single spaces.
        """,
        """
        return " ".join($text.split())
        ---
        $parts = $text.split()
        return " ".join($parts)
        """,
        lambda text: " ".join(text.split()),
        lambda rng: (
            "".join(rng.choice(WORDS) + " " * rng.randint(0, 3) for _ in range(3)).join((" ", "")),
        ),
    ),
    family(
        "replace_spaces",
        "replace_spaces change_spaces swap_spaces fill_spaces",
        "text:text -> str",
        """
        = $text with every space replaced by "$sep"
        Replace [all|the] spaces in [a string|$text] with "$sep".
        Put "$sep" in the place of each space in $text.
        Change each space of a string to "$sep".
        """,
        """
        return $text.replace(" ", "$sep")
        ---
        return "".join("$sep" if $ch == " " else $ch for $ch in $text)
        ---
        $result = ""
        for $ch in $text:
            $result += "$sep" if $ch == " " else $ch
        return $result
        """,
        lambda text, sep: text.replace(" ", sep),
        choices={"sep": ("_", "-", ".", "/")},
    ),
    family(
        "reverse_words",
        "reverse_words reverse_sentence reverse_word_order words_backwards",
        "text:text -> str",
        """
        = the words of $text in reverse order
        Reverse the order of the words in [a sentence|$text].
        = a sentence whose words are those of $text from last to first
        Turn the word order of a string around, but not the words themselves.
        """,
        """
        return " ".join($text.split()[::-1])
        ---
        $parts = $text.split()
        $parts.reverse()
        return " ".join($parts)
        ---
        return " ".join(reversed($text.split()))
        """,
        lambda text: " ".join(text.split()[::-1]),
    ),
    family(
        "reverse_each_word",
        "reverse_each_word flip_words reverse_letters_of_words mirror_words",
        "text:text -> str",
        """
        = $text with each word reversed, in the same order of words
        Reverse each word of [a sentence|$text], but keep the order of the words.
        Spell every word of $text backwards and leave the words in their places.
        = a sentence in which every word of $text is written backwards
        """,
        """
        return " ".join($w[::-1] for $w in $text.split())
        ---
        $result = []
        for $w in $text.split():
            $result.append($w[::-1])
        return " ".join($result)
        """,
        lambda text: " ".join(w[::-1] for w in text.split()),
    ),
    family(
        "longest_word",
        "~longest_word longest_word_in ~biggest_word find_longest_word",
        "text:text1 -> str",
        """
        = the longest word in $text
        = the longest word of a sentence (the first one if there are several)
        = the first of the words in $text that have the most letters
        Given a non-empty sentence, return its longest word.
        """,
        """
        return max($text.split(), key=len)
        ---
        $best = ""
        for $w in $text.split():
            if len($w) > len($best):
                $best = $w
        return $best
        """,
        lambda text: max(text.split(), key=len),
    ),
    family(
        "shortest_word",
        "~shortest_word shortest_word_in ~smallest_word find_shortest_word",
        "text:text1 -> str",
        """
        = the shortest word in $text
        = the shortest word of a sentence (the first one if there are several)
        = the first of the words in $text that have the fewest letters
        Given a non-empty sentence, return its shortest word.
        """,
        """
        return min($text.split(), key=len)
        ---
        $parts = $text.split()
        $best = $parts[0]
        for $w in $parts:
            if len($w) < len($best):
                $best = $w
        return $best
        """,
        lambda text: min(text.split(), key=len),
    ),
    family(
        "acronym",
        "~acronym make_acronym ~initials to_acronym",
        "text:text -> str",
        """
        = the first letters of the words in $text, in upper case
        = the acronym of $text: the capital first letters of its words
        Make an acronym from [a phrase|$text][ in capital letters|].
        = the initials of the words in $text as one uppercase string
        """,
        """
        return "".join($w[0].upper() for $w in $text.split())
        ---
        $result = ""
        for $w in $text.split():
            $result += $w[0].upper()
        return $result
        """,
        lambda text: "".join(w[0].upper() for w in text.split()),
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
        "contains_word",
        "contains_word has_word word_in includes_word",
        "text:text word:word -> bool",
        """
        ? $word is one of the words of $text
        ? the sentence $text contains the word $word
        ? $word occurs in $text as a whole word
        Tell whether a word is among the words of a sentence.
        """,
        """
        return $word in $text.split()
        ---
        for $w in $text.split():
            if $w == $word:
                return True
        return False
        """,
        lambda text, word: word in text.split(),
        lambda rng: (" ".join(ws := rng.sample(WORDS, 4)), rng.choice((ws[1], ws[2][:2], "cat"))),
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
        "is_pangram",
        "is_pangram pangram has_all_letters uses_whole_alphabet",
        "text:text -> bool",
        """
        ? $text contains every letter of the alphabet
        ? $text is a pangram
        ? all letters from a to z occur in $text, in either case
        Tell whether a sentence uses each of the 26 letters.
        """,
        """
        return all($ch in $text.lower() for $ch in "abcdefghijklmnopqrstuvwxyz")
        ---
        for $ch in "abcdefghijklmnopqrstuvwxyz":
            if $ch not in $text.lower():
                return False
        return True
        """,
        lambda text: set("abcdefghijklmnopqrstuvwxyz") <= set(text.lower()),
        lambda rng: (
            rng.choice(
                (
                    "Sphinx of black quartz, judge my vow",
                    "Pack my box",
                    "",
                    "abc xyz",
                    "jived fox nymph grabs quick waltz",
                    "waltz bad nymph for quick jigs vex",
                )
            ),
        ),
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
        "greet",
        "greet say_hello greeting hello",
        "name:word -> str",
        """
        = a greeting such as "$hi, Anna!" for $name
        Greet a person by name, as in "$hi, Bob!".
        = the text "$hi, " followed by $name and an exclamation mark
        Say "$hi" to $name: return "$hi, " + the name + "!".
        """,
        """
        return f"$hi, {$name}!"
        ---
        return "$hi, " + $name + "!"
        """,
        lambda name, hi: f"{hi}, {name}!",
        choices={"hi": ("Hello", "Hi", "Welcome", "Good morning", "Goodbye")},
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


def _runs(text: str) -> str:
    result, i = "", 0
    while i < len(text):
        j = i
        while text[j : j + 1] == text[i]:
            j += 1
        result, i = f"{result}{text[i]}{j - i}", j
    return result
