"""Text: lines given as strings, and files that are opened by their path."""

from collections.abc import Callable
from typing import Any

from qwenkit.programs.family import Family, family
from qwenkit.programs.program import Text
from qwenkit.programs.slots import WORDS, text_file


def of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a reference that gets the text of the file instead of its path."""
    return lambda file, *rest: function(file.contents, *rest)


def table(rng: Any) -> tuple[Text]:
    """Return a file with a name and a number in each line."""
    rows = [f"{rng.choice(WORDS)},{rng.randint(0, 99)}\n" for _ in range(rng.randint(1, 4))]
    return (Text("".join(rows), "table.csv"),)


def number_file(rng: Any) -> tuple[Text]:
    """Return a file with an integer in each line."""
    rows = [f"{rng.randint(-9, 30)}\n" for _ in range(rng.randint(0, 5))]
    return (Text("".join(rows), "numbers.txt"),)


def some_lines(rng: Any) -> tuple[Text]:
    """Return a file that has at least one line."""
    return (Text(text_file(rng).contents + f"{rng.choice(WORDS)}\n"),)


FAMILIES: list[Family] = [
    family(
        "read_lines",
        "read_lines lines_of load_lines get_lines",
        "path:path -> list[str]",
        """
        = the lines of the text file $path without their line ends
        Read a text file and return its lines as a list[ without line breaks|].
        = a list of the lines in the file at $path, without newlines
        Open the file $path and return its lines as strings without line ends.
        """,
        """
        with open($path) as $file:
            return [$line.rstrip("\\n") for $line in $file]
        ---
        with open($path) as $file:
            return $file.read().splitlines()
        ---
        $result = []
        with open($path) as $file:
            for $line in $file:
                $result.append($line.rstrip("\\n"))
        return $result
        """,
        of_text(str.splitlines),
    ),
    family(
        "count_lines",
        "count_lines ~number_of_lines ~line_count num_lines",
        "path:path -> int",
        """
        # the number of lines in the [text|] file $path
        = how many lines a text file has
        Count the lines of [a text file|the file $path].
        Open the file at $path and count its lines.
        """,
        """
        with open($path) as $file:
            return len($file.readlines())
        ---
        $count = 0
        with open($path) as $file:
            for $line in $file:
                $count += 1
        return $count
        ---
        with open($path) as $file:
            return sum(1 for _ in $file)
        """,
        of_text(lambda text: len(text.splitlines())),
    ),
    family(
        "longest_line_of_file",
        "~longest_line longest_line_in ~longest_line_of find_longest_line",
        "path:path -> str",
        """
        = the longest line of the text file $path, without its line end
        Find the longest line in a text file (the first if there are several).
        Read the file $path and return its longest line without the line break.
        = the first of the longest lines in the file at $path, without the line break
        """,
        """
        with open($path) as $file:
            return max($file.read().splitlines(), key=len)
        ---
        $best = ""
        with open($path) as $file:
            for $line in $file:
                $line = $line.rstrip("\\n")
                if len($line) > len($best):
                    $best = $line
        return $best
        """,
        of_text(lambda text: max(text.splitlines(), key=len)),
        some_lines,
    ),
    family(
        "count_words_in_file",
        "count_words count_words_in ~words_in_file ~word_count",
        "path:path -> int",
        """
        # the number of words in the text file $path
        = how many words the text file $path contains
        Count the words in a text file.
        Open the file $path and count its words, separated by white space.
        """,
        """
        with open($path) as $file:
            return len($file.read().split())
        ---
        $count = 0
        with open($path) as $file:
            for $line in $file:
                $count += len($line.split())
        return $count
        """,
        of_text(lambda text: len(text.split())),
    ),
    family(
        "sum_file",
        "sum_file ~sum_of_file add_numbers_in sum_numbers_in_file",
        "path:path -> int",
        """
        # the sum of the integers in the file $path, one in each line
        Read a file with one integer in each line and return their sum.
        Add up the numbers in the text file $path, which has one in each line.
        # the total of a file of integers, one a line
        """,
        """
        with open($path) as $file:
            return sum(int($line) for $line in $file)
        ---
        $total = 0
        with open($path) as $file:
            for $line in $file:
                $total += int($line)
        return $total
        """,
        of_text(lambda text: sum(map(int, text.split()))),
        number_file,
    ),
    family(
        "read_numbers",
        "read_numbers load_numbers ~numbers_from_file read_integers",
        "path:path -> list[int]",
        """
        = a list of the integers in the file $path, one in each line
        Read a file with one integer in each line into a list.
        Load the numbers of the text file $path, which has one in each line.
        Open the file at $path and return its lines as integers.
        """,
        """
        with open($path) as $file:
            return [int($line) for $line in $file]
        ---
        $result = []
        with open($path) as $file:
            for $line in $file:
                $result.append(int($line))
        return $result
        """,
        of_text(lambda text: list(map(int, text.split()))),
        number_file,
    ),
    family(
        "first_line",
        "~first_line read_first_line ~header ~top_line",
        "path:path -> str",
        """
        = the first line of the text file $path, without its line end
        Read the first line of a text file.
        Open the file $path and return its first line without the line break.
        = the first line of the file at $path as a string without the line break
        """,
        """
        with open($path) as $file:
            return $file.readline().rstrip("\\n")
        ---
        with open($path) as $file:
            return $file.read().splitlines()[0]
        """,
        of_text(lambda text: text.splitlines()[0]),
        some_lines,
    ),
    family(
        "lines_with",
        "lines_with grep ~matching_lines lines_containing",
        "path:path word:letter -> list[str]",
        """
        = the lines of the text file $path that contain $word, without line ends
        Find the lines of a file that contain $word.
        Read the file $path and list all lines with $word in them, without line ends.
        = a list of those lines in the file at $path where $word occurs
        """,
        """
        with open($path) as $file:
            return [$line.rstrip("\\n") for $line in $file if $word in $line]
        ---
        $result = []
        with open($path) as $file:
            for $line in $file:
                if $word in $line:
                    $result.append($line.rstrip("\\n"))
        return $result
        """,
        of_text(lambda text, word: [one for one in text.splitlines() if word in one]),
    ),
    family(
        "read_table",
        "read_table load_table read_csv parse_csv_file",
        "path:path -> list[list[str]]",
        """
        = the rows of the file $path as lists of the fields between commas
        Read a file of comma-separated values into a list of lists of strings.
        Split each line of the text file $path at its commas.
        = a list with one list of strings for each line of a comma-separated file
        """,
        """
        with open($path) as $file:
            return [$line.rstrip("\\n").split(",") for $line in $file]
        ---
        $result = []
        with open($path) as $file:
            for $line in $file:
                $result.append($line.strip().split(","))
        return $result
        """,
        of_text(lambda text: [row.split(",") for row in text.splitlines()]),
        table,
    ),
    family(
        "read_scores",
        "read_scores load_scores ~scores_from_file read_prices",
        "path:path -> dict[str, int]",
        """
        Read lines such as "Anna,12" of the file $path into a dictionary of integers.
        = a dictionary of names and integers from a file of lines "name,number"
        Load a file with a name, a comma and an integer in each line as a dictionary.
        Map the names in the file $path to the integers after the commas.
        """,
        """
        $result = {}
        with open($path) as $file:
            for $line in $file:
                $k, $v = $line.strip().split(",")
                $result[$k] = int($v)
        return $result
        ---
        with open($path) as $file:
            $parts = [$line.strip().split(",") for $line in $file]
        return {$k: int($v) for $k, $v in $parts}
        """,
        of_text(lambda text: {k: int(v) for k, v in (row.split(",") for row in text.splitlines())}),
        table,
    ),
    family(
        "nonempty_lines",
        "nonempty_lines without_blank_lines drop_empty_lines remove_blank_lines",
        "lines:lines -> list[str]",
        """
        = the lines that are not empty
        Remove the empty lines from a list of lines.
        = $lines without the blank ones
        Keep the lines of $lines that contain more than white space.
        """,
        """
        return [$line for $line in $lines if $line.strip()]
        ---
        $result = []
        for $line in $lines:
            if $line.strip() != "":
                $result.append($line)
        return $result
        """,
        lambda lines: [one for one in lines if one.strip()],
    ),
    family(
        "count_comment_lines",
        "count_comments ~comment_count ~number_of_comments comment_lines",
        "lines:lines -> int",
        """
        # the number of lines that start with "$sep"
        Count the lines of $lines that begin with "$sep".
        = how many of the lines are comments, that is, start with "$sep"
        Count the strings in a list whose first characters are "$sep".
        """,
        """
        return sum(1 for $line in $lines if $line.startswith("$sep"))
        ---
        $count = 0
        for $line in $lines:
            if $line.startswith("$sep"):
                $count += 1
        return $count
        """,
        lambda lines, sep: sum(one.startswith(sep) for one in lines),
        lambda rng, sep: (
            [
                rng.choice((sep, sep + " ", "")) + rng.choice(WORDS)
                for _ in range(rng.randint(0, 4))
            ],
        ),
        choices={"sep": ("#", "//", "--", ";")},
    ),
    family(
        "parse_settings",
        "parse_settings read_settings parse_pairs to_settings",
        "lines:lines -> dict[str, str]",
        """
        Turn lines of a name, "$sep" and a value into a dictionary of strings.
        = a dictionary of the names before and the values after "$sep" in each line
        Parse lines with a key, "$sep" and a value into a dictionary.
        Split each line at its first "$sep" and collect keys and values in a dictionary.
        """,
        """
        $result = {}
        for $line in $lines:
            $k, $v = $line.split("$sep", 1)
            $result[$k] = $v
        return $result
        ---
        return dict($line.split("$sep", 1) for $line in $lines)
        """,
        lambda lines, sep: dict(one.split(sep, 1) for one in lines),
        lambda rng, sep: (
            [f"{w}{sep}{rng.choice(WORDS)}" for w in rng.sample("abcd", rng.randint(0, 3))],
        ),
        choices={"sep": ("=", ":", ",")},
    ),
    family(
        "write_lines",
        "write_lines save_lines lines_to_file store_lines",
        "path:path lines:lines -> int",
        """
        Write $lines to the file $path, one on each line, and return how many there are.
        Save a list of strings to a text file, one a line; return their number.
        Write each string of $lines and a newline to the file; return the count.
        Store the strings as lines of the file $path and return the number of lines.
        """,
        """
        with open($path, "w") as $file:
            for $line in $lines:
                $file.write($line + "\\n")
        return len($lines)
        ---
        with open($path, "w") as $file:
            $file.writelines(f"{$line}\\n" for $line in $lines)
        return len($lines)
        """,
        lambda path, lines: len(lines),
        lambda rng: (
            Text("old\n", then=(file := text_file(rng)).contents),
            file.contents.splitlines(),
        ),
    ),
]
