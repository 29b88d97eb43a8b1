"""The judge itself: right answers in any form, named mistakes, and clear messages for the rest."""

import json

import numpy as np
import pytest
import torch

from qwenkit import checks
from qwenkit.checks import Case, Mistake, judge
from qwenkit.checks._progress import record
from qwenkit.checks._same import same


def double(x):
    return 2 * x


CASES = (
    Case("three numbers", (torch.tensor([1.0, -2.0, 3.0]),)),
    Case("one number", (torch.tensor([5.0]),)),
    Case("bfloat16", (torch.tensor([1.5, 2.5], dtype=torch.bfloat16),)),
)
MISTAKES = (
    Mistake("squared", "that is the square. What is twice a number?", lambda x: x * x),
    Mistake("float32", "keep the dtype that came in.", lambda x: 2 * x.float()),
    Mistake("too many", "one number is not two.", lambda x: 2 * x.reshape(3)),
)


def verdict(function):
    return judge("99.1", function, double, CASES, MISTAKES, "you can double.")


@pytest.mark.parametrize("function", [
    double, lambda x: x + x, lambda x: torch.stack([a * 2 for a in x]),
], ids=["product", "sum", "loop"])  # fmt: skip
def test_right_no_matter_how_it_is_written(function):
    found = verdict(function)
    assert (found.outcome, found.mistake) == ("right", None)
    assert str(found) == "Right: you can double."


@pytest.mark.parametrize("function", [
    lambda x: None, lambda x: ..., lambda x: (_ for _ in ()).throw(NotImplementedError),
], ids=["None", "dots", "raises"])  # fmt: skip
def test_an_empty_stub_is_recognized(function):
    assert str(verdict(function)).startswith("Still empty")


def _half_done(x):
    if len(x) > 1:
        return 2 * x
    print(2 * x)


def _prints(x):
    print(2 * x)


def _changes_a_list(x):
    x.append(1)
    return x[:-1]


