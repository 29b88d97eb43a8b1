"""A training's metrics are read again as they were written."""

import math

import pytest

from qwenkit.errors import SourceError
from qwenkit.train import read_metrics


def test_columns_come_back_as_numbers(path):
    path.write_text("step,loss,evaluation_loss\n10,2.5,\n20,2.25,3.5\n")
    found = read_metrics(path)
    assert (found["step"], found["loss"]) == ([10.0, 20.0], [2.5, 2.25])
    assert math.isnan(found["evaluation_loss"][0])
    assert found["evaluation_loss"][1] == 3.5
    path.write_text("step,loss\n10,2.5\n20")  # cut short by a killed process
    assert math.isnan(read_metrics(path)["loss"][1])


@pytest.mark.parametrize("content", [b"step,loss\n10,abc\n", b"step\n\xff\n"])
def test_what_is_not_a_table_of_numbers_is_refused_and_an_absent_file(path, content):
    with pytest.raises(SourceError, match="cannot be read"):
        read_metrics(path)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="is not a table of numbers"):
        read_metrics(path)
    path.write_text("")
    assert read_metrics(path) == {}
