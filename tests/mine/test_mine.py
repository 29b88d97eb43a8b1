"""The reader's functions: kept in a file with all they need, and assembled into a model."""

import re
from contextlib import suppress

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from notebook_cells import BLOCK, FOLDER, read, tagged

import qwenkit as qk

NOTEBOOKS = ("03_rmsnorm", "04_rope", "05_attention", "06_gqa", "07_mlp", "08_decoder_layer")


@pytest.fixture(autouse=True)
def _own_files(tmp_path, monkeypatch):
    monkeypatch.setenv("QWENKIT_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setenv("QWENKIT_MINE", str(tmp_path / "notes" / "my_qwen.py"))


@pytest.fixture
def cell():
    """Return a function that runs the code of a cell, as a notebook would."""
    shell = InteractiveShell.instance()
    shell.reset(new_session=False)

    def run(code):
        result = shell.run_cell(code)
        result.raise_error()
        return shell.user_ns

    yield run
    shell.reset(new_session=False)
    InteractiveShell.clear_instance()


ROTATE = """
import torch
import qwenkit as qk

def halves(x):
    return x.chunk(2, dim=-1)

def rotate(x, cos, sin):
    a, b = halves(x)
    return x * cos[:, None] + torch.cat([-b, a], dim=-1) * sin[:, None]
"""


def test_only_what_a_check_called_right_is_kept(cell, capsys):
    cell(ROTATE)
    cell("qk.mine.keep(rotate)")
    assert "Not kept, because no check has said Right yet: rotate" in capsys.readouterr().out
    assert not qk.mine.file().exists()
    cell("print(qk.checks.rope.rotate(rotate))\nqk.mine.keep(rotate)")
    assert "Kept in my_qwen.py: rotate" in capsys.readouterr().out
    text = qk.mine.file().read_text()
    assert text.index("import torch") < text.index("def halves") < text.index("def rotate")
    assert "import qwenkit" not in text
    assert "3 of" not in str(qk.mine.parts())
    assert "1 of 9 parts are yours" in str(qk.mine.parts())


def test_a_function_defined_again_is_not_the_one_that_was_checked(cell, capsys):
    cell(ROTATE + "\nprint(qk.checks.rope.rotate(rotate))")
    cell("def rotate(x, cos, sin):\n    return x")
    cell("qk.mine.keep(rotate)")
    assert "Not kept" in capsys.readouterr().out


def test_keeping_again_replaces_and_leaves_the_rest_of_the_file(cell):
    cell(ROTATE + "\nprint(qk.checks.rope.rotate(rotate))\nqk.mine.keep(rotate)")
    path = qk.mine.file()
    path.write_text(path.read_text() + "\n\n# a note of mine\nHOURS = 3\n")
    again = ROTATE.replace("a, b = halves(x)", "a, b = halves(x)  # again\n    F.relu(a * SCALE)")
    cell("import torch.nn.functional as F\nSCALE = 2.5\n" + again)
    cell("print(qk.checks.rope.rotate(rotate))\nqk.mine.keep(rotate)")
    text = path.read_text()
    assert text.count("def rotate(") == text.count("def halves(") == 1
    assert "# again" in text
    assert "# a note of mine\nHOURS = 3\n" in text
    assert "import torch.nn.functional as F\n" in text
    module = qk.mine.load()
    assert module.HOURS == 3
    assert module.SCALE == 2.5
    x = torch.randn(1, 2, 3, 8)
    tables = torch.ones(1, 3, 8), torch.zeros(1, 3, 8)
    assert torch.equal(module.rotate(x, *tables), x)


def test_a_value_of_the_notebook_cannot_be_kept(cell):
    cell(ROTATE + "\ntable = torch.ones(3)")
    cell("def rotate(x, cos, sin, right=rotate):\n    table.sum()\n    return right(x, cos, sin)")
    cell("print(qk.checks.rope.rotate(rotate))")
    with pytest.raises(qk.QwenkitError, match=r"uses `table`, a Tensor.*as an argument"):
        cell("qk.mine.keep(rotate)")
    assert not qk.mine.file().exists()


@pytest.mark.parametrize("text", ["def rotate(:\n", "HOURS = = 3\n"])
def test_a_damaged_file_is_named_and_stays(cell, text):
    qk.mine.file().parent.mkdir()
    qk.mine.file().write_text(text)
    cell(ROTATE + "\nprint(qk.checks.rope.rotate(rotate))")
    with pytest.raises(qk.QwenkitError, match=r"line 1 of .*my_qwen.py is not valid Python"):
        cell("qk.mine.keep(rotate)")
    with pytest.raises(qk.QwenkitError, match=r"line 1 of my_qwen.py fails"):
        qk.mine.parts()
    assert qk.mine.file().read_text() == text


def test_a_file_that_fails_names_its_line():
    qk.mine.file().parent.mkdir()
    qk.mine.file().write_text("import math\n\nhalf = math.pi / 0\n")
    with pytest.raises(qk.QwenkitError, match=r"line 3 of my_qwen.py fails: ZeroDivisionError"):
        qk.mine.load()


def test_nothing_kept_is_the_package_s_model():
    model, _ = qk.load_pretrained(dtype="float32", device="cpu")
    assert qk.mine.load() is None
    assert "0 of 9 parts are yours" in str(qk.mine.parts())
    ids = torch.arange(20)[None]
    torch.testing.assert_close(qk.mine.model(model)(ids), model(ids), rtol=1e-4, atol=1e-4)


def test_the_package_stands_in_with_the_same_functions():
    theirs, tokenizer = qk.load_pretrained(dtype="float32", device="cpu")
    functions = qk.mine.functions()
    assert [one.__name__ for one in functions] == list(qk.mine.PARTS)
    names = dict(zip(qk.mine.PARTS, functions, strict=True))
    qk.mine.file().parent.mkdir()
    text = "".join(f"from qwenkit.mine.stand_ins import {name}\n" for name in names)
    qk.mine.file().write_text(text)  # imported: not the reader's
    assert qk.mine.parts().mine == {}
    calls = (f"def {name}(*given):\n    return stand_ins.{name}(*given)\n" for name in names)
    qk.mine.file().write_text("from qwenkit.mine import stand_ins\n" + "".join(calls))
    assert len(qk.mine.parts().mine) == len(names)
    assert {one.__module__ for one in qk.mine.functions()} == {"my_qwen"}
    ids = tokenizer("def area(width, height):\n    return")
    torch.testing.assert_close(qk.mine.model(theirs)(ids), theirs(ids), rtol=1e-4, atol=1e-4)


@pytest.fixture
def whole(cell):
    """Solve notebook 09's exercise of a whole model, with some of the parts in the file."""
    cell("import inspect\nimport torch\nfrom torch import nn\nimport qwenkit as qk" + ROTATE)
    cell("print(qk.checks.rope.rotate(rotate))\nqk.mine.keep(rotate)\nrotate = None")
    notebook = read(FOLDER / "09_whole_model.ipynb")
    (line,) = [
        one.source for one in notebook.cells
        if one.cell_type == "code" and "qk.mine.functions()" in one.source
    ]  # fmt: skip
    cell(line)
    texts = [
        c.source for c in notebook.cells if "class Whole" in c.source and "<details>" in c.source
    ]
    cell(BLOCK.findall(texts[0])[-1])
    return cell


def test_a_class_is_kept_with_all_that_it_needs(whole, capsys):
    whole("qk.mine.keep(Whole)")
    assert "Not kept" in capsys.readouterr().out
    whole("print(qk.checks.model.whole(Whole))\nqk.mine.keep(Whole)")
    assert "Kept in my_qwen.py: Whole" in capsys.readouterr().out
    text = qk.mine.file().read_text()
    assert "import rotate" not in text  # it is in the file
    assert "from qwenkit.mine.stand_ins import attend" in text
    assert list(qk.mine.parts().mine) == ["rotate"]
    theirs, tokenizer = qk.load_pretrained(dtype="float32", device="cpu")
    mine = qk.mine.load().Whole(theirs.config)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    ids = tokenizer("def area(width, height):\n    return")
    torch.testing.assert_close(mine(ids), theirs(ids), rtol=1e-4, atol=1e-4)


def test_a_file_may_import_itself_wherever_it_is():
    qk.mine.file().parent.mkdir()
    text = (
        "import my_qwen\n\n\ndef two():\n    return my_qwen.one()\n\n\ndef one():\n    return 1\n"
    )
    qk.mine.file().write_text(text)
    assert qk.mine.load().two() == 1


@pytest.fixture
def solved(cell):
    """Keep every part of the model, from the solutions of the course; return their names."""
    cell("import math, torch, torch.nn.functional as F\nfrom torch import nn\nimport qwenkit as qk")
    kept = []
    for name in NOTEBOOKS:
        notebook = read(FOLDER / f"{name}.ipynb")
        solutions, checks = tagged(notebook, "solution"), tagged(notebook, "check")
        for number in solutions:
            code = BLOCK.findall(notebook.cells[solutions[number]].source)[-1]
            written = re.findall(r"^(?:def|class) (\w+)", code, re.MULTILINE)
            with suppress(NameError):  # needs something of its own notebook
                cell(code)
            part = set(written) & qk.mine.PARTS.keys()
            if part:
                cell(notebook.cells[checks[number]].source)
                cell(f"qk.mine.keep({', '.join(part)})")
                kept += part
    return kept


def test_the_solutions_of_the_course_are_a_whole_model(solved):
    assert set(solved) == qk.mine.PARTS.keys()
    theirs, tokenizer = qk.load_pretrained(dtype="float32", device="cpu")
    mine = qk.mine.model(theirs)
    assert str(qk.mine.parts()).endswith("9 of 9 parts are yours")
    ids = tokenizer("def area(width, height):\n    return")
    torch.testing.assert_close(mine(ids), theirs(ids), rtol=1e-4, atol=1e-4)
    assert mine.model.embed_tokens.weight is theirs.model.embed_tokens.weight
    written = [
        qk.complete(m, tokenizer, "def is_even(n):", max_new_tokens=12) for m in (mine, theirs)
    ]
    assert written[0] == written[1]  # with a cache
    padded = torch.ones_like(ids)
    padded[0, :3] = 0
    torch.testing.assert_close(
        mine(ids, attention_mask=padded), theirs(ids, attention_mask=padded), rtol=1e-4, atol=1e-4
    )
    points = [f"layers.2.{name}" for name in ("attn.pattern", "attn.z", "mlp.out", "resid_mid")]
    traces = [qk.Trace(keep=points) for _ in range(2)]
    mine(ids, trace=traces[0])
    theirs(ids, trace=traces[1])
    for point in points:
        torch.testing.assert_close(traces[0][point], traces[1][point], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", qk.mine.PARTS)
def test_each_part_is_really_the_reader_s(part):
    """A part that does something else changes the logits: it is not the package's that runs."""
    qk.mine.file().parent.mkdir()
    bodies = {
        "my_norm": "(x, weight, eps): return 2 * x",
        "frequencies": "(head_dim, theta): return torch.ones(head_dim // 2)",
        "tables": "(p, f, dtype): return (torch.ones(len(p), 2 * len(f)),) * 2",
        "rotate": "(x, cos, sin): return x",
        "attend": "(q, k, v): return v[:, :, -q.shape[2]:]",
        "join": "(z, weight): return z.transpose(1, 2).flatten(2) @ weight.T * 3",
        "repeat": "(x, groups): return x.repeat(1, groups, 1, 1)",
        "my_mlp": "(x, gate, up, down): return x",
        "decoder_layer": "(x, norm1, attention, norm2, mlp): return x + attention(x) + mlp(x)",
    }
    qk.mine.file().write_text(f"import torch\n\n\ndef {part}{bodies[part]}\n")
    theirs, tokenizer = qk.load_pretrained(dtype="float32", device="cpu")
    ids = tokenizer("def area(width, height):\n    return")
    mine = qk.mine.model(theirs)
    assert not torch.allclose(mine(ids), theirs(ids), atol=1e-2)