WRONG = {
    "squared": lambda x: x**2,
    "float32": lambda x: (x + x).to(torch.float32),
    "error": lambda x: x @ x @ x,
    "kind": lambda x: (x, x),
    "shape": lambda x: 2 * x[:1],
    "dtype": lambda x: (2 * x + 1).to(torch.float16),
    "no return": _prints,
    "dtype: values right": lambda x: (2 * x).to(torch.float64),
    "kind: not a tensor": lambda x: [2 * float(one) for one in x],
    "shape: dimensions of size 1": lambda x: 2 * x[:, None],
    "values: sign": lambda x: -2 * x,
    "values: unchanged": lambda x: x,
    "values: times a constant": lambda x: 6 * x,
    "values: plus a constant": lambda x: 2 * x + 0.5,
    "values: nan": lambda x: x / 0 * 0,
    "error: the shapes": lambda x: x + torch.ones(len(x) + 1, 5),
    "error: a name": lambda x: 2 * undefined,  # noqa: F821
    "error: not UTF-8": lambda x: b"\xff".decode(),
    "error: arguments": lambda: 3,
    "values": lambda x: 2 * x + x**2,
    "too many": lambda x: 2 * x.view(3),
    "changes its input": lambda x: x.mul_(2),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_kind_of_mistake_is_named(name):
    found = verdict(WRONG[name])
    assert found.mistake == name
    assert found.outcome == "not yet"
    assert str(found).startswith("Not yet: ")


def test_a_mistake_is_recognized_only_if_every_case_that_shows_it_agrees():
    """Squares, and fails on bfloat16, which the square alone would not."""
    found = verdict(lambda x: np.square(x.numpy()) and None if x.dtype == torch.bfloat16 else x * x)
    assert found.mistake != "squared"  # bfloat16 shows the mistake too, and the answers differ
    assert verdict(lambda x: x * x if len(x) != 2 else torch.zeros(2)).mistake == "values"


@pytest.mark.parametrize(("function", "name", "message"), [
    (lambda x: (x, (x + 1).to(torch.float16)), "dtype", "value 2 of 2: the dtype is float16"),
    (lambda x: (x**2, x), "values", "value 1 of 2: the shape is right"),
    (lambda x: (x, x.to(torch.float16)), "dtype: values right", "value 2 of 2: the values are"),
    (lambda x: (x, x[:1]), "shape", "expected"),
    (lambda x: (x, x, x), "kind", "a tuple of 3 values"),
])  # fmt: skip
def test_of_several_values_the_wrong_one_is_named(function, name, message):
    cases = [Case("three numbers", (torch.tensor([1.0, -2.0, 3.0]),))]
    found = judge("99.2", function, lambda x: (x, x), cases, (), "you can.")
    assert found.mistake == name
    assert message in str(found)


@pytest.mark.parametrize(("function", "right", "name", "message"), [
    (_half_done, double, "no return", "it returns None (one number; 2 of 3 cases are right)"),
    (lambda x: 3 * x**3, double, "values", "at [2] it has 81, expected 6"),
    (lambda x: x.where(x < 2, -torch.inf), lambda x: x.where(x < 3, -torch.inf),
        "values: infinite", "it has -inf, expected 2.5"),
    (lambda x: 2 * x + 9e-5 * (x > 2), double, "values", "it has 6.00009, expected 6 (three"),
    (lambda x: 2 * x.float() + (x.dtype == torch.bfloat16), double, "dtype",
        "expected bfloat16, the dtype that came in (bfloat16"),
    (lambda x: 2 * x, lambda x: (2 * x).double(), "dtype: values right", "expected float64 (three"),
    (lambda x: ["a", "b"], lambda x: "abc", "kind", "list of 2 values, ['a', 'b']; expected a str"),
    (lambda x: [*range(99)], lambda x: [0], "kind", "15, 16, …; expected a list of 1 value, [0]"),
    (lambda x: x[7], double, "error: an index", "in the line `(lambda x: x[7], double"),
    (lambda x: len(x) / 1, len, "kind: a float", "A count is an int"),
    (lambda x: str(len(x)), len, "kind: text", "it returns a str; expected an int"),
    (lambda x: {"a": x}, lambda x: {"b": x}, "values", "its keys are ['a']; expected ['b']"),
    (lambda x: np.int64(len(x)), len, None, "you can"),
])  # fmt: skip
def test_the_message_shows_what_differs(function, right, name, message):
    found = judge("99.1", function, right, CASES, (), "you can.")
    assert found.mistake == name, str(found)
    assert message in str(found)


def test_a_changed_input_is_named_by_what_it_is():
    found = judge("99.1", _changes_a_list, list, [Case("a list", ([1, 2],))], (), "you can.")
    assert found.mistake == "changes its input"
    assert "changes its input, a list." in str(found)


def test_an_answer_by_a_forbidden_function_is_not_right():
    def negated(x):
        return torch.neg(x)

    assert judge("99.1", negated, negated, CASES, (), "you can.").outcome == "right"
    found = judge("99.1", negated, negated, CASES, (), "you can.", forbidden=("neg",))
    assert (found.mistake, "it uses `neg`" in str(found)) == ("forbidden", True)


def test_a_mistake_that_shows_in_one_case_does_not_explain_the_others():
    """Both are wrong for one number, but one of them everywhere else, too."""
    mistake = Mistake("one", "one number is not zero.", lambda x: 2 * x if len(x) > 1 else 0 * x)
    for function, name in ((mistake.function, "one"), (lambda x: x**3 * (len(x) > 1), "values")):
        assert judge("99.1", function, double, CASES, [mistake], "").mistake == name


def test_errors_of_one_type_are_not_one_mistake():
    mistake = Mistake("seven", "an index of 7.", lambda x: x[7])
    found = judge("99.1", lambda x: x[:, 0], double, CASES, [mistake], "")
    assert found.mistake == "error: the dimensions"


def test_progress_keeps_an_exercise_that_was_right_once(tmp_path):
    file = tmp_path / "deep" / "progress.json"
    verdict(lambda x: None)
    assert not file.exists()
    verdict(lambda x: x)
    first = verdict(lambda x: x).mistake
    assert json.loads(file.read_text()) == {"99.1": {"outcome": "not yet", "mistakes": {first: 2}}}
    verdict(double)
    verdict(lambda x: x)
    kept = {"99.1": {"outcome": "right", "mistakes": {first: 3}}}
    assert json.loads(file.read_text()) == kept
    verdict(double)
    assert json.loads(file.read_text()) == kept
    assert [path.name for path in file.parent.iterdir()] == ["progress.json"]


@pytest.mark.parametrize("content", ["", "[1]", "{", '"x"', b"\xff"], ids=repr)
def test_a_damaged_progress_file_is_replaced(content, tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("QWENKIT_PROGRESS", str(file))
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert verdict(double).outcome == "right"
    assert json.loads(file.read_text()) == {"99.1": {"outcome": "right", "mistakes": {}}}


def test_a_progress_file_of_an_earlier_version_is_read(tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("QWENKIT_PROGRESS", str(file))
    file.write_text(json.dumps({"00.1": "right", "00.2": "not yet", "00.3": {"mistakes": 3}}))
    assert str(checks.progress()).splitlines()[-1].startswith("1 of ")
    verdict(double)
    assert json.loads(file.read_text())["00.1"] == {"outcome": "right", "mistakes": {}}


def test_a_check_works_where_progress_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "a_file").write_text("x")
    monkeypatch.setenv("QWENKIT_PROGRESS", str(tmp_path / "a_file" / "progress.json"))
    assert verdict(double).outcome == "right"


def test_progress_lists_the_whole_course():
    text = str(checks.progress())
    assert text.splitlines()[-1].startswith("0 of ")
    assert len(text.splitlines()) == len(checks.EXERCISES) + 1


def test_progress_shows_mistakes_as_text_and_as_a_table_with_a_bar(tmp_path, monkeypatch):
    monkeypatch.setenv("QWENKIT_PROGRESS", str(tmp_path / "progress.json"))
    record("00.1", "not yet", "a < b")
    record("00.1", "not yet", "a < b")
    record("00.1", "right")
    found = checks.progress()
    assert "solved  00.1" in str(found)
    assert "(mistakes: a < b (2))" in str(found)
    html = found._repr_html_()
    assert html.count("<tr>") == len(checks.EXERCISES) + 1
    assert ">a &lt; b (2)</td>" in html
    assert f"width: {100 / len(checks.EXERCISES):.0f}%" in html


def test_same_compares_kind_shape_dtype_and_value():
    one = torch.tensor([1.0, 2.0])
    assert same(one, one + 1e-7, 1e-5)
    assert not same(one, one + 1e-3, 1e-5)
    assert same([one, "a", {"x": 1}], [one.clone(), "a", {"x": 1}], 1e-5)
    for other in (one.double(), one[None], one.tolist(), 1.0, "a", None, one.numpy()):
        assert not same(one, other, 1e-5)
    assert not same(True, 1, 1e-5)
    assert same(2, 2.0, 1e-5)
    assert same(np.ones(2), np.ones(2), 0)
    assert not same(np.ones(2), np.ones(2, np.float32), 0)
    infinite = torch.tensor([1.0, float("-inf")])
    assert same(infinite, infinite.clone(), 1e-5)
    assert not same(infinite, torch.tensor([1.0, 0.0]), 1e-5)
    assert not same(torch.tensor([float("nan")]), torch.tensor([0.0]), 1e-5)
