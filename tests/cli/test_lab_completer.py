"""`qwenkit lab --complete`: what JupyterLab is told, and what the model is asked."""

import importlib.util
import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest

from qwenkit.cli import _lab as lab
from qwenkit.cli import _main as cli
from qwenkit.cli import main

JUPYTER = Path(lab.__file__).parent / "jupyter"


@pytest.fixture(scope="module")
def completer():
    """The server extension, which Jupyter loads without the package."""
    spec = importlib.util.spec_from_file_location("completer", JUPYTER / "qwenkit_completer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def told(monkeypatch):
    """Give a function that returns what a command makes of JupyterLab's environment."""
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)

    def command(*line):
        system = mock.Mock(wraps=os, path=os.path, environ={lab.COMPLETE: "of another time"})
        system.name = "nt"
        with mock.patch.object(lab, "os", system), mock.patch.object(lab, "subprocess") as started:
            started.call.return_value = 0
            assert main(["lab", *line]) == 0
        return system.environ

    return command


def test_without_the_switch_nothing_completes(told):
    assert lab.COMPLETE not in told()


@pytest.mark.parametrize(("line", "options"), [
    (["--complete"], ["--dtype=auto"]),
    (["--complete", "TOY", "--dtype", "int8"], ["TOY", "--dtype=int8"]),
    (["--complete", "--", "--debug"], ["--dtype=auto"]),
])  # fmt: skip
def test_the_switch_hands_the_models_name_on(told, toy, line, options):
    named = [[str(toy) if one == "TOY" else one for one in words] for words in (line, options)]
    assert json.loads(told(*named[0])[lab.COMPLETE]) == named[1]


def test_a_model_that_does_not_exist_is_told_at_once(capsys):
    with mock.patch.object(cli, "lab") as started:
        assert main(["lab", "--complete", "nowhere/at/all"]) == 1
    assert not started.called
    assert "neither a folder here nor a Hub id" in capsys.readouterr().err


def test_jupyter_is_told_of_both_parts_only_with_the_switch(monkeypatch):
    text = (JUPYTER / "jupyter_server_config.py").read_text("utf-8")
    for given in (None, "[]"):
        monkeypatch.delenv(lab.COMPLETE, raising=False)
        if given:
            monkeypatch.setenv(lab.COMPLETE, given)
        monkeypatch.setattr(sys, "path", [*sys.path])
        config = mock.MagicMock()
        names = {"get_config": lambda found=config: found, "__file__": str(JUPYTER / "x.py")}
        exec(compile(text, "jupyter_server_config.py", "exec"), names)
        update = config.ServerApp.jpserver_extensions.update
        assert update.called == bool(given)
    update.assert_called_with({"qwenkit_completer": True})
    (folder,) = config.LabApp.extra_labextensions_path
    package = json.loads((Path(folder) / "qwenkit-completer" / "package.json").read_text("utf-8"))
    built = package["jupyterlab"]["_build"]
    assert (Path(folder) / "qwenkit-completer" / built["load"]).is_file()
    assert package["name"] == "qwenkit-completer"


def test_the_model_reads_whole_cells_above_and_the_text_around_the_cursor(completer):
    prompt, above, before = completer.prompt, completer.ABOVE, completer.BEFORE
    assert prompt([], "a", "b") == ("a", "b")
    assert prompt([], "a", "") == ("a", "\n")
    assert prompt(["import math\n", "x = 1"], "y = ", "z") == ("import math\n\nx = 1\n\ny = ", "z")
    long = ["a" * above, "b" * (above // 2), "c" * (above // 2 - 2)]
    text, _ = prompt(long, "x" * before * 2, "")
    assert text == f"{long[1]}\n\n{long[2]}\n\n{'x' * before}"
    text, after = prompt(["d" * (above + 1)], "x", "y" * completer.AFTER * 2)
    assert (text, after) == ("x", "y" * completer.AFTER)


def test_the_text_above_stays_the_same_while_one_types(completer):
    cells = [f"a{number} = {number}\n" * 30 for number in range(20)]
    texts = [completer.prompt(cells, "def f(x):\n    return"[:end], "")[0] for end in (3, 9, 18)]
    assert all(later.startswith(before) for before, later in pairwise(texts))


def test_the_printed_address_is_the_one_that_is_asked(completer):
    line = "serving 'my model' at http://127.0.0.1:49152/v1 (Ctrl-C stops)\n"
    assert completer._ADDRESS.match(line)[1] == "http://127.0.0.1:49152/v1"
