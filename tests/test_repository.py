"""The repository as a whole: versions that agree, files that belong here, a README that runs.

Which package may import which is held by import-linter (`make lint`; the layers are in
pyproject.toml and drawn in CONTRIBUTING.md).
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LARGEST_FILE = 16 * 2**20
MODULES_AT_THE_ROOT = 8


def test_the_root_of_the_package_stays_small():
    assert len(list((ROOT / "qwenkit").glob("*.py"))) <= MODULES_AT_THE_ROOT


def test_the_taught_model_is_short_and_knows_nothing_of_the_fast_path():
    files = sorted((ROOT / "qwenkit" / "model").glob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    taught = [text for file, text in zip(files, texts, strict=True) if file.name != "pages.py"]
    assert sum(text.count("\n") for text in taught) <= 860  # a server's cache is no part of it
    assert not any(re.search(r"import.*\bfast\b|numba|FastLinear", text) for text in texts)


def test_importing_qwenkit_loads_torch_and_no_plots_widgets_or_transformers():
    code = "import qwenkit, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "torch" in loaded
    assert {"matplotlib", "ipywidgets", "anywidget", "transformers"} & set(loaded) == set()


def pins():
    """Return name -> version of constraints.txt; each line must be an exact pin."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        assert "*" not in pin.version, line
        found[_plain(requirement.name)] = pin.version
    return found


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_within_its_range():
    project = PYPROJECT["project"]
    exact = pins()
    for line in [*project["dependencies"], *chain(*project["optional-dependencies"].values())]:
        requirement = Requirement(line)
        name = _plain(requirement.name)
        if name == project["name"]:  # one group that takes another
            continue
        assert name in exact, f"{line}: no pin in constraints.txt"
        assert requirement.specifier.contains(exact[name]), f"{line}: pinned to {exact[name]}"
    assert exact["torch"] == "2.13.0"
    assert "qwenkit" not in exact


def test_environment_yml_takes_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    packages = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e ."]
    (python,) = (entry for entry in packages if entry.startswith("python="))
    wanted = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert wanted.contains(Version(python.partition("=")[2]))
    assert sorted(packages) == ["pip", python]  # anything else would not be held by the pins


def test_makefile_asks_for_the_python_that_pyproject_requires():
    least = PYPROJECT["project"]["requires-python"].removeprefix(">=")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f">= ({least.replace('.', ', ')})" in makefile


@pytest.mark.parametrize(("target", "installed"), [
    ("lab", ["."]), ("tiny-coder", ["."]), ("site", [".", "'.[site]'"]),
    *((name, [".", "'.[test]'"]) for name in (
        "lint", "unit", "notebooks", "bench", "wheel")),
])  # fmt: skip
def test_make_installs_by_the_pins_what_a_target_needs(target, installed, tmp_path):
    """A reader's part first, for which no tool of tests is needed; then these."""
    command = ["make", "-n", target, f"VENV={tmp_path}/venv", "QWENKIT_MODEL="]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    asked = re.findall(r"-m pip install .*-c constraints\.txt -e (.+)$", printed, re.MULTILINE)
    assert asked == installed
    assert printed.count("pip install") == len(installed)


def tracked():
    """Return the files that git keeps; skip where there is no git or no repository."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]  # not those deleted but not yet committed


def home_paths(text):
    """Return the folders of some person's machine that a text names."""
    homes = "|".join(("root", "home", "Users"))
    return re.findall(rf"(?<![\w.~-])/(?:{homes})/[\w.-]*", text)


def test_no_tracked_file_names_a_folder_of_one_machine():
    slash = "/"
    assert home_paths(f"see {slash}home/ann/x and '{slash}Users/ann'; not a/home/b") != []
    assert home_paths("data/home/x and the root/ of all") == []
    found = {}
    for path in tracked():
        try:
            found[path.relative_to(ROOT)] = home_paths(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # not a text
    assert {name: paths for name, paths in found.items() if paths} == {}


def test_no_tracked_file_is_as_large_as_a_real_models_weights():
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked()}
    assert {path: size for path, size in sizes.items() if size > LARGEST_FILE} == {}


def test_license_and_citation_say_the_same_as_pyproject():
    project = PYPROJECT["project"]
    license = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", license)
    assert "END OF TERMS AND CONDITIONS" in license
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert citation["version"] == project["version"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{project['version']}]" in changelog


def test_readme_names_both_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make lab" in readme
    assert "make test" in readme


def test_contributing_draws_every_module_and_layer():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "qwenkit").iterdir() if path.suffix in ("", ".py")}
    modules -= {"__pycache__"}
    assert {name for name in modules if not re.search(rf"\b{re.escape(name)}\b", text)} == set()
    lines = [set(re.findall(r"\w+", line)) for line in text.splitlines()]
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = [any(set(re.findall(r"\w+", layer)) <= line for line in lines) for layer in layers]
    assert drawn == [True] * len(layers)


def test_readmes_snippets_run_in_order(tmp_path):
    """On the embedded model, as a fresh reader does, and from any folder."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert len(snippets) == 5
    environment = {name: value for name, value in os.environ.items() if name != "QWENKIT_MODEL"}
    command = [sys.executable, "-W", "error", "-c", "\n".join(snippets)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "parameters in 6 layers" in done.stdout
    assert done.stdout.endswith("no problems\n")
    stated = re.findall(r"^```\n\n```\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert len(stated) == 5
    assert done.stdout == "".join(stated)


def test_the_readme_links_to_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert "notebooks/pictures/architecture.png" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []
