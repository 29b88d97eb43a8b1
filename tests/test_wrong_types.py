"""Every public function, each argument in turn of a wrong kind: a clear error, and at once."""

import inspect
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

import matplotlib.pyplot as plt
import pytest
import sound_calls
from fixtures_figures import closed_figures  # noqa: F401
from fixtures_toy import toy_of

import qwenkit as qk
from qwenkit.errors import QwenkitError

pytestmark = pytest.mark.usefixtures("one_thread")
WRONG = (None, "x", -1, 0, 10**30, float("nan"), [], {})
AREAS = {
    name: import_module(f"qwenkit.{name}")
    for name in ("plot", "interpret", "generate", "programs", "serve", "widgets")
}
TYPES = {"Attribution", "Divergence", "Patching", "Replaced", "Beam", "Step", "TokenScore"} | {
    "FUNCTION_ENDS", "Estimate", "Family", "Outcome", "Overlap", "Program", "Request", "Sample",
    "Score", "TaskScore", "Drafter", "Proposal", "Speculation",
}  # fmt: skip
LONG_BY_NATURE = [("reference_generate", "max_new_tokens", 10**30)]  # up to that many tokens
NAMES = [
    (area, name) for area, module in AREAS.items() for name in module.__all__
    if name not in TYPES | {"fill"}
]  # fmt: skip
AREAS["train"] = qk.train
NAMES += [("train", name) for name in (
    "GrpoSettings", "GrpoTrainer", "completion_batch", "dpo_loss", "group_advantages",
    "grpo_loss", "kl_estimate", "passes_tests", "preference_loss", "reference_log_probs",
    "sequence_log_probs", "token_log_probs",
)]  # fmt: skip


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Return area -> name -> arguments."""
    model, tokenizer = qk.load_pretrained(toy_of(tmp_path_factory, tied=False), dtype="float32")
    plots = sound_calls.plots(model.config)
    for name in sound_calls.plots(model.config):
        if hasattr(qk.plot, f"{name}_alt"):
            takes = inspect.signature(getattr(qk.plot, f"{name}_alt")).parameters
            plots[f"{name}_alt"] = {k: v for k, v in plots[name].items() if k in takes}
    plots["attention"].pop("name")
    return {
        "plot": plots, "interpret": sound_calls.insights(model),
        "generate": sound_calls.generations(model, tokenizer),
        "programs": sound_calls.programs(model, tokenizer),
        "serve": sound_calls.serving(model),
        "widgets": sound_calls.widgets(model, tokenizer),
        "train": sound_calls.policies(model.requires_grad_(True), tokenizer),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("area", "name"), NAMES)
def test_a_wrong_argument_is_refused_in_words(calls, area, name):
    function, sound = getattr(AREAS[area], name), calls[area][name]
    for argument in sound:
        for value in WRONG:
            if (name, argument, value) in LONG_BY_NATURE:
                continue
            start = time.perf_counter()
            with suppress(QwenkitError):
                found = function(**{**sound, argument: value})
                if isinstance(found, Iterator):
                    next(found, None)
            assert time.perf_counter() - start < 5, (argument, value)
            plt.close("all")
