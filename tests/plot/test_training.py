"""The curve draws what the metrics hold."""

import math

import matplotlib.pyplot as plt
import pytest

from qwenkit import plot
from qwenkit.errors import InputError

METRICS = {
    "step": [10.0, 20.0, 30.0],
    "loss": [5.0, 4.0, 3.5],
    "evaluation_loss": [math.nan, 4.5, 4.25],
}


def test_the_curve_draws_both_losses():
    ax = plot.training_curve(METRICS, references={"unigram": 4.8})
    trained, held, line = ax.get_lines()
    assert list(trained.get_xdata()) == [10, 20, 30]
    assert list(trained.get_ydata()) == [5.0, 4.0, 3.5]
    assert list(held.get_xdata()) == [20, 30]  # where there was no evaluation there is no point
    assert list(held.get_ydata()) == [4.5, 4.25]
    assert list(line.get_ydata()) == [4.8, 4.8]
    assert [text.get_text() for text in ax.texts] == ["unigram"]
    plt.close(ax.figure)


def test_the_curve_draws_on_given_axes():
    _, ax = plt.subplots()
    assert plot.training_curve({"step": [1.0], "loss": [2.0]}, ax=ax) is ax
    assert len(ax.get_lines()) == 1
    plt.close(ax.figure)


def test_the_alt_text_says_how_the_losses_fall():
    assert plot.training_curve_alt(METRICS) == (
        "The loss over 30 steps: on the text trained on it falls from 5.00 to 3.50, "
        "on the held-out text from 4.50 to 4.25 nats a token."
    )
    assert "held-out" not in plot.training_curve_alt({"step": [1.0], "loss": [2.0]})


@pytest.mark.parametrize("metrics", [{}, {"step": [], "loss": []}, {"step": [1.0], "loss": []}])
def test_metrics_without_steps_are_refused(metrics):
    with pytest.raises(InputError, match="one loss for each step"):
        plot.training_curve(metrics)
