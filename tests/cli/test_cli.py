"""The commands as a person types them: what they print, where errors go, and exit codes."""

import asyncio
import io
import json
import os
import platform
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from unittest import mock

import pytest
import torch
from fixtures_toy import entry, pack, plain_checkpoint, random_tensors, small_config

import qwenkit as qk
from qwenkit.cli import _lab as lab
from qwenkit.cli import _main as cli
from qwenkit.cli import _reports as reports
from qwenkit.cli import main


@pytest.fixture
def folder(toy):
    return str(toy)


@pytest.fixture(autouse=True)
def _no_chosen_model(monkeypatch):
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main() sets its own


@pytest.fixture
def run(capsys, folder):
    """Return a function that runs a command; TOY in it means the toy checkpoint's folder."""

    def command(line, *more):
        code = main([folder if word == "TOY" else word for word in (*shlex.split(line), *more)])
        return code, *capsys.readouterr()

    return command


def test_doctor_reports_versions_the_chosen_model_and_problems(run, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENKIT_MODEL", folder)
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert torch.__version__ in out
    assert f"{qk.Checkpoint(folder).config.num_parameters:,} parameters, valid" in out
    assert "no problems found" in out
    monkeypatch.setenv("QWENKIT_MODEL", str(tmp_path))  # holds no model
    monkeypatch.setattr(reports, "known_problem", lambda device: "torch 2.8 on MPS: wrong numbers")
    code, out, _ = run("doctor")
    assert code == 1
    for problem in ("PROBLEM  torch 2.8 on MPS", "PROBLEM  QWENKIT_MODEL: "):
        assert problem in out
    assert "config.json does not exist" in out


def test_inspect_counts_and_lists(run, folder):
    code, out, _ = run("inspect TOY")
    config = qk.QwenConfig.from_file(folder)
    assert code == 0
    assert f"{config.num_parameters:,}  (the head is the embedding)" in out
    assert "model.layers.*.self_attn.k_proj.bias           BF16  [32]  × 2" in out
    assert out.endswith("PROBLEMS  none\n")
    _, full, _ = run("inspect TOY --tensors")
    assert all(f"  {name} " in full for name in config.tensor_shapes())


def test_inspect_names_each_problem(run, tmp_path):
    config = small_config()
    tensors = {**random_tensors(config), "extra": torch.zeros(3)}
    del tensors["model.norm.weight"]
    code, out, _ = run("inspect", str(plain_checkpoint(tmp_path, config, tensors)))
    assert code == 1
    for line in ("PROBLEMS  2", "missing model.norm.weight [4]", "unexpected extra [3]"):
        assert line in out


def test_inspect_shows_what_it_cannot_load_and_escapes_what_a_terminal_would_obey(run, tmp_path):
    config = small_config()
    folder = plain_checkpoint(tmp_path, config, {})
    names = {"a\x1b[2J\nb": "F4", "面積": "FUTURE_7", "x" * 9_000: "F8_E8M0"}
    header = {n: entry(t, (2,), (2 * i, 2 * i + 2)) for i, (n, t) in enumerate(names.items())}
    (folder / "model.safetensors").write_bytes(pack(header, bytes(6)))
    code, out, err = run(f"inspect {folder} --tensors")
    assert (code, err) == (1, "")
    assert "\x1b" not in out
    for part in (r"a\x1b[2J\nb", "F4", "面積", "FUTURE_7", "F8_E8M0", "unexpected 面積 [2]"):
        assert part in out
    assert max(map(len, out.splitlines())) < 400


def test_forward_shows_shapes_and_the_most_likely_tokens(run, folder):
    code, out, _ = run("forward 'def f(x):' --model TOY --top 3")
    model, tokenizer = qk.load_pretrained(folder)
    ids = tokenizer("def f(x):")
    count = ids.shape[1]
    assert code == 0
    assert f"TOKENS  {count}" in out
    assert f"layers.0.attn.k        (1, 2, {count}, 16)" in out
    assert f"logits                 (1, {count}, {model.config.vocab_size})" in out
    best = model(ids)[0, -1, : model.num_tokens].softmax(-1).topk(3)
    lines = out.split("NEXT TOKENS\n")[1].splitlines()
    assert [line.split()[1] for line in lines] == tokenizer.token_strings(best.indices)
    assert [line.split()[0] for line in lines] == [f"{p:.1%}" for p in best.values.tolist()]


def test_generate_prints_the_prompt_and_its_continuation(run, folder):
    settings = {"max_new_tokens": 8, "temperature": 0.9, "top_k": 50, "top_p": 0.9, "seed": 3}
    flags = "--max-new-tokens=8 --temperature=0.9 --top-k=50 --top-p=0.9 --seed=3"
    code, out, _ = run(f"generate 'def f(x):' --model TOY {flags}")
    text = qk.complete(*qk.load_pretrained(folder), "def f(x):", **settings)
    assert (code, out) == (0, f"def f(x):{text}\n")


def test_pass_at_k_prints_the_score_and_the_overlap_and_writes_the_programs(run, folder, tmp_path):
    task = {"prompt": "def f():\n", "tests": "assert f() is None", "family": "a"}
    (tmp_path / "tasks").write_text(json.dumps(task))
    (tmp_path / "a.py").write_text("def  f( ):\n    pass\n")
    line = "pass-at-k --model TOY --dtype float32 --samples 3 --k 2 --max-new-tokens 3 --seed 5"
    files = ["--tasks", f"{tmp_path}/tasks", "--text", str(tmp_path), "--out", f"{tmp_path}/out"]
    code, out, _ = run(line, *files)
    pair = qk.load_pretrained(folder, dtype="float32")
    options = {"samples": 3, "ks": [2], "max_new_tokens": 3, "seed": 5}
    score = qk.programs.score(*pair, [qk.programs.Task(**task)], **options)
    assert code == 0
    assert out.splitlines()[0].startswith("of 1 tasks, 1 prompts and 0 solutions occur")
    assert out.splitlines()[1:] == score.table().splitlines()
    rows = [json.loads(row) for row in (tmp_path / "out").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["greedy"] + ["sample"] * 3
    wrote = [score.tasks[0].greedy, *score.tasks[0].samples]
    assert [row["program"] for row in rows] == [task["prompt"] + one.text for one in wrote]
    assert [row["reason"] for row in rows] == [one.outcome.reason for one in wrote]


def test_pass_at_k_generates_tasks(run, folder):
    flags = "--split phrasing --families is_even --count 2 --samples 1 --max-new-tokens 3 --seed 5"
    code, out, _ = run(f"pass-at-k --model TOY --dtype float32 {flags}")
    tasks = qk.programs.generate_tasks(2, "phrasing", 5, ["is_even"])
    pair = qk.load_pretrained(folder, dtype="float32")
    score = qk.programs.score(*pair, tasks, samples=1, ks=[1], max_new_tokens=3, seed=5)
    assert (code, out) == (0, f"{score.table()}\n")


@pytest.mark.parametrize(("flags", "message"), [
    ("--tasks absent", "absent cannot be read: No such file or directory"),
    ("--tasks pyproject.toml", "pyproject.toml, line 1: "),
    ("--tasks absent --split family", "name either --tasks FILE or --split"),
    ("", "name either --tasks FILE or --split"),
    ("--tasks absent --count 3", "--families and --count go with --split"),
    ("--tasks absent --families is_even", "--families and --count go with --split"),
    ("--split family --families is_even", "is_even: no such family in the split 'family'"),
    ("--tasks tests/programs/tasks.jsonl --k 11", "n, c, k is 10, 0, 11; 0 <= c <= n"),
])  # fmt: skip
def test_pass_at_k_refuses(run, flags, message):
    code, out, err = run(f"pass-at-k --model TOY {flags}")
    assert (code, out) == (1, "")
    assert message in err


def test_generate_chat_and_fim_build_the_models_own_prompts(run, folder, monkeypatch):
    asked = []

    def record(model, tokenizer, prompt, **settings):
        asked.append((prompt, settings["stop_ids"]))
        return iter(["NEW"])

    monkeypatch.setattr(cli, "stream", record)
    tokenizer = qk.Tokenizer(folder)
    assert run("generate --chat hello --model TOY")[1] == "NEW\n"
    assert asked[0][0] == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert run("generate --fim --model TOY", "a(<fill>)\n")[1] == "a(NEW)\n\n"
    assert asked[1][0] == "<|fim_prefix|>a(<|fim_suffix|>)\n<|fim_middle|>"
    assert tokenizer.special["<|file_sep|>"] in asked[1][1]


def test_generate_ends_at_a_stop_text_and_takes_min_p(run, folder):
    model, tokenizer = qk.load_pretrained(folder)
    settings = {"max_new_tokens": 20, "temperature": 2.0, "min_p": 0.3, "seed": 1}
    free = qk.complete(model, tokenizer, "def f", **settings)
    stops = [free[9:11], free[6:8]]
    flags = "--max-new-tokens=20 --temperature=2 --min-p=0.3 --seed=1"
    stop = ["--stop", stops[0], "--stop", stops[1]]
    code, out, _ = run(f"generate 'def f' --model TOY {flags}", *stop)
    want = qk.complete(model, tokenizer, "def f", stop_strings=stops, **settings)
    assert (code, out) == (0, f"def f{want}\n")
    assert len(want) <= 6 < len(free)
    assert free != qk.complete(model, tokenizer, "def f", **settings | {"min_p": 0.0})


def test_generate_takes_the_dtype_of_the_cache(run, monkeypatch):
    asked = []

    def answer(*given, cache_dtype, **options):
        asked.append(cache_dtype)
        return [qk.Beam((5,), -1, -1, True)] if "num_beams" in options else []

    monkeypatch.setattr(cli, "stream", answer)
    monkeypatch.setattr(cli, "beam_search", answer)
    for flags in ("", "--cache-dtype int8", "--cache-dtype int8 --beams 2"):
        assert run(f"generate x --model TOY {flags}")[:2] == (0, "x\n")
    assert asked == ["auto", "int8", "int8"]
    with pytest.raises(SystemExit):
        run("generate x --model TOY --cache-dtype int4")


def test_generate_with_beams_prints_the_best_of_them(run, folder, monkeypatch):
    model, tokenizer = qk.load_pretrained(folder)
    flags = "--model TOY --beams 3 --max-new-tokens 6"
    code, out, _ = run(f"generate 'class A' {flags}")
    best = qk.beam_search(model, tokenizer("class A"), num_beams=3, max_new_tokens=6)[0]
    assert (code, out) == (0, f"class A{tokenizer.decode(best.ids, skip_special=True)}\n")
    code, out, _ = run(f"generate --fim 'a(<fill>)' {flags}")
    stops = (*model.stop_ids, *tokenizer.fim_stop_ids)
    ids = tokenizer(tokenizer.fim("a(", ")"))
    best = qk.beam_search(model, ids, num_beams=3, max_new_tokens=6, stop_ids=stops)[0]
    assert (code, out) == (0, f"a({tokenizer.decode(best.ids, skip_special=True)})\n")
    beam = qk.Beam((*tokenizer.encode("ab"), 5), -1, -1, True)  # its stop token is not text
    monkeypatch.setattr(cli, "beam_search", lambda *_, **__: [beam])
    assert run("generate x --model TOY --beams 2")[1] == "xab\n"


@pytest.mark.parametrize(("line", "fragments"), [
    ("generate x --model nowhere", ["'nowhere'", "neither a folder", "Hub id"]),
    ("generate '' --model TOY", ["prompt is empty"]),
    ("generate x --fim --model TOY", ["<fill>", "once"]),
    ("generate x --temperature=-1 --model TOY", ["temperature is -1.0"]),
    ("generate x --min-p=2 --model TOY", ["min_p is 2.0"]),
    ("generate x --stop '' --model TOY", ["stop_strings", "none of them empty"]),
    ("generate x --beams=2 --temperature=1", ["--beams", "leave out --temperature"]),
    ("generate x --beams=2 --top-k=4", ["leave out --top-k"]),
    ("generate x --beams=2 --top-p=0.5", ["leave out --top-p"]),
    ("generate x --beams=2 --min-p=0.5", ["leave out --min-p"]),
    ("generate x --beams=2 --repetition-penalty=2", ["leave out --repetition-penalty"]),
    ("generate x --beams=2 --seed=0", ["leave out --seed"]),
    ("generate x --beams=2 --stop=a", ["leave out --stop"]),
    ("generate x --device tpu9 --model TOY", ["'tpu9'", "'auto'"]),
    ("generate x --dtype int4 --model TOY", ["group_size is 64", "takes another group"]),
    ("inspect nowhere/at/all", ["neither a folder here nor a Hub id"]),
])  # fmt: skip
def test_errors_are_one_helpful_line(run, line, fragments):
    code, out, err = run(line)
    assert (code, out) == (1, "")
    assert err.startswith("qwenkit: ")
    assert err.count("\n") == 1
    assert all(fragment in err for fragment in fragments), err


@pytest.mark.parametrize(("line", "code", "said"), [
    *((f"{name} --help", 0, f"examples:\n  qwenkit {name}") for name in (
        "doctor", "inspect", "forward", "generate", "train", "average", "pass-at-k", "grpo",
        "serve", "lab")),
    ("--version", 0, f"qwenkit {qk.__version__}\n"),
    *((line, 2, f"(see qwenkit{command} --help)\n") for line, command in (
        ("", ""), ("fly", ""), ("generate x --max-new-tokens 0", " generate"),
        ("lab --port x", " lab"), ("train recipe.toml", " train"), ("inspect a b", ""))),
])  # fmt: skip
def test_the_module_gives_help_with_an_example_and_exits_with_2_at_wrong_usage(
    capsys, monkeypatch, line, code, said
):
    monkeypatch.setattr(sys, "argv", ["qwenkit", *shlex.split(line)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("qwenkit.cli", run_name="__main__")
    assert stop.value.code == code
    out = capsys.readouterr().err if code else capsys.readouterr().out
    assert said == out if line == "--version" else said in out
    assert not code or out.count("\n") == 1


def in_shell(command):
    environment = {**os.environ, "Q": f"{sys.executable} -m qwenkit.cli"}
    command = ["bash", "-c", command]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_piped_output_is_plain_and_a_closed_pipe_is_not_an_error(folder):
    done = in_shell(f"set -o pipefail; $Q inspect {folder} --tensors | head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "CONFIG\n", "")
    done = in_shell(f"printf 'def f' | $Q generate - --model {folder} --max-new-tokens 3 | cat -v")
    assert done.stdout.startswith("def f")
    assert "^[" not in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_that_cannot_be_written_is_an_error_in_one_line(monkeypatch, capsys, folder):
    for line in (["inspect", folder], ["generate", "x", "--model", folder, "--max-new-tokens=1"]):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert main(line) == 1
        assert capsys.readouterr().err == "qwenkit: No space left on device\n"


def test_any_text_prints_on_a_terminal_without_unicode(monkeypatch, folder):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert main(["generate", "é😀", "--model", folder, "--max-new-tokens=1"]) == 0
    assert written.getvalue().startswith(rb"\xe9\U0001f600")


def test_a_prompt_that_is_not_text_is_refused(monkeypatch, run):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff"), "utf-8"))
    code, out, err = run("generate - --model TOY")
    assert (code, out, err) == (1, "", "qwenkit: standard input is not utf-8 text\n")


def test_ctrl_c_stops_with_130(run, monkeypatch):
    monkeypatch.setattr(cli, "stream", mock.Mock(side_effect=KeyboardInterrupt))
    assert run("generate x --model TOY")[0] == 130


@pytest.fixture
def lab_command(run):
    """Return a function that gives exit code, output, errors, and the commands of JupyterLab."""

    def command(line):
        system, called = mock.Mock(wraps=os, path=os.path, environ={}), []
        system.name = "nt"  # where no program can become another one
        with mock.patch.object(lab, "os", system), mock.patch.object(lab, "subprocess") as started:
            started.call.side_effect = lambda command: called.append(command) or 0
            return *run(line), called

    return command


def test_lab_opens_the_first_notebook_of_the_clone(lab_command):
    code, out, _, (called,) = lab_command("lab --port 8901 --no-browser -- --debug")
    assert (code, out) == (0, "")
    assert called[1:3] == ["-m", "jupyterlab"]
    assert {"--ServerApp.port=8901", "--no-browser", "--debug"} <= set(called)
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in called
    assert f"--ServerApp.root_dir={lab.CLONE.parent}" in called


def test_lab_copies_the_notebooks_out_and_keeps_what_a_reader_changed(lab_command, tmp_path):
    folder = tmp_path / "my course"
    code, out, _, (called,) = lab_command(f"lab --folder '{folder}'")
    names = [path.relative_to(lab.CLONE) for path in lab.CLONE.glob("[0-9]*.ipynb")]
    assert code == 0
    assert len(names) == 31
    assert all((folder / n).read_bytes() == (lab.CLONE / n).read_bytes() for n in names)
    assert (folder / "pictures" / "architecture.png").is_file()
    assert (folder / "glossary.md").is_file()
    assert (folder / "README.md").is_file()
    assert "Kept" not in out
    assert {f"--ServerApp.root_dir={folder}",
            "--LabApp.default_url=/lab/tree/00_start_here.ipynb"} <= set(called)  # fmt: skip
    (folder / "03_rmsnorm.ipynb").write_text("mine")
    (folder / "04_rope.ipynb").unlink()
    (folder / "05_attention.ipynb").unlink()
    (folder / "05_attention.ipynb").mkdir()
    out = lab_command(f"lab --folder '{folder}'")[1]
    assert f"The notebooks are in {folder}; 1 files copied" in out
    assert "Kept as they are, unlike this version's: 03_rmsnorm.ipynb, 05_attention.ipynb\n" in out
    assert (folder / "03_rmsnorm.ipynb").read_text() == "mine"
    assert not list(folder.glob("*.tmp"))


def test_lab_without_notebooks_or_a_folder_for_them_says_so(lab_command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err, called = lab_command(f"lab --folder {tmp_path}/file/x")
    assert (code, called) == (1, [])
    assert err.startswith("qwenkit: the notebooks cannot be copied to")
    assert "name another folder" in err
    code, _, err, called = lab_command("lab --folder ~nobody-of-this-name/x")
    assert (code, called) == (1, [])
    assert "names no user" in err
    with mock.patch.multiple(lab, CLONE=tmp_path, INSTALLED=tmp_path):
        code, _, err, called = lab_command("lab")
    assert (code, called) == (1, [])
    assert "install qwenkit again" in err
    with mock.patch.object(lab.importlib.util, "find_spec", return_value=None):
        code, _, err, called = lab_command("lab")
    assert (code, called) == (1, [])
    assert "pip install jupyterlab" in err


def test_a_notebook_of_another_python_is_not_modified_by_opening_it(tmp_path):
    """As `qwenkit lab` sets Jupyter up, JupyterLab sees its own version, and the file keeps its."""
    settings = lab.Path(lab.__file__).parent / "jupyter" / "jupyter_server_config.py"
    set_up = mock.MagicMock()
    runpy.run_path(str(settings), init_globals={"get_config": lambda: set_up})
    files = set_up.ServerApp.contents_manager_class(root_dir=str(tmp_path))
    text = (lab.CLONE / lab.FIRST).read_text("utf-8")
    other = re.sub(r'"version": "3[.\d]+"', '"version": "3.99.1"', text)
    assert other != text
    (tmp_path / lab.FIRST).write_text(other, "utf-8")

    async def opened_and_saved():
        model = await files.get(lab.FIRST)
        version = model["content"]["metadata"]["language_info"]["version"]
        await files.save({"type": "notebook", "content": model["content"]}, lab.FIRST)
        await files.save({"type": "notebook", "content": model["content"]}, "new.ipynb")
        return version

    assert asyncio.run(opened_and_saved()) == platform.python_version()
    assert (tmp_path / lab.FIRST).read_text("utf-8") == other
    assert (tmp_path / "new.ipynb").is_file()
