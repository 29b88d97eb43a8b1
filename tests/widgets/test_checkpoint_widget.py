"""CheckpointBrowser: the tree, the facts and the histograms are those of the file."""

import math

import pytest
import torch
from fixtures_toy import entry, pack, small_config
from safetensors.torch import save_file

import qwenkit as qk
from qwenkit.errors import CheckpointError, InputError
from qwenkit.files import write_json
from qwenkit.pretrained import EMBEDDED
from qwenkit.widgets import _tensors
from qwenkit.widgets._base import page
from qwenkit.widgets._tensors import BINS, Tree, histogram
from qwenkit.widgets.checkpoint import CheckpointBrowser, CheckpointView


@pytest.fixture(scope="module")
def checkpoint():
    return qk.Checkpoint(EMBEDDED)


def tree_of(folder, tensors, tied="true"):
    """Return the tree of a checkpoint with these tensors."""
    config = (EMBEDDED / "config.json").read_text()
    config = config.replace('"tie_word_embeddings": true', f'"tie_word_embeddings": {tied}')
    (folder / "config.json").write_text(config)
    save_file(tensors, folder / "model.safetensors")
    return Tree(qk.Checkpoint(folder))


def test_a_group_shows_all_its_bytes_and_once_opened_its_members(checkpoint):
    (row,) = Tree(checkpoint).rows(frozenset(), "")
    assert (row.name, row.depth) == ("model", 0)
    assert (row.count, row.nbytes) == (len(checkpoint.tensors), checkpoint.nbytes)
    rows = list(Tree(checkpoint).rows(frozenset({"model", "model.norm"}), ""))
    assert {row.name for row in rows} == {
        "model", "model.embed_tokens", "model.layers", "model.norm", "model.norm.weight",
    }  # fmt: skip
    depths = {row.name: row.depth for row in rows}
    assert (depths["model.layers"], depths["model.norm.weight"]) == (1, 2)
    layers = next(row for row in rows if row.name == "model.layers")
    inside = [info for name, info in checkpoint.tensors.items() if ".layers." in name]
    assert (layers.count, layers.nbytes) == (len(inside), sum(info.nbytes for info in inside))


def test_a_filter_opens_the_groups_of_what_it_finds(checkpoint):
    rows = list(Tree(checkpoint).rows(frozenset(), "k_proj.bias"))
    found = [row.name for row in rows if row.name in checkpoint.tensors]
    assert found == sorted(name for name in checkpoint.tensors if name.endswith("k_proj.bias"))
    assert list(Tree(checkpoint).rows(frozenset(), "K_Proj.bias")) == rows
    assert rows[0].name == "model"
    assert rows[0].count == len(found) == checkpoint.config.num_hidden_layers
    assert list(Tree(checkpoint).rows(frozenset(), "no such name")) == []


def test_parts_add_up_to_the_whole_and_a_head_of_its_own_is_one(checkpoint, tmp_path):
    parts = Tree(checkpoint).parts()
    assert sum(parts.values()) == checkpoint.nbytes
    assert set(parts) == {"embed_tokens", "self_attn", "mlp", "norms"}  # tied: no lm_head
    assert parts["embed_tokens"] == checkpoint.tensors["model.embed_tokens.weight"].nbytes
    tensors = {"model.embed_tokens.weight": torch.ones(2, 3), "lm_head.weight": torch.ones(2, 3)}
    assert tree_of(tmp_path, tensors, tied="false").parts() == {"embed_tokens": 24, "lm_head": 24}


def test_facts_are_the_headers(checkpoint):
    info = checkpoint.tensors["model.layers.1.mlp.up_proj.weight"]
    expected = {
        "shape": "704 × 256", "dtype": "BF16", "bytes": f"{info.nbytes:,}",
        "first byte": f"{info.start:,}", "file": "model.safetensors",
    }  # fmt: skip
    assert dict(Tree(checkpoint).facts(info.name)).items() >= expected.items()


def test_values_are_read_when_they_are_wanted(checkpoint):
    view, name = CheckpointView(checkpoint), "model.layers.0.self_attn.q_proj.bias"
    assert view.histograms == {}
    view.choose(selected=name, asked=[name])
    found, values = view.histograms[name], checkpoint.load()[name].float()
    assert sum(found.counts) == values.numel()
    assert found.edge == float(values.abs().max())
    assert found.mean == pytest.approx(float(values.mean()), abs=1e-6)
    assert found.std == pytest.approx(float(values.std(correction=0)), rel=1e-4)
    beyond = (values - values.mean()).abs() > 6 * values.std(correction=0)
    assert found.outliers == int(beyond.sum())
    assert "standard deviation" in view.alt()


def test_a_histogram_counted_in_chunks_is_that_of_the_whole(monkeypatch):
    values = torch.cat([torch.randn(1000), torch.tensor([50.0])])
    whole = histogram(values)
    monkeypatch.setattr(_tensors, "CHUNK", 64)
    assert histogram(values).counts == whole.counts
    assert whole.counts[BINS - 1] == 1  # 50 is the edge
    assert whole.outliers == 1
    for odd in (torch.zeros(5), torch.zeros(0), torch.tensor(3.0)):
        assert sum(histogram(odd).counts) == odd.numel()
        assert math.isfinite(histogram(odd).std)


