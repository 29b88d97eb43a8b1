"""What the tests ask of figures."""

import numpy as np

TOKENS = ["def", " f", "(", "x", "):", "\n"]


def texts(things):
    """Return the text of tick labels, of a legend's entries, or of what was written."""
    return [one.get_text() for one in things]


def names(numbers):
    """Return a name for each of some token ids."""
    return [f"<{number}>" for number in numbers]


def image(ax):
    """Return the values of the first image on some axes."""
    return ax.get_images()[0].get_array()


def causal(size, seed=0):
    """Return random causal attention weights, (size, size)."""
    values = np.tril(np.random.default_rng(seed).random((size, size)) + 0.01)
    return (values / values.sum(1, keepdims=True)).astype(np.float32)
