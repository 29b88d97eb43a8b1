"""The tables of all families, one file for each area."""

from qwenkit.programs.families import (
    arithmetic,
    classes,
    compositions,
    comprehensions,
    conditions,
    dicts,
    exceptions,
    files,
    generators,
    lists,
    loops,
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
    compositions,
)  # fmt: skip
FAMILIES = [one for area in AREAS for one in area.FAMILIES]
