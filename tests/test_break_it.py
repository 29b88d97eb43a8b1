"""The cells that break the model break the real one too, as their text says, in whole and decoded.

Needs QWENKIT_MODEL, as tests/test_real.py does.
"""

import contextlib
import gc
import io
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
import torch
from reference import relative_error
from test_real import REASON

import qwenkit as qk
from qwenkit.generate.steps import next_logits

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(3600),  # a notebook runs token by token in places
    pytest.mark.skipif(bool(REASON), reason=REASON),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries, in cells' pictures
]
FOLDER = Path(__file__).parents[1] / "notebooks"
# A notebook, the code cell to end with (by what it contains), and what must then be true of the
# names in it. `_decoded(model)` is how far decoding is from the whole forward while it is broken.
CASES = {
    "01_checkpoint": (
        "swapped = ",
        [
            "qk.Checkpoint(folder).config.num_hidden_layers == 24",
            "(abs(by_hand) < 1).mean() > 0.95",
            "(abs(as_float16) < 1).mean() < 0.5",
            "(abs(swapped) > 1e6).mean() > 0.1",
        ],
    ),
    "02_tokens": (
        "spaces apart",
        [
            "loss(shifted) > 2 * loss(right)",
            "loss(apart) > 1.5 * loss(right)",
            "loss(single) > loss(apart)",
        ],
    ),
    "03_rmsnorm": (
        "both = torch.cat([ids, other])",
        [
            "abs(losses['right'] - loss()) < 1e-3",
            "all(losses[n] < loss() + 0.5 for n in ('eps outside the root', 'mean subtracted'))",
            "all(losses[n] > loss() + 1 for n in ('no weight', '1 + weight', 'no root'))",
            "losses['mean over the tokens'] > loss() + 1",
            "growth > 2",
            "0.5 < ratio.median() < 2",
            "all(with_norm(f, lambda: _decoded(model)) < 1e-3 for n, f in formulas.items()"
            " if n != 'mean over the tokens')",  # which looks at later tokens, so it cannot
            "with_norm(formulas['mean over the tokens'], lambda: _decoded(model)) > 0.1",
            "with_norm(formulas['right'], lambda: qk.complete(model, tokenizer, text))"
            " == qk.complete(model, tokenizer, text)",
            "with_norm(formulas['no weight'], lambda: qk.complete(model, tokenizer, text))"
            " != qk.complete(model, tokenizer, text)",
        ],
    ),
    "04_rope": (
        "drawn = ",
        [
            "all(v[0] > seen['right'][0] + 0.02 for n, v in seen.items()"
            " if n not in ('right', 'wrong theta'))",
            "max(seen, key=lambda n: seen[n][0]) != 'right'",
            "abs(shifted - right) < 0.05",
        ],
    ),
    "05_attention": (
        "def leak(rule)",
        [
            "abs(loss_with(rules['right']) - untouched) < 1e-3",
            "abs(loss_with(rules['no scale']) - untouched) < 0.05",  # as the text says of the 0.5B
            "loss_with(rules['sees its successor']) != untouched",
            "loss_with(rules['over queries']) > untouched + 0.3",
            "[leak(rules[n]) > 1e-3 for n in rules] == [False, False, True, True, True]",
            "_broken(core(rules['right']), model) < 1e-3",
            "_broken(core(rules['no scale']), model) < 1e-3",
            "_broken(core(rules['sees its successor']), model) > 0.01",  # it looks ahead
        ],
    ),
    "06_gqa": (
        "costs[name] = sum(losses)",
        [
            "abs(loss_with(lambda x: x[:, orders['right']]) - untouched) < 1e-3",
            "all(loss_with(lambda x, o=o: x[:, o]) > untouched + 0.05"
            " for n, o in orders.items() if n != 'right')",
            "all(_broken(core(lambda x, o=o: x[:, o]), model) < 1e-3 for o in orders.values())",
        ],
    ),
    "07_mlp": (
        "losses = {name: with_mlp",
        [
            "abs(losses['right'] - loss()) < 1e-3",
            "losses['GELU'] == min(v for n, v in losses.items() if n != 'right')",
            "losses['ReLU'] > loss() + 3",
            "all(losses[n] > loss() + 1 for n in middles if n not in ('right', 'GELU'))",
            "all(with_mlp(m, lambda: _decoded(model)) < 1e-3 for m in middles.values())",
        ],
    ),
    "08_decoder_layer": (
        "wirings = [",
        [
            "abs(losses['layer'] - loss(logits)) < 1e-3",
            "all(losses[n] > equal for n in ('forgot_second', 'forgot_both'))",
            "losses['added_to_copy'] > loss(logits) + 1",
            "losses['norms_exchanged'] > loss(logits) + 1",
            "losses['parallel'] > loss(logits)",
            "losses['post_norm'] > loss(logits) + 1",
        ],
    ),
    "09_whole_model": (
        "worst = max(losses",
        [
            "abs(losses['eps × 10'] - losses['healthy']) < 0.05",
            "losses['no biases'] > losses['healthy'] + 0.5",
            "losses['kv heads reversed'] > losses['healthy'] + 0.5",
            "losses['no last norm'] > losses['healthy']",
            "losses['random head'] > chance - 1",
        ],
    ),
    "10_kv_cache": (
        "whole = model(ids)\nfor name, (call, kind)",
        [
            "all(abs(loss(everything, *p) - loss(everything)) < 1e-3 for p in broken.values())",
            # the text: the rows of zeros of "counted twice" are hardly noticed by the loss
            "all((costs[name] > costs['healthy'] + 0.3) == (name != 'counted twice')"
            " for name in broken)",
            "_apart(forward, KVCache(config, 1, 2 * everything), ids, whole) < 1e-3",
            "all(_apart(call, kind(config, 1, 2 * everything), ids, whole) > 0.05"
            " for call, kind in broken.values())",
            "abs(loss(1) - loss(everything)) < 1e-3",
        ],
    ),
    "11_sampling": (
        "softmax_first",
        [
            "bits > sum(entropy(right(row, ids[0])) for row in rows) / len(rows) + 2",
        ],
    ),
    "13_lora": (
        "forgotten = judged",
        [
            "forgotten[2] > before[2] + 0.5",
        ],
    ),
    "14_seeing_inside": (
        "lost = ",
        [
            "abs(alone[least]) < 0.1",
            "max(rise([(1, head)]) for head in range(H)) < max(alone.values())",
            "losses(mlp_off)[1] - second > 1",
            "code_loss(mlp_off) - code_loss() > 1",
            "group_off < 0.5",
            "abs(share(metric(patched(0, at))) - 1) < 1e-3",
            "lost > won",
        ],
    ),
    "14b_circuits": (
        "sure_of = ",
        [
            "same > 0.8",
            "sure_of[1] < 0.75 * sure_of[0]",
            "_same(model, plain[f'layers.{N // 2}.resid_post']) < 0.35",  # about one in five
        ],
    ),
}


