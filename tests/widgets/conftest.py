"""Figures are drawn without a screen, and closed after each test; one toy model for all."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fixtures_toy import toy_of

import qwenkit as qk


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Return an untied toy: a tied one of random weights predicts its last token again."""
    return qk.load_pretrained(toy_of(tmp_path_factory, tied=False), device="cpu", dtype="float32")


@pytest.fixture(params=["bfloat16", "int8"])
def other_toy(request, tmp_path_factory):
    folder = toy_of(tmp_path_factory, tied=False)
    return qk.load_pretrained(folder, device="cpu", dtype=request.param)


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
