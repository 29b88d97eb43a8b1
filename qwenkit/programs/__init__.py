"""Small programs with docstrings and tests, made from families by a seed."""

from qwenkit.arguments import check_public
from qwenkit.programs.family import Family
from qwenkit.programs.generator import families_of, generate
from qwenkit.programs.program import Program

__all__ = ["Family", "Program", "families_of", "generate"]
check_public(globals(), __all__)