@torch.no_grad()
def decoded(model):
    """Return how far decoding is from the whole forward, as a share of the largest logit."""
    ids = torch.tensor([[1, 750, 912, 2877, 11, 293, 982, 262, 470, 264, 488, 293]])
    cache = qk.KVCache(model.config, 1, ids.shape[1])
    next_logits(model, ids[:, :6], cache, 0)
    for i in range(6, ids.shape[1]):
        found = next_logits(model, ids[:, i : i + 1], cache, i)[0]
    whole = model(ids)[0, -1].float()
    return relative_error(found, whole)


def apart(call, cache, ids, whole):
    """Return how far logits in chunks of eight are from `whole`, as a share of the largest."""
    logits = torch.cat([call(part, cache) for part in ids.split(8, dim=1)], dim=1)
    return relative_error(logits, whole)


def broken(context, model):
    """Return the same while a context lasts."""
    with context:
        return decoded(model)


def same(model, stream):
    """Return how often the most likely token is the same without the last norm."""
    with_norm, bare = model.head(model.model.norm(stream)), model.head(stream)
    return (with_norm.argmax(dim=-1) == bare.argmax(dim=-1)).float().mean().item()


@pytest.fixture(scope="module", params=CASES)
def ran(request):
    """Run a notebook's cells up to the one named; return its names and what must be true."""
    mpl.use("Agg")
    last, claims = CASES[request.param]
    names = {
        "__name__": "__main__", "_decoded": decoded, "_broken": broken, "_same": same,
        "_apart": apart,
    }  # fmt: skip
    for cell in nbformat.read(FOLDER / f"{request.param}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, request.param, "exec"), names)
            if last in cell.source:
                break
    else:
        raise AssertionError(f"{request.param} has no cell with {last!r}")
    yield names, claims
    torch.set_grad_enabled(True)  # most notebooks switch it off
    names.clear()  # a model of two gigabytes, which its functions refer to
    gc.collect()


def test_what_the_text_says_of_a_broken_model_is_true_of_the_real_one(ran):
    names, claims = ran
    models = [value for value in names.values() if isinstance(value, qk.QwenForCausalLM)]
    assert not models or models[0].config.num_hidden_layers == 24
    assert [claim for claim in claims if not eval(claim, names)] == []
