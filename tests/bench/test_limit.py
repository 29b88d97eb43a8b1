"""Where a token's time goes: the parts are all of it, and no clock changes a number."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from fixtures_toy import toy_of

import limit
import qwenkit as qk
import token_parts
from qwenkit.fast import kernels, swap
from qwenkit.fast._machine import kernels_problem
from timing import busy_processes
from token_parts import (
    ALL_CHECKS,
    EMBEDDING,
    HEAD,
    LAYERS,
    PARTS,
    REMAINDER,
    REST,
    SAMPLED,
    WHOLE,
    Clocks,
    Decoding,
    bytes_read,
    medians,
)

pytestmark = [
    pytest.mark.skipif(kernels_problem() is not None, reason=str(kernels_problem())),
    pytest.mark.usefixtures("one_thread"),
]
IDS = torch.arange(1, 8)[None]  # (1, 7)
NAMES = {  # part -> what the names of its tensors have
    "q, k and v": ("q_proj", "k_proj", "v_proj"), "o_proj": ("o_proj",),
    "gate and up": ("gate_proj", "up_proj"), "down_proj": ("down_proj",),
    REST: ("layernorm", "model.norm"),
}  # fmt: skip


def loaded(folder, dtype):
    """Return an accelerated toy; 16 divides its rows."""
    kind = dtype if dtype in ("float32", "bfloat16") else "bfloat16"
    model, _ = qk.load_pretrained(folder, device="cpu", dtype=kind)
    if kind != dtype:
        qk.quantize(model, dtype, group=16)
    return swap(model)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", limit.DTYPES)
def test_bytes_are_those_of_the_tensors(dtype, tied, tmp_path_factory):
    model = loaded(toy_of(tmp_path_factory, tied=tied), dtype)
    found, tensors = bytes_read(model, 5), model.state_dict()
    for part, names in NAMES.items():
        own = [t.nbytes for name, t in tensors.items() if any(one in name for one in names)]
        assert found.pop(part) == sum(own) > 0
    table = [t for name, t in tensors.items() if "embed_tokens" in name]
    head = table if tied else [t for name, t in tensors.items() if "lm_head" in name]
    assert found.pop(EMBEDDING) == sum(t[0].nbytes for t in table)
    assert found.pop(HEAD) == sum(t.nbytes for t in head)
    cache = qk.KVCache(model.config, 1, 9)
    model(IDS[:, :5], cache=cache)
    assert found == {"attention": sum(t[:, :, :5].nbytes for t in (*cache.keys, *cache.values))}


@pytest.mark.parametrize("dtype", ["float32", "int4"])
def test_the_parts_are_the_whole_token_and_lie_within_it(dtype, toy):
    side = Decoding(loaded(toy, dtype), IDS, tokens=3)
    tokens = [*side(), *side()]
    assert len(tokens) == 6
    for token in tokens:
        assert set(token) == {*PARTS, ALL_CHECKS, SAMPLED, WHOLE}
        assert token[ALL_CHECKS] > 0
        assert all(took > 0 for took in token.values())
        inside = [token[name] for name in (*LAYERS, HEAD)]
        assert sum(inside) < 1.01 * token[WHOLE]  # two clocks
    found = medians(tokens)
    assert sum(found[name] for name in (*PARTS, REMAINDER)) == pytest.approx(found[WHOLE])


@pytest.mark.parametrize("dtype", ["float32", "int4"])
def test_with_clocks_the_numbers_are_identical(dtype, toy):
    model, logits = loaded(toy, dtype), []
    own, clocks = kernels.lead_step, Clocks()
    for around in (clocks.inside, lambda: torch.no_grad()):
        cache = qk.KVCache(model.config, 1, 9)
        with torch.no_grad(), around():
            model(IDS[:, :-1], cache=cache)
            logits.append(qk.fast.decode_step(model, IDS[:, -1:], cache))
    assert torch.equal(*logits)
    assert set(LAYERS) <= set(clocks.found)

    def broken_off():
        with clocks.inside():
            assert kernels.lead_step != own
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert kernels.lead_step == own


def test_each_stage_gets_the_ticks_between_its_clocks(monkeypatch):
    def lead_step(board, counts, done, job):
        # two layers of five stages and the head; stage i begins at 100 i and lasts i + 1
        done[:, -2] = 100 * np.arange(11)
        done[:, -1] = done[:, -2] + np.arange(1, 12)
        return 1

    monkeypatch.setattr(token_parts, "_timed_lead_step", lead_step)
    clocks = Clocks()
    clocks._per_tick = 0.5
    clocks._lead_step(None, np.array([3]), np.zeros((11, 8), np.int64), None)
    stages = ("q, k and v", "attention", "o_proj", "gate and up", "down_proj")
    want = dict(zip(stages, (3.5, 4.5, 5.5, 6.5, 7.5), strict=True))  # (1 + 6) / 2, ...
    assert clocks.found == {**want, HEAD: 11 / 2, REST: (1000 - 55) / 2}
    with pytest.raises(AssertionError, match="overwrote"):
        clocks._lead_step(None, np.array([7]), np.zeros((11, 8), np.int64), None)


def test_the_command_prints_tables_that_add_up_and_writes_json(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(limit, "load", loaded)
    monkeypatch.setattr(limit, "BIG", 1000)
    given = [str(toy), "--dtypes", "float32", "int4", "--rounds", "2", "--tokens", "2"]
    limit.main([*given, "--past", "4", "--busy", "1", "--json", str(tmp_path / "found.json")])
    assert psutil.Process().children() == []
    printed = capsys.readouterr().out
    tables = printed.split(f"\n{'part':<33}")[1:]
    assert len(tables) == 4  # two dtypes, without and with a busy process
    for lines in tables:
        rows = re.findall(
            r"^([^\d\n]+?) +(?:[\d,]+ +)?(-?\d+\.\d{3}) +-?\d+\.\d%", lines, re.MULTILINE
        )
        assert [name for name, _ in rows] == [*PARTS, REMAINDER, WHOLE]
        *parts, whole = (float(took) for _, took in rows)
        assert sum(parts) == pytest.approx(whole, abs=0.001 * len(parts))  # each is rounded
    assert printed.count(" × transformers, of ") == 4
    assert len(re.findall(r"others are busy: [+-]\d+%, (holds|FAILS): asked -15%", printed)) == 2
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["bytes"]["int4"] == bytes_read(loaded(toy, "int4"), 5)
    for each in (found["quiet"], found["busy"]):
        assert len(each["memory"]) == len(each["small_pages"]) == len(each["transformers"]) == 2
        assert 0 <= each["others"] <= 1
        for dtype in ("float32", "int4"):
            own = each["dtypes"][dtype]
            assert [len(turn) for turn in own["turns"]] == [2, 2]
            assert min(own["seconds"]) > 0


def test_a_model_that_the_kernels_do_not_decode_has_no_parts_and_the_reason(toy, capsys):
    model, _ = qk.load_pretrained(toy, device="cpu", dtype="float32")
    turns = limit.sides({"float32": model}, None, 4, 2, 1000)
    found = limit.take_turns(turns, 1)
    limit.report(found, {"float32": turns["float32"].bytes}, {"float32": qk.explain(model).reason})
    printed = capsys.readouterr().out
    assert "not in parts: the model is not accelerated" in printed
    assert "q, k and v" not in printed
    assert "transformers" not in printed


def alive(pid):
    """Tell whether a process still runs; one that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_busy_processes_end_with_their_block(error):
    pids = []

    def broken_off():
        with busy_processes(2) as started:
            pids.extend(process.pid for process in started)
            assert all(map(alive, pids))
            raise error

    with pytest.raises(error):
        broken_off()
    assert len(pids) == 2
    assert not any(map(psutil.pid_exists, pids))


def test_busy_processes_end_when_the_one_that_started_them_is_killed():
    code = (
        "import time\nfrom timing import busy_processes\n"
        "with busy_processes(2) as started:\n"
        "    print(*(one.pid for one in started), flush=True)\n    time.sleep(600)"
    )
    path = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    ) as parent:
        pids = [int(one) for one in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        parent.kill()
    end = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(alive, pids))
