"""Names that notebooks or the README used before they moved: each works once more, and says so."""

import importlib
from pathlib import Path

import pytest

import qwenkit as qk
from qwenkit import _deprecated

RENAMED = {
    ("qwenkit.model", "open_attention"): "eager_attention",
    ("qwenkit.generate.sampling", "penalise"): "penalize",
    ("qwenkit.tokenizer", "_byte_alphabet"): "byte_alphabet",
    ("qwenkit.interpret", "sink_shares"): "sink_scores",
    ("qwenkit.checks.start", "likeliest_next"): "most_likely_next",
    ("qwenkit.checks.tokens", "neighbours"): "neighbors",
}


@pytest.mark.parametrize("old", _deprecated.MOVED)
def test_a_module_that_moved_is_found_and_says_so(old, monkeypatch):
    monkeypatch.delitem(importlib.sys.modules, old, raising=False)
    new = importlib.import_module(_deprecated.MOVED[old])
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new.__name__}") as said:
        assert importlib.import_module(old) is new
    assert not Path(said[0].filename).is_relative_to(Path(qk.__file__).parent)
    importlib.sys.modules.pop(old)


def test_it_is_an_attribute_of_the_package_too():
    importlib.sys.modules.pop("qwenkit.hub", None)
    vars(qk).pop("hub", None)
    with pytest.warns(DeprecationWarning, match="hub is now"):
        assert qk.hub.resolve is qk.resolve
    vars(qk).pop("hub", None)


@pytest.mark.parametrize(("module", "old"), RENAMED)
def test_a_function_under_its_old_name_is_the_new_one(module, old):
    home, new = importlib.import_module(module), RENAMED[module, old]
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}") as said:
        assert getattr(home, old) is getattr(home, new)
    assert said[0].filename == __file__
    with pytest.raises(AttributeError, match="has no attribute 'nothing_here'"):
        home.nothing_here  # noqa: B018
