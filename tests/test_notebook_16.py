"""What notebook 16 says of its trained models, held against the outputs that are stored in it.

nbval does not compare these outputs: after some updates, rounding decides single samples.
"""

import re

import pytest
from notebook_cells import FOLDER, read


def _percents(first):
    """Return row name -> percents, from the output of the cell that has `first` in it."""
    cells = read(FOLDER / "16_learning_from_tests.ipynb").cells
    cell = next(cell for cell in cells if cell.cell_type == "code" and first in cell.source)
    text = "".join(output.get("text", "") for output in cell.outputs)
    lines = [line for line in text.splitlines() if line.endswith("%")]
    names = [re.match(r"[\w -]*?(?= {2,})", line).group() for line in lines]
    values = [[int(one) for one in re.findall(r"(\d+) %", line)] for line in lines]
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("claim", [
    "learned[0] >= start[0] + 25",  # the family is learned
    "learned[1] >= start[1] - 8",  # and the other families are kept
    "fast[0] >= start[0] + 20",
    "fast[1] <= learned[1] - 5",  # the rate is too large for the other families
    "small[0] >= start[0] + 20",  # at a small rate the missing baseline does not show
    "collapsed[0] <= 10",
    "collapsed[1] <= start[1] - 5",
])  # fmt: skip
def test_the_family_is_learned_and_without_a_baseline_the_policy_collapses(claim):
    rows = _percents("def minus")
    assert eval(claim, {
        "start": rows["at the start"], "learned": rows["rate 5e-5"], "fast": rows["rate 2e-4"],
        "small": rows["no baseline 5e-5"], "collapsed": rows["no baseline"],
    })  # fmt: skip


@pytest.mark.parametrize("claim", [
    "weak[1] >= weak[0] + 40",  # the reward rises
    "weak[2] <= 5",  # and the programs are wrong
    "strong[1] <= 5",
])  # fmt: skip
def test_a_weak_test_is_passed_by_luck(claim):
    rows = _percents("alternates(1234)")
    assert eval(claim, {"weak": rows["one example"], "strong": rows["four tests"]})
