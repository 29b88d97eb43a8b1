"""pass@k and its interval by other means; the score of a model that writes known programs."""

import json
import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.errors import InputError, SourceError
from qwenkit.programs import (
    FUNCTION_ENDS,
    Outcome,
    Sample,
    Score,
    Task,
    TaskScore,
    first_function,
    generate_tasks,
    interval,
    overlap,
    pass_at_k,
    read_tasks,
    run_many,
    score,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")
TASKS = Path(__file__).with_name("tasks.jsonl")


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_right_program(n):
    for c in range(n + 1):
        for k in range(1, n + 1):
            hits = [min(one) < c for one in combinations(range(n), k)]
            assert pass_at_k(n, c, k) == pytest.approx(sum(hits) / len(hits), rel=1e-15)


def test_pass_at_k_of_many_is_exact_where_a_product_of_floats_is_not():
    assert pass_at_k(10**6, 1, 1) == 1e-6
    assert pass_at_k(1000, 1, 10) == 0.01
    chen = 1.0 - math.prod(1 - 100 / i for i in range(200 - 5 + 1, 200 + 1))  # their listing
    assert pass_at_k(200, 5, 100) == pytest.approx(chen, rel=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (0, 0, 1)])
def test_pass_at_k_refuses_numbers_that_do_not_fit(n, c, k):
    with pytest.raises(InputError, match=rf"n, c, k is {n}, {c}, {k}; 0 <= c <= n and"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(("values", "low", "high"), [
    ([1.0] * 3 + [0.0] * 7, 0.1078, 0.6032), ([0.0] * 10, 0.0, 0.2775), ([1.0] * 10, 0.7225, 1.0),
    ([0.5] * 20, 0.2993, 0.7007),
])  # fmt: skip
def test_the_interval_ends_where_the_mean_is_1_96_standard_errors_away(values, low, high):
    mean, *ends = interval(values)
    assert [mean, *ends] == pytest.approx([sum(values) / len(values), low, high], abs=1e-4)
    for end in ends:
        assert (mean - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / len(values), 1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_mean_is_never_outside_its_interval(value):
    for count in range(1, 300):  # by rounding it was for some of them, and error bars then fail
        mean, low, high = interval([value] * count)
        assert low <= mean <= high


def test_the_interval_holds_the_truth_95_times_of_100():
    generator = torch.Generator().manual_seed(0)
    for truth in (0.1, 0.5, 0.9):
        draws = (torch.rand(1000, 50, generator=generator) < truth).double().tolist()
        held = sum(low <= truth <= high for _, low, high in map(interval, draws))
        assert 925 <= held <= 985


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = write_toy_checkpoint(tmp_path_factory.mktemp("toy"))
    return qk.load_pretrained(folder, dtype="float32", device="cpu")


@pytest.fixture
def write(pair, monkeypatch):
    """Return a function that lets the model write programs: prompt -> its texts, one by one."""
    model, tokenizer = pair
    prompts: list[list[str]] = []

    def written(book):
        book = {prompt: iter(texts) for prompt, texts in book.items()}
        rows = []

        def forward(input_ids, *, attention_mask, **options):
            if input_ids.shape[1] > 1:  # the prompts of a new batch
                asked = [tokenizer.decode(ids[mask.bool()]) for ids, mask in
                         zip(input_ids, attention_mask, strict=True)]  # fmt: skip
                prompts.append(asked)
                texts = [next(book[prompt]) for prompt in asked]
                rows[:] = [[*tokenizer(text)[0].tolist(), tokenizer.eos_id] for text in texts]
            rows[:] = [row for row in rows if row]  # the others have stopped
            mask = {"attention_mask": attention_mask}
            logits = torch.zeros_like(type(model).forward(model, input_ids, **mask, **options))
            for place, row in enumerate(rows):
                logits[place, -1, row.pop(0)] = 1000.0
            return logits

        monkeypatch.setattr(model, "forward", forward)
        return model, tokenizer

    written.prompts = prompts
    return written


A, B, C = (
    Task("def one():\n", "assert one() == 1", "numbers"),
    Task("def two():\n", "assert two() == 2", "numbers"),
    Task("def a():\n", "assert a() == 'a'", "strings"),
)
ONE, WRONG, BROKEN = "    return 1\n", "    return 0\n", "    return (\n"
BOOK = {
    A.prompt: [ONE, ONE, WRONG, WRONG, BROKEN],  # greedy, then four samples
    B.prompt: ["    return 2", WRONG, WRONG, WRONG, WRONG],
    C.prompt: ["    while True: pass", *["    return 'a'"] * 4],
}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 99])
def test_known_programs_have_known_figures(write, batch_size):
    found = score(*write(BOOK), [A, B, C], samples=4, ks=[1, 2, 4], batch_size=batch_size,
                  seconds=0.5)  # fmt: skip
    assert [one.pass_at(1) for one in found.tasks] == [0.25, 0.0, 1.0]
    assert [one.pass_at(2) for one in found.tasks] == [0.5, 0.0, 1.0]
    assert found.pass_at(1) == interval([0.25, 0.0, 1.0])
    assert found.pass_at(4, "numbers").value == 0.5
    assert found.greedy().value == pytest.approx(2 / 3)
    assert found.greedy("strings").value == 0.0
    assert found.reasons() == {"passed": 7, "failed": 6, "syntax": 1, "time": 1}
    assert [one.outcome.reason for one in found.tasks[0].samples] == [
        "passed", "failed", "failed", "syntax"
    ]  # fmt: skip
    assert max(map(len, write.prompts)) == min(batch_size, 12)


