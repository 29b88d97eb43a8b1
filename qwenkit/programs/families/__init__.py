"""The tables of all families, one file for each area."""

from qwenkit.programs.families import (
    arithmetic,
    cases,
    classes,
    compositions,
    comprehensions,
    conditions,
    course,
    dicts,
    everyday,
    exceptions,
    files,
    generators,
    letters,
    lists,
    loops,
    printing,
    puzzles,
    recursion,
    sentences,
    sequences,
    sets,
    shapes,
    sorting,
    strings,
    units,
)

AREAS = (
    arithmetic, units, everyday, conditions, cases, loops, strings, letters, sentences, lists,
    sequences, sorting, dicts, sets, comprehensions, recursion, files, classes, shapes, generators,
    exceptions, puzzles, printing, course, compositions,
)  # fmt: skip
FAMILIES = [one for area in AREAS for one in area.FAMILIES]
