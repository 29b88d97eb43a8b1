"""The commands as a person types them: what they print, where errors go, and exit codes."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import write_toy_checkpoint

import qwenkit as qk
from qwenkit.cli import _main as cli
from qwenkit.cli import _reports as report
from qwenkit.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_toy_checkpoint(tmp_path_factory.mktemp("toy")))


@pytest.fixture(autouse=True)
def _no_chosen_model(monkeypatch):
    monkeypatch.delenv("QWENKIT_MODEL", raising=False)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main() sets its own


def run(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_doctor_reports_versions_and_the_chosen_model(capsys, folder, monkeypatch):
    monkeypatch.setenv("QWENKIT_MODEL", folder)
    code, out, err = run(capsys, "doctor")
    assert (code, err) == (0, "")
    assert torch.__version__ in out
    assert f"{qk.Checkpoint(folder).config.num_parameters:,} parameters, valid" in out
    assert "no problems found" in out


def test_doctor_fails_on_a_damaged_model_and_on_a_known_bad_torch(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENKIT_MODEL", str(tmp_path))
    monkeypatch.setattr(report, "known_problem", lambda device: "torch 2.8 on MPS: wrong numbers")
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "PROBLEM  torch 2.8 on MPS" in out
    assert "PROBLEM  QWENKIT_MODEL: " in out
    assert "config.json does not exist" in out


def test_inspect_counts_and_lists(capsys, folder):
    code, out, _ = run(capsys, "inspect", folder)
    config = qk.QwenConfig.from_file(folder)
    assert code == 0
    assert f"{config.num_parameters:,}  (the head is the embedding)" in out
    assert "model.layers.*.self_attn.k_proj.bias           BF16  [32]  × 2" in out
    assert out.endswith("PROBLEMS  none\n")
    _, full, _ = run(capsys, "inspect", folder, "--tensors")
    for name in config.tensor_shapes():
        assert f"  {name} " in full


def test_inspect_names_each_problem(capsys, folder, tmp_path):
    (tmp_path / "config.json").write_text(Path(folder, "config.json").read_text())
    tensors = load_file(f"{folder}/model.safetensors")
    del tensors["model.norm.weight"]
    tensors["extra"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    code, out, _ = run(capsys, "inspect", str(tmp_path))
    assert code == 1
    assert "PROBLEMS  2" in out
    assert "missing model.norm.weight [64]" in out
    assert "unexpected extra [3]" in out


def test_forward_shows_shapes_and_the_likeliest_tokens(capsys, folder):
    code, out, _ = run(capsys, "forward", "def f(x):", "--model", folder, "--top", "3")
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


def test_generate_prints_the_prompt_and_its_continuation(capsys, folder):
    settings = {"max_new_tokens": 8, "temperature": 0.9, "top_k": 50, "top_p": 0.9, "seed": 3}
    flags = ["--max-new-tokens=8", "--temperature=0.9", "--top-k=50", "--top-p=0.9", "--seed=3"]
    code, out, _ = run(capsys, "generate", "def f(x):", "--model", folder, *flags)
    model, tokenizer = qk.load_pretrained(folder)
    assert code == 0
    assert out == "def f(x):" + qk.complete(model, tokenizer, "def f(x):", **settings) + "\n"


def test_generate_chat_and_fim_build_the_models_own_prompts(capsys, folder, monkeypatch):
    asked = []

    def record(model, tokenizer, prompt, **settings):
        asked.append((prompt, settings["stop_ids"]))
        return iter(["NEW"])

    monkeypatch.setattr(cli, "stream", record)
    tokenizer = qk.Tokenizer(folder)
    _, chat, _ = run(capsys, "generate", "--chat", "hello", "--model", folder)
    assert chat == "NEW\n"
    assert asked[0][0] == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    _, fim, _ = run(capsys, "generate", "--fim", "a(<fill>)\n", "--model", folder)
    assert fim == "a(NEW)\n\n"
    assert asked[1][0] == "<|fim_prefix|>a(<|fim_suffix|>)\n<|fim_middle|>"
    assert tokenizer.special["<|file_sep|>"] in asked[1][1]


def test_generate_ends_at_a_stop_text_and_takes_min_p(capsys, folder):
    model, tokenizer = qk.load_pretrained(folder)
    settings = {"max_new_tokens": 20, "temperature": 2.0, "min_p": 0.3, "seed": 1}
    free = qk.complete(model, tokenizer, "def f", **settings)
    stops = [free[9:11], free[6:8]]
    flags = ["--max-new-tokens=20", "--temperature=2", "--min-p=0.3", "--seed=1"]
    flags += ["--stop", stops[0], "--stop", stops[1]]
    code, out, _ = run(capsys, "generate", "def f", "--model", folder, *flags)
    want = qk.complete(model, tokenizer, "def f", stop_strings=stops, **settings)
    assert (code, out) == (0, f"def f{want}\n")
    assert len(want) <= 6 < len(free)
    assert free != qk.complete(model, tokenizer, "def f", **settings | {"min_p": 0.0})


def test_generate_with_beams_prints_the_best_of_them(capsys, folder):
    model, tokenizer = qk.load_pretrained(folder)
    flags = ["--model", folder, "--beams", "3", "--max-new-tokens", "6"]
    code, out, _ = run(capsys, "generate", "class A", *flags)
    best = qk.beam_search(model, tokenizer("class A"), num_beams=3, max_new_tokens=6)[0]
    assert (code, out) == (0, f"class A{tokenizer.decode(best.ids, skip_special=True)}\n")
    code, out, _ = run(capsys, "generate", "--fim", "a(<fill>)", *flags)
    stops = (*model.stop_ids, *tokenizer.fim_stop_ids)
    ids = tokenizer(tokenizer.fim("a(", ")"))
    best = qk.beam_search(model, ids, num_beams=3, max_new_tokens=6, stop_ids=stops)[0]
    assert (code, out) == (0, f"a({tokenizer.decode(best.ids, skip_special=True)})\n")


def test_a_beams_stop_token_is_no_text(capsys, folder, monkeypatch):
    letter = qk.Tokenizer(folder).encode("ab")
    monkeypatch.setattr(cli, "beam_search", lambda *_, **__: [qk.Beam((*letter, 5), -1, -1, True)])
    assert run(capsys, "generate", "x", "--model", folder, "--beams", "2")[1] == "xab\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "x", "--model", "nowhere"], ["'nowhere'", "neither a folder", "Hub id"]),
        (["generate", "", "--model", "TOY"], ["prompt is empty"]),
        (["generate", "x", "--fim", "--model", "TOY"], ["<fill>", "once"]),
        (["generate", "x", "--temperature=-1", "--model", "TOY"], ["temperature is -1.0"]),
        (["generate", "x", "--min-p=2", "--model", "TOY"], ["min_p is 2.0"]),
        (["generate", "x", "--stop", "", "--model", "TOY"], ["stop_strings", "none of them empty"]),
        (
            ["generate", "x", "--beams=2", "--temperature=1", "--model", "TOY"],
            ["--beams", "leave out --temperature"],
        ),
        (["generate", "x", "--beams=2", "--top-k=4"], ["leave out --top-k"]),
        (["generate", "x", "--beams=2", "--top-p=0.5"], ["leave out --top-p"]),
        (["generate", "x", "--beams=2", "--min-p=0.5"], ["leave out --min-p"]),
        (
            ["generate", "x", "--beams=2", "--repetition-penalty=2"],
            ["leave out --repetition-penalty"],
        ),
        (["generate", "x", "--beams=2", "--seed=0"], ["leave out --seed"]),
        (["generate", "x", "--beams=2", "--stop=a"], ["leave out --stop"]),
        (["generate", "x", "--device", "tpu9", "--model", "TOY"], ["'tpu9'", "'auto'"]),
        (["generate", "x", "--dtype", "int4", "--model", "TOY"], ["'int4'", "bfloat16"]),
        (["inspect", "nowhere/at/all"], ["neither a folder here nor a Hub id"]),
    ],
)
def test_errors_are_one_helpful_line(capsys, folder, arguments, words):
    code, out, err = run(capsys, *[folder if a == "TOY" else a for a in arguments])
    assert (code, out) == (1, "")
    assert err.startswith("qwenkit: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("command", ["doctor", "inspect", "forward", "generate", "lab"])
def test_every_command_has_help_with_an_example(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"examples:\n  qwenkit {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["generate", "x", "--max-new-tokens", "0"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: qwenkit" in capsys.readouterr().err


def in_shell(command, **kwargs):
    environment = {**os.environ, "Q": f"{sys.executable} -m qwenkit.cli"}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, **kwargs
    )


def test_piped_output_is_plain_and_a_closed_pipe_is_no_error(folder):
    done = in_shell(f"set -o pipefail; $Q inspect {folder} --tensors | head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "CONFIG\n", "")
    command = f"echo -n 'def f' | $Q generate - --model {folder} --max-new-tokens 3 | cat -v"
    done = in_shell(command)
    assert done.stdout.startswith("def f")
    assert "^[" not in done.stdout
    assert done.stderr == ""


def test_ctrl_c_stops_with_130(capsys, folder, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "stream", interrupted)
    assert run(capsys, "generate", "x", "--model", folder)[0] == 130


def test_lab_opens_the_first_notebook_of_the_clone(capsys, monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(cli.os, "name", "nt")
    monkeypatch.setattr(cli.subprocess, "call", lambda command: called.append(command) or 0)
    flags = ["--port", "8901", "--no-browser", "--", "--debug"]
    assert run(capsys, "lab", *flags)[0] == 0
    assert called[0][1:3] == ["-m", "jupyterlab"]
    assert {"--ServerApp.port=8901", "--no-browser", "--debug"} <= set(called[0])
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in called[0]
    monkeypatch.setattr(cli, "NOTEBOOKS", tmp_path)
    code, _, err = run(capsys, "lab")
    assert code == 1
    assert "clone it and run `make lab`" in err