def test_the_table(write):
    found = score(*write(BOOK), [A, B, C], samples=4, ks=(1, 4), seconds=0.5)
    lines = [line.split() for line in str(found).splitlines()]
    assert lines[0] == ["family", "tasks", "greedy", "pass@1", "pass@4"]
    figures = "100.0% (34.2% to 100.0%) 12.5% (0.7% to 73.6%) 50.0% (9.5% to 90.5%)"
    assert lines[1] == f"numbers 2 {figures}".split()
    assert [line[:3] for line in lines[2:4]] == [["strings", "1", "0.0%"], ["all", "3", "66.7%"]]
    assert lines[-1] == "programs: passed 7, failed 6, time 1, syntax 1".split()


def test_greedy_alone_and_samples_alone(write):
    found = score(*write(BOOK), [A, B], samples=0)
    assert (found.ks, found.greedy().value, found.tasks[0].samples) == ((), 1.0, ())
    found = score(*write(BOOK), [A, B], samples=2, ks=[2], greedy=False)
    assert (found.tasks[0].greedy, found.pass_at(2).value) == (None, 1.0)
    assert "greedy" not in found.table()


def test_a_function_ends_where_the_next_line_begins_in_column_0(write):
    text = ONE + "\nprint(one())\nraise SystemExit"
    found = score(*write({A.prompt: [text]}), [A], samples=0)
    assert found.tasks[0].greedy.text == first_function(text) == ONE
    assert found.greedy().value == 1.0


@pytest.mark.parametrize(("text", "cut"), [
    ("\n    return 1", "\n    return 1"), ("    a\n\n\n    b\ndef f", "    a\n\n\n    b"),
    ("    a\n# b", "    a"), ("    a\n\té", "    a\n\té"), ("    a\né = 1", "    a"), ("", ""),
    ("    a\n@b", "    a"), ("    a\n\n'''b", "    a\n"),
])  # fmt: skip
def test_first_function(text, cut):
    assert first_function(text) == cut
    assert text.isascii() is False or (cut != text) == any(end in text for end in FUNCTION_ENDS)


def test_samples_depend_on_the_seed_and_not_on_the_batch_size(pair):
    def texts(**options):
        settings = {"samples": 3, "ks": [1], "max_new_tokens": 6, "greedy": False, **options}
        found = score(*pair, [A, C], **settings)
        return [sample.text for one in found.tasks for sample in one.samples]

    assert texts() == texts(batch_size=2) == texts(batch_size=1)
    assert texts() != texts(seed=1)
    assert len(set(texts())) > 3


@pytest.mark.parametrize(("options", "message"), [
    ({"tasks": []}, "tasks is empty"), ({"tasks": ["def f"]}, "tasks is ['def f']; it must be"),
    ({"ks": [11]}, "n, c, k is 10, 0, 11"), ({"ks": [0]}, "n, c, k is 10, 0, 0"),
    ({"samples": -1}, "samples is -1"), ({"batch_size": 0}, "batch_size 0"),
    ({"samples": 0, "greedy": False}, "nothing is asked for"), ({"seconds": 0}, "seconds is 0"),
    ({"temperature": -1}, "temperature is -1"), ({"max_new_tokens": 0}, "max_new_tokens is 0"),
])  # fmt: skip
def test_what_score_refuses(pair, options, message):
    with pytest.raises(InputError) as caught:
        score(*pair, **{"tasks": [A], "max_new_tokens": 2, **options})
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "count"), [("tasks", 12), ("course", 92)])
def test_the_tasks_of_this_folder_pass_by_their_solutions_and_fail_without(name, count):
    tasks = read_tasks(TASKS.with_stem(name))
    assert len(tasks) == count
    assert len({task.prompt for task in tasks}) == count
    outcomes = run_many([(task.prompt + task.solution, task.tests) for task in tasks])
    assert [one.reason for one in outcomes] == ["passed"] * count
    for nothing in ("", "    pass\n"):
        outcomes = run_many([(task.prompt + nothing, task.tests) for task in tasks])
        assert not any(one.passed for one in outcomes)


