"""Small programs: every one runs, passes its tests, and says the truth in its examples."""

import ast
import doctest
import keyword
import re
import subprocess
import sys
import zlib
from itertools import islice, product
from random import Random

import pytest

from qwenkit.errors import InputError
from qwenkit.programs import generate
from qwenkit.programs.__main__ import main
from qwenkit.programs.drawing import draw
from qwenkit.programs.families import AREAS, FAMILIES
from qwenkit.programs.program import Printed, Program, claim, printed, refusal, shown

BY_NAME = {one.name: one for one in FAMILIES}
TRAINED = [one for one in FAMILIES if not one.held_out]
HELD_OUT = [one for one in FAMILIES if one.held_out]


def fails(program, body=None):
    """Run a program, perhaps with another body, against its tests; return the first that fails."""
    space = {}
    exec(program.code if body is None else program.prompt + body, space)
    for test in program.tests:
        try:
            exec(test, dict(space))
        except Exception:
            return test
    return None


def samples(area, seeds=4):
    """Return programs of each family of an area in each body's style."""
    for one in area.FAMILIES:
        for body, seed in product(range(len(one.bodies)), range(seeds)):
            rng = Random(f"{one.name} {body} {seed}")
            yield draw(rng, one, rng.choice(one.phrasings), body, documented=seed % 2 == 0)


def docstring(program):
    return ast.get_docstring(ast.parse(program.code).body[-1]) or ""


def names(one):
    """Return all names that the functions of a family may have, without its choices' values."""
    return {re.sub(r"\$[a-z]+", "*", name.removeprefix("~")) for name in one.names}