def test_nan_and_infinity_are_counted_apart(tmp_path):
    values = torch.tensor([1.0, float("nan"), -2.0, float("inf")])
    found = histogram(values)
    assert (found.not_finite, found.edge, sum(found.counts)) == (2, 2.0, 2)
    assert histogram(torch.full((3,), float("nan"))).not_finite == 3
    view = CheckpointView(tree_of(tmp_path, {"model.norm.weight": values}).checkpoint)
    view.choose(selected="model.norm.weight", asked=["model.norm.weight"])
    assert view.alt().endswith(" 2 are NaN or infinite.")


def test_layers_are_in_the_order_of_their_numbers(tmp_path):
    tensors = {f"model.layers.{n}.mlp.up_proj.weight": torch.ones(1) for n in (0, 10, 2, 1)}
    rows = tree_of(tmp_path, tensors).rows(frozenset({"model", "model.layers"}), "")
    assert [row.name.rpartition(".")[2] for row in rows][2:] == ["0", "1", "2", "10"]


def test_the_widget_answers_what_the_page_asks(monkeypatch, tmp_path):
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    widget, name = CheckpointBrowser(), "model.norm.weight"
    assert widget.histograms == {}
    widget.state = widget.state | {"selected": name, "asked": [name]}
    assert sum(widget.histograms[name]["counts"]) == 256
    assert widget.snapshot().axes[1].get_ylabel() == "count"
    widget.choose(selected="model.layers.0")
    assert widget.state["selected"] == "model.layers.0"
    assert "model.layers.0" in repr(widget)
    assert name in widget.to_html(tmp_path / "page.html").read_text()


def test_what_cannot_be_read_is_listed_and_the_rest_has_histograms(tmp_path):
    """A file with one tensor of an unknown dtype, which the safetensors library refuses whole."""
    dtypes = {"a": ("F31", 3), "b": ("F4", 6), "c": ("C64", 16), "d": ("F32", 8)}
    header, at = {}, 0
    for name, (dtype, size) in dtypes.items():
        header[name] = entry(dtype, (12,) if dtype == "F4" else (2,), (at, at + size))
        at += size
    (tmp_path / "config.json").write_text((EMBEDDED / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(pack(header, bytes(at)))
    browser = CheckpointBrowser(tmp_path)
    assert [row.name for row in browser.view.rows()] == ["a", "b", "c", "d"]
    assert dict(browser.view.tree.facts("b"))["dtype"] == "F4"
    browser.choose(asked=["d"])
    assert sum(browser.view.histograms["d"].counts) == 2
    for name in "abc":
        with pytest.raises(CheckpointError, match=f"{name} is stored as {dtypes[name][0]}, which"):
            browser.choose(asked=[name])


@pytest.mark.parametrize("tensors", [{"a": torch.zeros(0)}, {}])
def test_a_checkpoint_of_no_bytes(tmp_path, tensors):
    tree = tree_of(tmp_path, tensors)
    if not tensors:
        with pytest.raises(CheckpointError, match="holds no tensors"):
            CheckpointView(tree.checkpoint)
        return
    browser = CheckpointBrowser(tmp_path)
    browser.choose(asked=["a"])
    assert "0 bytes" in browser.view.alt()
    assert browser.snapshot()


def test_a_file_that_shrank_since_it_was_opened_is_told(tmp_path):
    tree = tree_of(tmp_path, {"a": torch.zeros(9)})
    file = tmp_path / "model.safetensors"
    for change in (lambda: file.write_bytes(file.read_bytes()[:-4]), file.unlink):
        change()
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
            tree.histogram("a")


ODD_NAMES = ["__proto__", "9" * 5000, "", "..", "x.y", "x", "\x00"]


@pytest.mark.parametrize("names", [ODD_NAMES, ["only"], [], ["half \ud83d"]])
def test_odd_headers_are_shown_or_refused(tmp_path, names):
    write_json(tmp_path / "config.json", small_config().to_dict())
    header = {name: entry("F32", (0, 2), (0, 0)) for name in names}  # not a byte in all of them
    (tmp_path / "model.safetensors").write_bytes(pack(header))
    if not names or names[0][:4] == "half":  # safetensors itself takes no unpaired surrogate
        with pytest.raises(CheckpointError, match="not valid Unicode" if names else "no tensor"):
            CheckpointBrowser(tmp_path)
        return
    widget = CheckpointBrowser(tmp_path)
    for name in [*widget.view.tree.tensors, *widget.view.tree.groups]:
        widget.choose(selected=name)
        page(widget, b"").encode()
    widget.snapshot().canvas.draw()
    widget.choose(asked=names[:1])


@pytest.mark.parametrize("state", [
    {"asked": None}, {"asked": "a"}, {"opened": 3}, {"opened": [["model"]]}, {"selected": []},
])  # fmt: skip
def test_a_state_of_wrong_types_is_refused(state):
    widget = CheckpointBrowser(EMBEDDED)
    with pytest.raises(InputError):
        widget.choose(**state)