def test_the_twelve_tasks_are_of_four_families():
    assert {one.family for one in read_tasks(TASKS)} == {"numbers", "strings", "lists", "dicts"}


ROW = {"prompt": "def f():\n", "tests": "assert f()"}


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no tasks"), ("\n\n", "holds no tasks"), ("{", "line 1: "), ("3", "3 is not a task"),
    ('{"prompt": "x"}', "must have prompt and tests"), ("[" * 99_999, "line 1: "),
    (json.dumps({**ROW, "tests": "f()"}), "line 1: tests is 'f()'; it must hold at least one"),
    (f"\n{json.dumps({**ROW, 'family': 3})}", "line 2: family is 3; it must be text"),
    (json.dumps({**ROW, "prompt": ""}), "line 1: prompt is ''"),
])  # fmt: skip
def test_what_read_tasks_refuses(tmp_path, text, message):
    (tmp_path / "tasks.jsonl").write_text(text)
    with pytest.raises(InputError) as caught:
        read_tasks(tmp_path / "tasks.jsonl")
    assert message in str(caught.value)


def test_read_tasks_reads_what_it_knows_and_names_what_it_cannot_read(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({**ROW, "more": 1}).encode() + b"\r\n")
    assert read_tasks(path) == [Task(ROW["prompt"], ROW["tests"])]
    path.write_bytes(b"\xff")
    with pytest.raises(SourceError, match="is not UTF-8"):
        read_tasks(path)
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read_tasks(tmp_path / "absent")


LONG = Task("def add(a, b):\n", "assert add(1, 2) == 3", solution="    return a + b + 0 - 0\n")


@pytest.mark.parametrize(("texts", "prompts", "solutions", "share"), [
    ([], (), (), 0), (["x = 1"], (), (), 0),
    (["def add( a,b ):pass"], (0,), (), 0.5),  # whitespace does not count
    (["if x:\n\treturn a + b + 0 - 0"], (), (0,), 0.5),
    (["return a + b + 0 - 1"], (), (), 0), (["a + b + 0 - 0"], (), (), 0),
    (["def add(a, b):", "def add(a, b):\n  return a + b + 0 - 0"], (0,), (0,), 1),
    (["undef add(a, b):"], (), (), 0),
])  # fmt: skip
def test_overlap(texts, prompts, solutions, share):
    found = overlap([LONG], iter(texts))
    assert (found.prompts, found.solutions) == (prompts, solutions)
    assert found.shares == (share,)


def test_overlap_counts_tasks():
    found = overlap([LONG, A], ["def one():", "def add(a, b):"])
    assert (found.prompts, found.shares) == ((0, 1), (0.5, 0.0))  # A is too short for n-grams
    assert str(found) == (
        "of 2 tasks, 2 prompts and 0 solutions occur in the text as a whole; of their 8-token "
        "n-grams 25.0% do, of one task's at most 50.0%"
    )


@pytest.mark.parametrize("split", ["train", "phrasing", "family"])
def test_the_solutions_of_generated_tasks_pass_and_empty_ones_do_not(split):
    tasks = generate_tasks(40, split, seed=5)
    assert len({task.family for task in tasks}) > 12
    ended = run_many([(task.prompt + task.solution, task.tests) for task in tasks])
    assert [one.reason for one in ended] == ["passed"] * 40
    empty = run_many([(task.prompt + "    pass\n", task.tests) for task in tasks])
    assert not any(one.passed for one in empty)


def test_tasks_of_programs_that_refuse_their_input():
    refusals = [task for task in generate_tasks(3000, "train") if "except" in task.tests][:20]
    assert len(refusals) == 20
    right = run_many([(task.prompt + task.solution, task.tests) for task in refusals])
    assert all(one.passed for one in right)


def test_generated_tasks_are_those_of_the_seed_and_of_the_families_asked_for():
    assert generate_tasks(3, seed=1) == generate_tasks(3, seed=1) != generate_tasks(3, seed=2)
    assert {task.family for task in generate_tasks(5, families=["is_even"])} == {"is_even"}
    with pytest.raises(InputError, match="count is 0; it must be 1 to"):
        generate_tasks(0)


def test_a_table_of_many_families_has_one_line():
    def table(number):
        tasks = [Task("def f():\n", "assert f() == 1", family=f"family {i}") for i in range(number)]
        passed = Sample("", Outcome("passed"))
        return Score(tuple(TaskScore(task, passed, ()) for task in tasks), ()).table().split("\n")

    assert len(table(40)) == 40 + 3
    assert [line.split()[0] for line in table(41)] == ["family", "all", "programs:"]
