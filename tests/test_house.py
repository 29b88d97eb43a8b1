"""The house itself: floors that imports respect, versions that agree, files that belong here.

The picture of the floors is in CONTRIBUTING.md. A room (a module of qwenkit) imports only from the
floors below it; modules of one folder may import one another, but not in a circle.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

FACE = "__init__"  # qwenkit/__init__.py, what `import qwenkit` runs
# Lowest first. A room is a file or a folder; rooms of one floor do not import one another.
FLOORS = (
    ("errors", "files"),
    ("config_json",),
    ("config",),
    ("device", "safetensors_file"),
    ("checkpoint", "trace", "hub", "tokenizer", "memory", "sampling"),
    ("saving", "bpe"),
    ("model",),
    ("quantize",),
    ("compare",),
    ("pretrained",),
    ("lora",),
    ("toy", "generate", "report", "train", "interpret", "mps"),
    ("plot",),
    ("widgets", "checks"),
    (FACE,),
    ("cli",),
)
# The same within a folder; here files of one floor may import one another.
FLOORS_INSIDE = {
    "model": (
        ("norm", "rope", "mask", "cache", "few_rows", "inputs"),
        ("layer_loops", "reading"),
        ("linear",),
        ("attention", "mlp", "embedding"),
        ("decoder",),
        ("one_token",),
        ("qwen",),
        (FACE,),
    ),
    "generate": (
        ("settings",),
        ("steps", "score"),
        ("text", "beam"),
        ("batch", "conversation"),
        (FACE,),
    ),
    "lora": (("layers",), ("adapter",), (FACE,)),
    "train": (
        ("losses", "schedules", "optimizer", "documents", "initial", "metrics"),
        ("mix", "evaluation"),
        ("batches", "settings"),
        ("loop", "weights"),
        ("checkpoints",),
        ("callbacks",),
        ("run",),
        (FACE,),
    ),
}
# A stricter rule than the floors: a plot takes arrays and strings, never a model.
ONLY = {"plot": {"errors", "config"}}
LARGEST_FILE = 16 * 2**20


def floor(name, floors=FLOORS):
    """Return the number of the floor that a room stands on, or None."""
    return next((number for number, rooms in enumerate(floors) if name in rooms), None)


def modules(package):
    """Return dotted name -> file of every module: "config", "model.rope", "model.__init__"."""
    files = sorted(package.rglob("*.py"))
    return {".".join(file.relative_to(package).with_suffix("").parts): file for file in files}


def imports(file, module, known, package="qwenkit"):
    """Yield (line, module) for each module of the package that a file imports, at any depth."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: one dot is the file's own folder
                parents = [package, *module.split(".")][: -node.level]
                base = ".".join([*parents, *filter(None, [base])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, _, inner = name.partition(".")
            if root == package:
                yield node.lineno, _existing(inner, known)


def _existing(name, known):
    """Cut a name down to the module loaded for it: "config.QwenConfig" to "config"."""
    parts = name.split(".") if name else []
    for length in range(len(parts), 0, -1):
        inner = ".".join(parts[:length])
        for candidate in (inner, f"{inner}.{FACE}"):
            if candidate in known:
                return candidate
    return FACE


def problems(package):
    """Return every import of a package folder that breaks the rules, as sentences."""
    known = modules(package)
    found = []
    links = {}
    for module, file in known.items():
        room, _, inside = module.partition(".")
        if floor(room) is None:
            found.append(
                f"{module}: the room {room!r} stands on no floor; add it to FLOORS in "
                "tests/test_house.py and to the picture in CONTRIBUTING.md"
            )
            continue
        if inside and room in FLOORS_INSIDE and floor(inside, FLOORS_INSIDE[room]) is None:
            found.append(
                f"{module}: stands on no floor inside {room!r}; add it to FLOORS_INSIDE in "
                "tests/test_house.py and to the picture in CONTRIBUTING.md"
            )
            continue
        for line, target in imports(file, module, known):
            wrong = _wrong(module, target)
            if wrong:
                found.append(f"{module}, line {line}, imports {target}: {wrong}")
            if target.partition(".")[0] == room and inside:
                links.setdefault(module, set()).add(target)
    return found + [f"imports in a circle: {' > '.join(circle)}" for circle in circles(links)]


def _wrong(module, target):
    """Say what is wrong with an import, or return None."""
    (room, _, inside), (other, _, deep) = module.partition("."), target.partition(".")
    if room == other and inside:
        floors = FLOORS_INSIDE.get(room)
        if floors and (floor(deep, floors) or 0) > floor(inside, floors):
            return "it stands on a higher floor of the same folder"
        return None
    if room in ONLY and other not in ONLY[room]:
        return f"{room} may import only {', '.join(sorted(ONLY[room]))} and its own files"
    if floor(other) is None:  # reported at the unknown room itself
        return None
    if floor(other) > floor(room):
        return "it stands on a higher floor"
    if floor(other) == floor(room):
        return "it stands on the same floor"
    return None


def circles(links):
    """Return the first circle met from each module, each circle once."""
    found = {}

    def walk(module, path):
        if module in path:
            circle = path[path.index(module) :]
            found.setdefault(frozenset(circle), [*circle, module])
            return
        for target in sorted(links.get(module, ())):
            walk(target, [*path, module])

    for module in sorted(links):
        walk(module, [])
    return list(found.values())


def test_every_room_imports_only_from_floors_below():
    assert problems(ROOT / "qwenkit") == []


def fake(folder, files):
    """Write a small package, each module a line or two of imports."""
    for name, text in files.items():
        path = folder / "qwenkit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "qwenkit"


SOUND = {
    "__init__.py": "from qwenkit.model import QwenModel\nfrom qwenkit import plot\n",
    "errors.py": "import math\n",
    "config_json.py": "from qwenkit.errors import ConfigError\n",
    "config.py": "from .config_json import read\nimport qwenkit.errors\n",
    "checkpoint.py": "from qwenkit import config, errors\n",
    "tokenizer.py": "import tokenizers\n",
    "model/__init__.py": "from qwenkit.model.qwen import QwenModel\n",
    "model/mask.py": "",
    "model/rope.py": "from ..config import QwenConfig\n",
    "model/attention.py": "from .rope import apply_rope\nfrom qwenkit.model import mask\n",
    "model/qwen.py": "from qwenkit.model.attention import Attention\n",
    "generate.py": "from qwenkit.model import KVCache\n",
    "toy.py": "from qwenkit.model.qwen import QwenModel\n",
    "plot/__init__.py": "from qwenkit.plot.attention import attention\n",
    "plot/attention.py": "from qwenkit.config import Q\nfrom qwenkit.plot.axes import axes\n",
    "plot/axes.py": "from qwenkit import errors\n",
    "cli.py": "from qwenkit import __version__\nfrom qwenkit.generate import generate\n",
}


def test_a_sound_house_has_no_problems(tmp_path):
    assert problems(fake(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "config.py",
            "from qwenkit.model import KVCache",
            "line 1, imports model.__init__: it stands on a",
        ),
        ("config.py", "\nfrom .model.rope import x", "config, line 2, imports model.rope: it st"),
        ("errors.py", "def f():\n    import qwenkit.cli", "imports cli: it stands on a higher"),
        ("toy.py", "from qwenkit import generate", "imports generate: it stands on the same floor"),
        ("checkpoint.py", "from .tokenizer import T", "tokenizer: it stands on the same floor"),
        ("toy.py", "import qwenkit as qk", "toy, line 1, imports __init__: it stands on a higher"),
        ("__init__.py", "from qwenkit.cli import main", "imports cli: it stands on a higher"),
        ("plot/axes.py", "from qwenkit.model import x", "plot may import only config, errors"),
        ("plot/axes.py", "from ..model import rope", "plot.axes, line 1, imports model.rope: plot"),
        ("plot/axes.py", "from qwenkit.tokenizer import x", "imports tokenizer: plot may import"),
        ("plot/axes.py", "from .attention import x", "circle: plot.attention > plot.axes"),
        ("model/mask.py", "from .attention import x", "a higher floor of the same folder"),
        ("model/qwen.py", "from qwenkit.model import x", "a higher floor of the same folder"),
        ("attic.py", "", "'attic' stands on no floor; add it to FLOORS"),
        ("loft/box.py", "", "'loft' stands on no floor; add it to FLOORS"),
        ("model/moe.py", "", "model.moe: stands on no floor inside 'model'"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, text, words):
    found = problems(fake(tmp_path, {**SOUND, file: text}))
    assert any(words in problem for problem in found), found


def test_two_files_of_one_floor_in_a_folder_must_not_import_in_a_circle(tmp_path):
    circle = {"model/mask.py": "from . import rope", "model/rope.py": "from . import mask"}
    found = problems(fake(tmp_path, {**SOUND, **circle}))
    assert found == ["imports in a circle: model.mask > model.rope > model.mask"]


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
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        requirement = Requirement(line)
        name = _plain(requirement.name)
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
    assert "-c constraints.txt -e '.[test]'" in makefile


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


def test_licence_and_citation_say_the_same_as_pyproject():
    project = PYPROJECT["project"]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", licence)
    assert "END OF TERMS AND CONDITIONS" in licence
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


def test_contributing_draws_every_room():
    picture = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {name.partition(".")[0] for name in modules(ROOT / "qwenkit")}
    missing = {room for room in rooms if not re.search(rf"\b{re.escape(room)}\b", picture)}
    assert missing == set()


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


def test_the_readme_links_to_files_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert "notebooks/pictures/architecture.png" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []
