"""Figures are drawn without a screen, and closed after each test; one toy model for all."""

from functools import cache

import numpy as np
import pytest
import torch
from fixtures_figures import closed_figures  # noqa: F401
from fixtures_toy import toy_of

import qwenkit as qk


@pytest.fixture(scope="session")
def toy_in(tmp_path_factory):
    """Load an untied toy in a dtype: a tied one of random weights predicts its last token again."""
    folder = toy_of(tmp_path_factory, tied=False)
    return cache(lambda dtype: qk.load_pretrained(folder, device="cpu", dtype=dtype))


@pytest.fixture(scope="session")
def toy(toy_in):
    return toy_in("float32")


@pytest.fixture(scope="session")
def patterns_of():
    def traced(model, ids):
        """Return (L, H, T, T) as a trace holds it."""
        trace = qk.Trace(keep=("attn.pattern",))
        with torch.no_grad():
            model(ids, trace=trace)
        layers = range(model.config.num_hidden_layers)
        return np.stack([trace[f"layers.{i}.attn.pattern"][0].float().numpy() for i in layers])

    return traced
