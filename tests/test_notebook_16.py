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
    "taught[0] >= start[0] + 25",  # the family is learned
    "taught[1] >= start[1] - 8",  # and the other families are kept
    "kept == start",  # equal rewards have no advantage over their mean
    "collapsed[0] <= 5",
    "collapsed[1] <= 5",
])  # fmt: skip
def test_the_family_is_learned_and_without_a_baseline_the_policy_collapses(claim):
    rows = _percents("def minus")
    assert eval(claim, {
        "start": rows["at the start"], "taught": rows["taught"], "kept": rows["baseline"],
        "collapsed": rows["no baseline"],
    })  # fmt: skip


@pytest.mark.parametrize("claim", [
    "small[0] >= start[0] + 10",  # pairs teach the family, too
    "small[1] >= start[1] - 8",
    "large[0] <= start[0] - 25",  # and at too large a rate the policy loses what it knew
])  # fmt: skip
def test_pairs_teach_the_family_and_too_large_a_rate_forgets(claim):
    rows, start = _percents("preference_loss(preferred"), _percents("def minus")["at the start"]
    assert eval(claim, {"start": start, "small": rows["2e-05"], "large": rows["2e-04"]})


@pytest.mark.parametrize("claim", [
    "weak[1] >= weak[0] + 40",  # the reward rises
    "weak[2] <= 5",  # and the programs are wrong
    "strong[1] <= 5",
])  # fmt: skip
def test_a_weak_test_is_passed_by_luck(claim):
    rows = _percents("alternates(1234)")
    assert eval(claim, {"weak": rows["one example"], "strong": rows["four tests"]})
