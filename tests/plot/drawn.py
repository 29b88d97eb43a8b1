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


def written(figure):
    """Return the text that a figure shows; tick labels outside of the axes' limits are not."""
    found = [*figure.texts, *(one for one in (figure._supxlabel, figure._supylabel) if one)]
    for ax in figure.axes:
        found += [ax.title, *ax.texts, *(ax.get_legend().get_texts() if ax.get_legend() else [])]
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            found += [
                one for t in ticks if low <= t.get_loc() <= high for one in (t.label1, t.label2)
            ]
            found.append(axis.label)
    return [one for one in found if one.get_visible() and one.get_text().strip()]
