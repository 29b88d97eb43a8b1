"""Searching and sorting by hand, and tables of rows and columns."""

from qwenkit.programs.family import family

FAMILIES = [
    family(
        "binary_search",
        "binary_search bisect_search search_sorted find_sorted",
        "numbers:sorted target:int -> int",
        """
        = the index of $target in the sorted list $numbers, or -1
        Search a sorted list for $target by binary search; return its index or -1.
        Find $target in $numbers, which is sorted, by halving the range; else -1.
        Use binary search to find the position of $target (-1 if it is missing).
        """,
        """
        $left, $right = 0, len($numbers) - 1
        while $left <= $right:
            $mid = ($left + $right) // 2
            if $numbers[$mid] == $target:
                return $mid
            if $numbers[$mid] < $target:
                $left = $mid + 1
            else:
                $right = $mid - 1
        return -1
        ---
        $left, $right = 0, len($numbers)
        while $left < $right:
            $mid = ($left + $right) // 2
            if $numbers[$mid] < $target:
                $left = $mid + 1
            else:
                $right = $mid
        if $left < len($numbers) and $numbers[$left] == $target:
            return $left
        return -1
        """,
        lambda numbers, target: numbers.index(target) if target in numbers else -1,
        lambda rng: (
            (xs := sorted(rng.sample(range(30), rng.randint(1, 7)))),
            rng.choice((*xs, rng.randint(0, 30))),
        ),
    ),
    family(
        "bubble_sort",
        "bubble_sort bubble sort_by_bubbling bubblesort",
        "numbers:ints -> list[int]",
        """
        Sort [a list|$numbers] with bubble sort and return a new list.
        Sort $numbers in ascending order by swapping neighbors (bubble sort).
        = a sorted copy of $numbers, made by bubble sort
        Use bubble sort to return the numbers in increasing order.
        """,
        """
        $new = list($numbers)
        for $i in range(len($new)):
            for $j in range(len($new) - $i - 1):
                if $new[$j] > $new[$j + 1]:
                    $new[$j], $new[$j + 1] = $new[$j + 1], $new[$j]
        return $new
        ---
        $new = list($numbers)
        swapped = True
        while swapped:
            swapped = False
            for $i in range(len($new) - 1):
                if $new[$i] > $new[$i + 1]:
                    $new[$i], $new[$i + 1] = $new[$i + 1], $new[$i]
                    swapped = True
        return $new
        """,
        sorted,
    ),
    family(
        "insertion_sort",
        "insertion_sort insert_sort sort_by_insertion insertionsort",
        "numbers:ints -> list[int]",
        """
        Sort [a list|$numbers] with insertion sort and return a new list.
        Sort $numbers in ascending order by inserting one number after another.
        = a sorted copy of $numbers, made by insertion sort
        Use insertion sort to return the numbers in increasing order.
        """,
        """
        $result = []
        for $x in $numbers:
            $i = 0
            while $i < len($result) and $result[$i] < $x:
                $i += 1
            $result.insert($i, $x)
        return $result
        ---
        $new = list($numbers)
        for $i in range(1, len($new)):
            $x = $new[$i]
            $j = $i - 1
            while $j >= 0 and $new[$j] > $x:
                $new[$j + 1] = $new[$j]
                $j -= 1
            $new[$j + 1] = $x
        return $new
        """,
        sorted,
    ),
    family(
        "selection_sort",
        "selection_sort select_sort sort_by_selection selectionsort",
        "numbers:ints -> list[int]",
        """
        Sort [a list|$numbers] with selection sort and return a new list.
        Sort $numbers by taking the smallest of the rest again and again.
        = a sorted copy of $numbers, made by selection sort
        Use selection sort to return the numbers in increasing order.
        """,
        """
        $rest = list($numbers)
        $result = []
        while $rest:
            $x = min($rest)
            $rest.remove($x)
            $result.append($x)
        return $result
        ---
        $new = list($numbers)
        for $i in range(len($new)):
            $best = $i
            for $j in range($i + 1, len($new)):
                if $new[$j] < $new[$best]:
                    $best = $j
            $new[$i], $new[$best] = $new[$best], $new[$i]
        return $new
        """,
        sorted,
    ),
    family(
        "quick_sort",
        "quick_sort quicksort sort_quickly qsort",
        "numbers:ints -> list[int]",
        """
        Sort [a list|$numbers] with quicksort and return a new list.
        Sort $numbers recursively: smaller numbers, the first one, larger numbers.
        = a sorted copy of $numbers, made by quicksort
        Use quicksort to return the numbers in increasing order.
        """,
        """
        if len($numbers) <= 1:
            return $numbers
        $head, *$rest = $numbers
        $left = [$x for $x in $rest if $x < $head]
        $right = [$x for $x in $rest if $x >= $head]
        return $self($left) + [$head] + $self($right)
        ---
        if not $numbers:
            return []
        $mid = $numbers[0]
        $left = [$x for $x in $numbers[1:] if $x < $mid]
        $right = [$x for $x in $numbers[1:] if $x >= $mid]
        return $self($left) + [$mid] + $self($right)
        """,
        sorted,
    ),
    family(
        "merge_sort",
        "merge_sort mergesort sort_by_merging msort",
        "numbers:ints -> list[int]",
        """
        Sort [a list|$numbers] with merge sort and return a new list.
        Sort $numbers by sorting both halves and merging them.
        = a sorted copy of $numbers, made by merge sort
        Use merge sort to return the numbers in increasing order.
        """,
        """
        if len($numbers) <= 1:
            return $numbers
        $mid = len($numbers) // 2
        $left = $self($numbers[:$mid])
        $right = $self($numbers[$mid:])
        $result = []
        while $left and $right:
            if $left[0] <= $right[0]:
                $result.append($left.pop(0))
            else:
                $result.append($right.pop(0))
        return $result + $left + $right
        ---
        if len($numbers) < 2:
            return $numbers
        $mid = len($numbers) // 2
        $left, $right = $self($numbers[:$mid]), $self($numbers[$mid:])
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
        """,
        sorted,
    ),
    family(
        "sort_by_length",
        "sort_by_length by_length order_by_length sort_words",
        "words:words -> list[str]",
        """
        = $words sorted by length, the shortest first
        Sort [the words|a list of words] by their length.
        = the words from shortest to longest
        Order the strings in $words by their number of characters.
        """,
        """
        return sorted($words, key=len)
        ---
        return sorted($words, key=lambda $w: len($w))
        """,
        lambda words: sorted(words, key=len),
    ),
    family(
        "sort_by_last",
        "sort_by_last by_last_letter order_by_last_letter sort_by_ending",
        "words:words -> list[str]",
        """
        = $words sorted by their last letters
        Sort [the words|a list of words] by the last letter of each.
        Order the strings in $words by their final character.
        = the words in the order of their last letters
        """,
        """
        return sorted($words, key=lambda $w: $w[-1])
        ---
        $result = list($words)
        $result.sort(key=lambda $w: $w[-1])
        return $result
        """,
        lambda words: sorted(words, key=lambda w: w[-1]),
    ),
    family(
        "sort_pairs",
        "sort_by_second by_second sort_pairs order_by_value",
        "pairs:pairs -> list[tuple[str, int]]",
        """
        = $pairs sorted by the second element of each
        Sort a list of pairs by their second elements.
        Order the tuples in $pairs by the number in them.
        = the pairs in the order of their numbers, smallest first
        """,
        """
        return sorted($pairs, key=lambda $x: $x[1])
        ---
        $result = list($pairs)
        $result.sort(key=lambda $x: $x[1])
        return $result
        """,
        lambda pairs: sorted(pairs, key=lambda pair: pair[1]),
    ),
    family(
        "transpose",
        "transpose ~transposed transpose_matrix flip_matrix",
        "matrix:matrix -> list[list[int]]",
        """
        = the transpose of [$matrix|a matrix] as a list of lists
        Transpose a matrix given as a list of rows.
        Turn the rows of $matrix into columns.
        = a list of the columns of $matrix
        """,
        """
        return [list($row) for $row in zip(*$matrix)]
        ---
        return [[$row[$i] for $row in $matrix] for $i in range(len($matrix[0]))]
        ---
        $result = []
        for $i in range(len($matrix[0])):
            $result.append([$row[$i] for $row in $matrix])
        return $result
        """,
        lambda matrix: [list(row) for row in zip(*matrix, strict=True)],
    ),
    family(
        "matrix_sum",
        "sum_matrix ~matrix_sum ~nested_sum total_of_grid",
        "matrix:matrix -> int",
        """
        # the sum of all numbers in $matrix
        # the sum of a list of lists of numbers
        Add up all the numbers in [a matrix|the rows of $matrix].
        # the total of the elements in all rows
        """,
        """
        return sum(sum($row) for $row in $matrix)
        ---
        $total = 0
        for $row in $matrix:
            for $x in $row:
                $total += $x
        return $total
        ---
        $total = 0
        for $row in $matrix:
            $total += sum($row)
        return $total
        """,
        lambda matrix: sum(map(sum, matrix)),
    ),
    family(
        "row_sums",
        "~row_sums sum_rows ~row_totals sums_of_rows",
        "matrix:matrix -> list[int]",
        """
        # the sums of the rows of $matrix as a list
        = a list with the sum of each row
        Add up each row of a matrix[ and return the sums|].
        = the totals of the lists in $matrix
        """,
        """
        return [sum($row) for $row in $matrix]
        ---
        $result = []
        for $row in $matrix:
            $result.append(sum($row))
        return $result
        """,
        lambda matrix: [sum(row) for row in matrix],
    ),
    family(
        "column_sums",
        "~column_sums sum_columns ~column_totals sums_of_columns",
        "matrix:matrix -> list[int]",
        """
        # the sums of the columns of $matrix as a list
        = a list with the sum of each column
        Add up each column of a matrix[ and return the sums|].
        = the totals of the columns of $matrix
        """,
        """
        return [sum($y) for $y in zip(*$matrix)]
        ---
        $result = []
        for $i in range(len($matrix[0])):
            $result.append(sum($row[$i] for $row in $matrix))
        return $result
        """,
        lambda matrix: [sum(column) for column in zip(*matrix, strict=True)],
    ),
    family(
        "diagonal",
        "~diagonal ~main_diagonal diagonal_of ~matrix_diagonal",
        "matrix:matrix -> list[int]",
        """
        = the main diagonal of a square matrix as a list
        = the elements of $matrix at equal row and column numbers
        List the numbers on the diagonal of $matrix, from the top left.
        = the diagonal of a square matrix, given as a list of rows
        """,
        """
        return [$matrix[$i][$i] for $i in range(len($matrix))]
        ---
        $result = []
        for $i, $row in enumerate($matrix):
            $result.append($row[$i])
        return $result
        """,
        lambda matrix: [row[i] for i, row in enumerate(matrix)],
        lambda rng: (
            [[rng.randint(0, 9) for _ in range(n)] for _ in range(n)]
            if (n := rng.randint(1, 3))
            else [],
        ),
    ),
    family(
        "identity_matrix",
        "~identity_matrix identity make_identity eye",
        "n:one -> list[list[int]]",
        """
        = the identity matrix with $n rows as a list of lists
        = an $n by $n matrix with ones on the diagonal and zeros elsewhere
        Make the identity matrix of size $n.
        = a list of $n rows of the $n by $n identity matrix
        """,
        """
        return [[1 if $i == $j else 0 for $j in range($n)] for $i in range($n)]
        ---
        $result = []
        for $i in range($n):
            $row = [0] * $n
            $row[$i] = 1
            $result.append($row)
        return $result
        """,
        lambda n: [[int(i == j) for j in range(n)] for i in range(n)],
    ),
    family(
        "make_grid",
        "make_grid ~grid filled_matrix new_matrix",
        "height:small width:small -> list[list[int]]",
        """
        = a list of $height rows, each with $width times the number $k
        Make a grid of $height rows and $width columns filled with $k.
        = a matrix with $height rows and $width columns that are all $k
        Create a list of $height lists, each with $width times $k in it.
        """,
        """
        return [[$k] * $width for _ in range($height)]
        ---
        $result = []
        for _ in range($height):
            $result.append([$k] * $width)
        return $result
        """,
        lambda height, width, k: [[k] * width for _ in range(height)],
        choices={"k": (0, 1, 7, -1)},
    ),
    family(
        "scale_matrix",
        "scale_matrix multiply_matrix_by scale times_number",
        "matrix:matrix n:int -> list[list[int]]",
        """
        = $matrix with every element multiplied by $n
        Multiply all numbers of a matrix by $n[ and return a new matrix|].
        = a list of the rows of $matrix, each number times $n
        Scale a matrix by the factor $n.
        """,
        """
        return [[$x * $n for $x in $row] for $row in $matrix]
        ---
        $result = []
        for $row in $matrix:
            $result.append([$x * $n for $x in $row])
        return $result
        """,
        lambda matrix, n: [[x * n for x in row] for row in matrix],
        lambda rng: ([[rng.randint(0, 9) for _ in range(3)] for _ in range(2)], rng.randint(-3, 9)),
    ),
]