@pytest.mark.parametrize("area", AREAS, ids=[area.__name__.split(".")[-1] for area in AREAS])
def test_every_style_of_every_family_passes_its_tests(area, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for program in samples(area):
        assert fails(program) is None, program.code
        lines = program.code.split("\n")
        assert max(map(len, lines)) <= 88, program.code
        assert not any(line != line.rstrip() or "\t" in line for line in lines), program.code
        assert lines[-2:][0].strip()
        assert lines[-1] == ""
        assert program.name.isidentifier()
        assert not keyword.iskeyword(program.name)
        assert not re.search(r"\$|\[[^\]]*\|", docstring(program).split(">>>")[0]), program.code


@pytest.mark.parametrize("area", AREAS, ids=[area.__name__.split(".")[-1] for area in AREAS])
def test_examples_in_docstrings_are_true(area):
    for program in samples(area):
        if ">>>" in program.code:
            space = {}
            exec(program.code, space)
            found = doctest.DocTestParser().get_doctest(docstring(program), space, "", "", 0)
            assert doctest.DocTestRunner().run(found).failed == 0, program.code


def test_tests_refuse_a_program_that_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for one in FAMILIES:
        if one.kind != "class":
            program = draw(Random(one.name), one, one.phrasings[0])
            assert fails(program, "    return None\n"), program.code
            assert fails(program, "    return True\n"), program.code


def test_each_family_is_varied():
    assert len(BY_NAME) == len(FAMILIES) >= 150
    for one in FAMILIES:
        assert len(set(one.names)) >= 4, one.name
        assert len(one.phrasings) >= 7, one.name
        assert 2 <= len(one.bodies) <= 5, one.name
        held = [phrase for phrase in one.phrasings if phrase.held_out]
        assert 0 < len(held) < 0.5 * len(one.phrasings), one.name
        assert not one.phrasings[0].held_out
    every = [phrase for one in FAMILIES for phrase in one.phrasings]
    assert 0.15 < sum(phrase.held_out for phrase in every) / len(every) < 0.25


def test_held_out_families_are_made_of_known_parts():
    assert len(HELD_OUT) >= 12
    known = {part for one in TRAINED for part in re.findall(r"\w+", one.name)}
    for one in HELD_OUT:
        assert set(re.findall(r"\w+", one.name)) <= known, one.name
    assert set().union(*map(names, HELD_OUT)) & set().union(*map(names, TRAINED)) == set()


def test_splits_do_not_meet():
    drawn = {split: list(islice(generate(3, split), 3000)) for split in ("train", "phrasing")}
    drawn["family"] = list(islice(generate(3, "family"), 500))
    families = {split: {one.family for one in found} for split, found in drawn.items()}
    assert families["family"] <= {one.name for one in HELD_OUT}
    assert families["family"].isdisjoint(families["train"] | families["phrasing"])
    held = {(one.name, p.id) for one in FAMILIES for p in one.phrasings if p.held_out}
    assert {(one.family, one.phrasing) for one in drawn["train"]}.isdisjoint(held)
    assert {(one.family, one.phrasing) for one in drawn["phrasing"]} <= held
    said = {split: {(one.family, docstring(one).split("\n\n")[0]) for one in found} - {("", "")}
            for split, found in drawn.items()}  # fmt: skip
    assert {one for one in said["train"] if one[1]}.isdisjoint(said["phrasing"])
    assert all(docstring(one) for one in drawn["phrasing"] + drawn["family"])


def test_a_seed_gives_the_same_programs_in_every_process():
    source = (
        "import zlib; from itertools import islice; from qwenkit.programs import generate; "
        "print(zlib.crc32(repr(list(islice(generate(5), 300))).encode()))"
    )
    command = [sys.executable, "-W", "error", "-c", source]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(there) == zlib.crc32(repr(list(islice(generate(5), 300))).encode())
    assert list(islice(generate(5), 9)) != list(islice(generate(6), 9))


def test_no_program_comes_twice():
    drawn = list(islice(generate(0), 4000))
    assert len({one.code for one in drawn}) == 4000
    assert len({one.family for one in drawn}) > 0.8 * len(TRAINED)
    assert {one.kind for one in drawn} == {"function", "generator", "class"}


def test_chosen_families_and_phrasings():
    drawn = list(islice(generate(0, families=["is_even", "gcd"], phrasings=["0-return"]), 20))
    assert {(one.family, one.phrasing) for one in drawn} == {("gcd", "0-return")}
    drawn = list(islice(generate(0, families=["is_even", "gcd"]), 50))
    assert {one.family for one in drawn} == {"is_even", "gcd"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split is 'test'; it must be one of train, phrasing, family"),
        ({"families": ["is_evil"]}, "is_evil: no such family in the split 'train'"),
        ({"families": ["count(filter(odd))"]}, "no such family in the split 'train'"),
        ({"phrasings": ["99-say"]}, "no phrasing 99-say in the split 'train'"),
        ({"seed": "x"}, "seed is 'x'; it must be int"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        generate(**{"seed": 0, **options})


def test_values_are_written_the_same_in_every_process():
    assert shown({"b", "a"}) == "{'a', 'b'}"
    assert shown(set()) == "set()"
    assert claim("f()", None) == "assert f() is None"
    assert claim("f()", [1]) == "assert f() == [1]"
    assert claim("f()", 0.5) == "assert abs(f() - 0.5) < 1e-6"


def test_an_error_is_demanded():
    wanted = (refusal("f(-1)", ValueError()),)
    prompt = 'def f(n):\n    """Refuse n."""\n'
    program = Program("", "", "f", "function", prompt, "    raise ValueError\n", wanted)
    assert fails(program) is None
    assert fails(program, "    return n\n")
    assert fails(program, "    raise TypeError\n")


def test_printed_text_is_demanded():
    wanted = (printed("f(2)", "2\n4\n"),)
    program = Program(
        "", "", "f", "function", "def f(n):\n", "    print(n)\n    print(2 * n)\n", wanted
    )
    assert fails(program) is None
    assert fails(program, "    print(n)\n")
    assert fails(program, "    return '2\\n4\\n'\n")  # returned, not printed
    assert repr(Printed("2\n4\n")) == "2\n4"


def test_the_command_prints_programs_and_counts_them(capsys):
    assert main(["--count", "2", "--split", "family", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("# ") >= 2
    assert "assert " in printed
    assert main(["--count", "30", "--distinct"]) == 0
    assert "30 different programs in 30" in capsys.readouterr().out
    assert main(["--family", "nothing"]) == 1
    assert "nothing: no such family" in capsys.readouterr().err
