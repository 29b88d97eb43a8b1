"""The tables of all families, one file for each area."""

from qwenkit.programs.families import arithmetic, conditions, dicts, lists, loops, sets, sorting
from qwenkit.programs.families import strings, units

FAMILIES = [
    one
    for area in (arithmetic, units, conditions, loops, strings, lists, sorting, dicts, sets)
    for one in area.FAMILIES
]
