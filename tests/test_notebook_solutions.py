"""Each notebook with its folded solutions in place of the stubs: every check says that it is right.

A stub is tagged `exercise-N`, the markdown cell with its solution `solution-N` (its last Python
block counts), the check `check-N`. A check answers "Right", "Not yet" or "Still empty", and why.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True)
def _as_a_fresh_reader(monkeypatch):
    """The kernel inherits this process's environment."""
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def tagged(notebook, part):
    """Return number -> cell for the cells of one part: exercise, solution or check."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            kind, _, number = tag.rpartition("-")
            if kind == part:
                found[int(number)] = cell
    return found


def run(notebook):
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()


def said(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_with_the_solutions_in_place_every_check_is_content(path):
    notebook = read(path.name)
    stubs, solutions = tagged(notebook, "exercise"), tagged(notebook, "solution")
    checks = tagged(notebook, "check")
    assert stubs
    assert set(stubs) == set(solutions) == set(checks)
    for number, cell in stubs.items():
        cell.source = BLOCK.findall(solutions[number].source)[-1]
    run(notebook)
    answers = {number: said(cell) for number, cell in checks.items()}
    assert {n: text for n, text in answers.items() if not text.startswith("Right")} == {}


# Wrong answers that readers give, and the words by which the check names the mistake.
WRONG = {
    "00_start_here.ipynb": [
        (1, "def logits_shape(b, t, c): return (b, c.vocab_size)", "Each place in each text"),
        (1, "def logits_shape(b, t, c): return (t, b, c.vocab_size)", "texts come first"),
        (1, "def logits_shape(b, t, c): return (b, t, c.hidden_size)", "residual stream's width"),
        (1, "def logits_shape(b, t, c): return (b, t, tokenizer.num_tokens)", "loaded model's"),
        (1, "def logits_shape(b, t, c): return (b, t, model.config.vocab_size)", "loaded model's"),
        (1, "def logits_shape(b, t, c): return b", "three numbers in a tuple"),
        (2, "def likeliest_next(t): return model(tokenizer(t))[0, -1].argmax().item()", "decode"),
        (2, "def likeliest_next(t): return tokenizer.decode(places[:1])", "Read the last one"),
        (2, "def likeliest_next(t): return tokenizer.decode(places)", "guesses of all places"),
        (2, "def likeliest_next(t): return 'no token at all'", "another token"),
    ],
    "01_checkpoint.ipynb": [
        (1, "def read_header(p): return json.loads(p.read_bytes()[:2000])", "after eight bytes"),
        (
            1,
            "def read_header(p):\n"
            "    with open(p, 'rb') as f: return f.read(int.from_bytes(f.read(8), 'big'))",
            "little-endian",
        ),
        (
            1,
            "def read_header(p):\n"
            "    with open(p, 'rb') as f: return f.read(int.from_bytes(f.read(8), 'little'))",
            "json.loads",
        ),
        (1, "def read_header(p): return {n: 0 for n in header}", "leave __metadata__ in"),
        (1, "def read_header(p): return {'__metadata__': {}}", "not the file's tensors"),
        (2, "def decode(d): return np.frombuffer(d, '<f2').astype('f4')", "that is float16"),
        (
            2,
            "def decode(d): return (np.frombuffer(d, '>u2').astype('u4') << 16).view('f4')",
            "wrong order",
        ),
        (
            2,
            "def decode(d): return (np.frombuffer(d, '<u2').astype('u4') << 16).astype('f4')",
            "view, not astype",
        ),
        (
            2,
            "def decode(d): return np.frombuffer(d, '<u2').astype('u4').view('f4')",
            "shift to the upper half",
        ),
        (2, "def decode(d): return right.astype('f8')", "dtype is not float32"),
        (2, "def decode(d): return right[:1]", "four numbers"),
        (2, "def decode(d): return right + 1", "other values"),
        (3, "def count(c): return c.num_parameters - c.hidden_size", "after the last layer"),
        (3, "def count(c): return c.num_parameters - 3 * 48", "two norms of each layer"),
        (3, "def count(c): return c.num_parameters - 3 * 64", "biases of q, k and v"),
        (3, "def count(c): return c.num_parameters + 2400 * c.tie_word_embeddings", "twice"),
        (3, "def count(c): return c.num_parameters - 2400 * (not c.tie_word_embeddings)", "own"),
        (
            3,
            "from dataclasses import replace\n"
            "def count(c): return replace(c, num_key_value_heads=4).num_parameters",
            "KV heads, not H",
        ),
        (
            3,
            "from dataclasses import replace\n"
            "def count(c): return replace(c, head_dim=None).num_parameters",
            "c.head_dim",
        ),
        (3, "def count(c): return c.num_parameters - 3 * 960", "three matrices"),
        (3, "def count(c): return 7", "once a layer"),
    ],
    "12_training.ipynb": [
        (1, "def make_batch(w): return w[:, :-1], w[:, :-1]", "learn to repeat"),
        (1, "def make_batch(w): return w[:, 1:], w[:, :-1]", "wrong way round"),
        (1, "def make_batch(w): return w, w.roll(-1, dims=1)", "drop the last column"),
        (1, "def make_batch(w): return w[:-1], w[1:]", "The colon comes first"),
        (1, "def make_batch(w): return w, w[:, 1:]", "one token too many"),
        (1, "def make_batch(w): return w[:, 1:]", "two tensors"),
        (1, "def make_batch(w): return w[:, :-2], w[:, 2:]", "token that follows it"),
        (
            2,
            "def answer_labels(ids, n):\n"
            "    labels = ids[1:].clone()\n"
            "    labels[:n] = -100\n"
            "    return labels",
            "first token, 1",
        ),
        (
            2,
            "def answer_labels(ids, n):\n"
            "    labels = ids[1:].clone()\n"
            "    labels[:n - 2] = -100\n"
            "    return labels",
            "last token of the prompt",
        ),
        (
            2,
            "def answer_labels(ids, n):\n"
            "    labels = ids.clone()\n"
            "    labels[:n] = -100\n"
            "    return labels",
            "move the labels",
        ),
        (
            2,
            "def answer_labels(ids, n):\n"
            "    labels = ids[1:].clone()\n"
            "    labels[n - 1:] = -100\n"
            "    return labels",
            "ignores the answer",
        ),
        (2, "def answer_labels(ids, n): return ids[1:]", "nothing is masked"),
        (
            2,
            "def answer_labels(ids, n):\n"
            "    labels = ids[1:].clone()\n"
            "    labels[:n - 1] = 0\n"
            "    return labels",
            "0 is a token",
        ),
        (2, "def answer_labels(ids, n): return ids[n:]", "all five places stay"),
        (
            2,
            "def answer_labels(ids, n):\n"
            "    labels = ids[1:]\n"
            "    labels[:n - 1] = -100\n"
            "    return labels",
            "clone it first",
        ),
        (2, "def answer_labels(ids, n): return ids[2:]", "tokens of the answer?"),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        loss = qk.train.next_token_loss(model(part.input_ids), part.labels) / 2\n"
            "        loss.backward()\n"
            "    return loss.item()",
            "mean of the means",
        ),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        loss = qk.train.next_token_loss(model(part.input_ids), part.labels)\n"
            "        loss.backward()\n"
            "    return loss.item()",
            "added the two means",
        ),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        loss = qk.train.next_token_loss(\n"
            "            model(part.input_ids), part.labels, reduction='sum')\n"
            "        loss.backward()\n"
            "    return loss.item()",
            "divide by how many labels count",
        ),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        loss = qk.train.next_token_loss(\n"
            "            model(part.input_ids), part.labels, reduction='sum')\n"
            "        (loss / 64).backward()\n"
            "    return loss.item()",
            "IGNORE labels do not count",
        ),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        model.zero_grad()\n"
            "        loss = qk.train.next_token_loss(\n"
            "            model(part.input_ids), part.labels, reduction='sum')\n"
            "        (loss / 40).backward()\n"
            "    return loss.item()",
            "zero_grad belongs before",
        ),
        (3, "def accumulate(model, parts): return 1.0", "no gradient"),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        loss = qk.train.next_token_loss(\n"
            "            model(part.input_ids), part.labels, reduction='sum')\n"
            "        (loss / 7).backward()\n"
            "    return loss.item()",
            "another gradient",
        ),
        (
            3,
            "def accumulate(model, parts):\n"
            "    for part in parts:\n"
            "        loss = qk.train.next_token_loss(\n"
            "            model(part.input_ids), part.labels, reduction='sum')\n"
            "        (loss / 40).backward()\n"
            "    return loss.item()",
            "the returned loss is not",
        ),
    ],
}  # fmt: skip


# Notebooks whose checks use nothing but the imports: their training need not run once more.
ONLY_IMPORTS = {"12_training.ipynb"}


@pytest.mark.parametrize("name", WRONG)
def test_checks_name_the_mistake(name):
    notebook = read(name)
    checks = tagged(notebook, "check")
    if name in ONLY_IMPORTS:
        notebook.cells = [next(cell for cell in notebook.cells if cell.cell_type == "code")]
    tried = []
    for number, answer, _ in WRONG[name]:
        cells = nbformat.v4.new_code_cell(answer), nbformat.v4.new_code_cell(checks[number].source)
        notebook.cells += cells
        tried.append(cells[1])
    run(notebook)
    for cell, (number, answer, expected) in zip(tried, WRONG[name], strict=True):
        assert said(cell).startswith("Not yet"), (number, answer, said(cell))
        assert expected in said(cell), (number, answer)
