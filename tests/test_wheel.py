"""The wheel: what it carries, and that it works where there is no repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import qwenkit as qk

ROOT = Path(__file__).parents[1]
TRY = """
import qwenkit as qk
from qwenkit.cli import _lab
print(qk.__file__)
model, tokenizer = qk.load_pretrained()
print(qk.complete(model, tokenizer, "class A", max_new_tokens=3))
print(_lab._copied_to(_lab.Path("mine")))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build it without network, by the backend that pip would fetch; return its path."""
    folder = tmp_path_factory.mktemp("dist")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def files(folder, pattern="*"):
    """Return name -> bytes of the files below a folder that belong in a wheel."""
    found = (path for path in (ROOT / folder).rglob(pattern) if path.is_file())
    kept = (p for p in found if not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts))
    return {path.relative_to(ROOT / folder).as_posix(): path.read_bytes() for path in kept}


def test_it_carries_the_package_the_model_and_the_notebooks_and_nothing_else(wheel):
    expected = {f"qwenkit/{name}": text for name, text in files("qwenkit").items()}
    for folder, inside in (("data/tiny-coder", "tiny-coder"), ("notebooks", "notebooks")):
        carried = files(folder)
        expected |= {f"qwenkit/{inside}/{name}": text for name, text in carried.items()}
    with zipfile.ZipFile(wheel) as packed:
        found = {name: packed.read(name) for name in packed.namelist() if "dist-info" not in name}
    assert found.keys() == expected.keys()
    assert {name for name, text in found.items() if text != expected[name]} == set()
    assert {"qwenkit/py.typed", "qwenkit/tiny-coder/model.safetensors",
            "qwenkit/notebooks/00_start_here.ipynb"} <= found.keys()  # fmt: skip


def test_it_works_from_an_empty_folder(wheel, tmp_path):
    packed, empty = tmp_path / "unpacked", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packed)
    environment = {name: value for name, value in os.environ.items() if name != "QWENKIT_MODEL"}
    environment["PYTHONPATH"] = str(packed)  # before the editable install
    environment["QWENKIT_PLAIN"] = "1"  # kernels would be compiled for the new place
    command = [sys.executable, "-c", TRY]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    where, text, *_, folder = done.stdout.splitlines()
    assert Path(where).is_relative_to(packed)
    model, tokenizer = qk.load_pretrained(ROOT / "data" / "tiny-coder")
    with qk.plain(model):
        assert text == qk.complete(model, tokenizer, "class A", max_new_tokens=3).strip()
    assert files(empty / folder, "*.ipynb") == files("notebooks", "*.ipynb")
