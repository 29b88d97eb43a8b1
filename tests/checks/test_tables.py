"""Every check of the course: right answers in several styles, and each wrong one by its mistake.

`table_gqa.py` holds the answers for `checks.gqa`, and so on. RIGHT: check -> functions. WRONG:
check -> (name of the mistake, function) or (name, function, words that the message must contain).
A name such as "values" stands for any diagnosis of that kind, such as "values: sign". GIVEN, if
there: check -> function that returns the check's further arguments.
"""

import json
import os
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from qwenkit import checks
from qwenkit.files import replacing

TABLES = {path.stem[6:]: path.stem for path in sorted(Path(__file__).parent.glob("table_*.py"))}
TABLES = {topic: import_module(name) for topic, name in TABLES.items()}
CHECKS = [(topic, check) for topic, table in TABLES.items() for check in table.RIGHT]
GENERIC = {"error", "kind", "shape", "dtype", "values"}  # it says what is wrong, not why
STARTS = {"right": "Right: ", "not yet": "Not yet: ", "empty": "Still empty"}


def judged(topic, check, learner):
    more = getattr(TABLES[topic], "GIVEN", {}).get(check, tuple)()
    verdict = getattr(getattr(checks, topic), check)(learner, *more)
    assert str(verdict).startswith(STARTS[verdict.outcome])
    return verdict


def answers(kind):
    """Return a parameter for each answer in a kind of table: the topic, the check and the row."""
    found = []
    for topic, check in CHECKS:
        for number, row in enumerate(getattr(TABLES[topic], kind)[check]):
            named = (row[0] if kind == "WRONG" else row.__name__).strip("_<>")
            label = f"style {number}" if named == "lambda" else named
            found.append(pytest.param(topic, check, number, id=f"{topic}-{check}-{label}"))
    return found


@pytest.fixture(scope="session")
def wrong_verdict(tmp_path_factory):
    """Return a function: the verdict on a wrong answer, judged once for all workers together."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers of this run

    def verdict(topic, check, number):
        path = folder / f"verdict-{topic}-{check}-{number}.json"
        if not path.exists():
            found = judged(topic, check, TABLES[topic].WRONG[check][number][1])
            with replacing(path) as temporary:
                temporary.write_text(json.dumps([found.outcome, found.mistake, str(found)]))
        return Told(*json.loads(path.read_text()))

    return verdict


class Told(NamedTuple):
    """What a verdict says."""

    outcome: str
    mistake: str | None
    text: str


@pytest.mark.parametrize(("topic", "check", "number"), answers("RIGHT"))
def test_right_no_matter_how_it_is_written(topic, check, number):
    verdict = judged(topic, check, TABLES[topic].RIGHT[check][number])
    assert (verdict.outcome, verdict.mistake) == ("right", None), str(verdict)


@pytest.mark.parametrize(("topic", "check", "number"), answers("WRONG"))
def test_a_wrong_answer_is_named(topic, check, number, wrong_verdict):
    name, _, *words = TABLES[topic].WRONG[check][number]
    verdict = wrong_verdict(topic, check, number)
    assert verdict.outcome == "not yet"
    assert name in (verdict.mistake, verdict.mistake.split(":")[0]), verdict.text
    assert all(one in verdict.text for one in words), verdict.text


@pytest.mark.parametrize(("topic", "check"), CHECKS)
def test_three_of_four_common_mistakes_get_a_diagnosis(topic, check, wrong_verdict):
    rows = range(len(TABLES[topic].WRONG[check]))
    found = [wrong_verdict(topic, check, number).mistake for number in rows]
    named = sum(name not in GENERIC for name in found)
    print(f"{topic}.{check}: {named} of {len(found)} wrong answers named")
    assert len(found) >= 10
    assert named / len(found) >= 0.75


def test_the_shares_over_the_whole_course(wrong_verdict):
    """Of all wrong answers: named at least 75 %, misleading at most 1 %, accepted none."""
    named = misleading = accepted = total = 0
    for topic, check in CHECKS:
        for number, (expected, *_) in enumerate(TABLES[topic].WRONG[check]):
            verdict = wrong_verdict(topic, check, number)
            total += 1
            accepted += verdict.outcome != "not yet"
            found = verdict.mistake or ""
            named += found not in GENERIC
            misleading += found not in GENERIC and expected not in (found, found.split(":")[0])
    print(f"{total} wrong answers to {len(CHECKS)} exercises: {named / total:.1%} named, "
          f"{misleading / total:.1%} misleading, {accepted} accepted")  # fmt: skip
    assert named / total >= 0.75
    assert misleading / total <= 0.01
    assert accepted == 0


@pytest.mark.parametrize("stub", [lambda *given: None, lambda *given: ...], ids=["None", "dots"])
@pytest.mark.parametrize(("topic", "check"), CHECKS)
def test_an_empty_stub_is_recognized(topic, check, stub):
    verdict = judged(topic, check, stub)
    assert (verdict.outcome, verdict.mistake) == ("empty", None)


@pytest.mark.parametrize(("topic", "check"), CHECKS)
def test_a_forgotten_return_is_not_an_empty_stub(topic, check):
    def without_return(*given):
        result = [*given]
        result.append(None)

    verdict = judged(topic, check, without_return)
    assert (verdict.outcome, verdict.mistake) == ("not yet", "no return")


@pytest.mark.parametrize(("topic", "check"), CHECKS)
def test_only_a_function_is_judged(topic, check):
    for value in (3, [1, 2], {}, (1, 2, 3), torch.ones(3)):
        verdict = judged(topic, check, value)
        assert verdict.mistake == "kind"
        assert "without parentheses" in str(verdict)


def test_every_exercise_has_a_check_and_answers():
    topics = {name for name, value in vars(checks).items() if hasattr(value, "EXERCISES")}
    assert set(TABLES) == topics
    for topic, table in TABLES.items():
        assert list(table.RIGHT) == list(table.WRONG)
        exercises = [judged(topic, check, lambda *given: None).exercise for check in table.RIGHT]
        assert exercises == list(getattr(checks, topic).EXERCISES)
    assert set(checks.EXERCISES) == set().union(*(getattr(checks, t).EXERCISES for t in topics))


@pytest.fixture
def mistakes(monkeypatch):
    """Return a function: the mistakes that a check knows."""

    def known(topic, check):
        found = []
        spy = lambda *args, **kwargs: found.extend(args[4]) or judge(*args, **kwargs)  # noqa: E731
        judge = getattr(checks, topic).judge
        monkeypatch.setattr(getattr(checks, topic), "judge", spy)
        judged(topic, check, lambda *given: None)
        return found

    return known


@pytest.mark.parametrize(("topic", "check"), CHECKS)
def test_every_known_mistake_is_tried(topic, check, mistakes):
    names = {mistake.name for mistake in mistakes(topic, check)}
    assert names
    assert names - {name for name, *_ in TABLES[topic].WRONG[check]} == set()


@pytest.mark.parametrize(("topic", "check"), CHECKS)
def test_hints_are_sentences_and_do_not_contain_the_solution(topic, check, mistakes):
    code = r"torch\.|arange|\*\*|dim=|cat\(|cumsum|zip\("
    code = code + r"|torch|\[" if topic == "rope" else code
    for mistake in mistakes(topic, check):
        assert mistake.hint.endswith((".", "?")), mistake.name
        assert not re.search(code, mistake.hint), mistake.name
