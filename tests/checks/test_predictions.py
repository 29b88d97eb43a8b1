"""Predictions: recorded by a click, answered by a computed value, counted at the end."""

import json

import pytest

import qwenkit as qk
from qwenkit.checks import predictions
from qwenkit.checks._predictions import file

OPTIONS = ["it stays", "it grows"]


def test_a_prediction_comes_true_or_not(capsys):
    assert str(predictions()) == "No prediction recorded yet"
    qk.predict("04.1", OPTIONS).buttons.value = "it stays"
    qk.predict("04.2", OPTIONS).buttons.value = "it stays"
    qk.predict("05.1", OPTIONS).buttons.value = "it grows"
    for name in ("04.1", "04.2", "05.1"):
        qk.outcome(name, "it grows")
    assert capsys.readouterr().out.splitlines() == [
        "Prediction 04.1: you said 'it stays'; the answer is 'it grows'.",
        "Prediction 04.2: you said 'it stays'; the answer is 'it grows'.",
        "Prediction 05.1: you said 'it grows', and that is right.",
    ]
    assert str(predictions("04")).endswith("0 of 2 predictions came true")
    assert str(predictions()).endswith("1 of 3 predictions came true")
    assert "05.1  true   said 'it grows', came 'it grows'" in str(predictions())


def test_without_a_click_the_answer_is_said_and_nothing_counts(capsys):
    qk.predict("04.1", OPTIONS)
    qk.outcome("04.1", "it stays")
    assert capsys.readouterr().out == "Prediction 04.1: the answer is 'it stays'.\n"
    assert str(predictions()) == "No prediction recorded yet"


def test_a_click_after_the_answer_is_not_recorded():
    asked = qk.predict("04.1", OPTIONS)
    qk.outcome("04.1", "it stays")
    asked.buttons.value = "it stays"
    assert "not recorded" in asked.note.value
    assert str(predictions()) == "No prediction recorded yet"


def test_a_choice_can_change_until_the_answer_and_is_there_again_later():
    asked = qk.predict("04.1", OPTIONS)
    asked.buttons.value = "it grows"
    asked.buttons.value = "it stays"
    assert qk.predict("04.1", OPTIONS).buttons.value == "it stays"
    assert qk.predict("04.1", ["other", "texts"]).buttons.value is None


def test_a_page_without_a_kernel_shows_the_options():
    bundle = qk.predict("04.1", OPTIONS)._repr_mimebundle_()
    assert bundle["text/plain"] == "Prediction 04.1: it stays / it grows"
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize("options", ["text", ["one"], [], [1, 2], ["one", None], None, 3])
def test_options_that_are_none(options):
    with pytest.raises(qk.QwenkitError, match="must be a list of two or more texts"):
        qk.predict("04.1", options)


def test_an_answer_is_one_of_the_options():
    qk.predict("04.1", OPTIONS)
    with pytest.raises(qk.QwenkitError, match="must be one of it stays, it grows"):
        qk.outcome("04.1", "it shrinks")


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"04.1": 3}', '{"04.1": {"said": 3}}'])
def test_a_damaged_file_is_as_none(damage, capsys):
    file().parent.mkdir(parents=True)
    file().write_text(damage)
    qk.predict("04.1", OPTIONS)
    qk.outcome("04.1", "it stays")
    assert "the answer is 'it stays'" in capsys.readouterr().out
    assert isinstance(json.loads(file().read_text()), dict)
    assert str(predictions("05")) == "No prediction recorded yet"


def test_where_nothing_can_be_written_all_works_the_same(tmp_path, monkeypatch, capsys):
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("QWENKIT_PROGRESS", str(tmp_path / "a_file" / "progress.json"))
    qk.predict("04.1", OPTIONS).buttons.value = "it grows"
    qk.outcome("04.1", "it grows")
    assert "the answer is 'it grows'" in capsys.readouterr().out
