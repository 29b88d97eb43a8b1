"""The tables of all families, one file for each area."""

from qwenkit.programs.families import (
    arithmetic,
    classes,
    compositions,
    comprehensions,
    conditions,
    dicts,
    everyday,
    exceptions,
    files,
    generators,
    lists,
    loops,
    puzzles,
    recursion,
    sets,
    shapes,
    sorting,
    strings,
    units,
)

AREAS = (
    arithmetic, units, conditions, loops, strings, lists, sorting, dicts, sets, comprehensions,
    recursion, files, classes, shapes, generators, exceptions,
    everyday, puzzles, compositions,
)  # fmt: skip
FAMILIES = [one for area in AREAS for one in area.FAMILIES]
