"""Sentences: their words, the spaces between them, their case."""

from qwenkit.programs.family import family
from qwenkit.programs.slots import WORDS

SPACED = ("Never odd or even", "A nut for a jar of tuna", "Step on no pets", "Was it a car", "No")


FAMILIES = [
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
]
