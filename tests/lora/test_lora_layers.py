"""LoRA: nothing changes at first, then what PEFT's changes; merging is the same in one weight."""

import re

import mps
import pytest
import torch
from learned import learned, parts
from peft import LoraConfig, get_peft_model
from reference import ids, pair, relative_error, tiny
from torch import nn

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.fast import swap
from qwenkit.lora import LoRALinear, lora_layers

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PREFIX = "base_model.model."


def with_lora(model=None, **options):
    """Return a model with LoRA that has learned something."""
    model = tiny() if model is None else model
    qk.add_lora(model, **{"targets": ALL, **options})
    return learned(model)


def with_peft(theirs, ours, **settings):
    """Return PEFT's model, its A and B those of ours."""
    peft = get_peft_model(theirs, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    state = peft.state_dict()
    with torch.no_grad():
        for name, weight in parts(ours).items():
            state[PREFIX + name.replace(".weight", ".default.weight")].copy_(weight)
    return peft


# --- the numbers ---


def test_a_layer_by_hand():
    base = nn.Linear(2, 2, bias=True)
    layer = LoRALinear(base, rank=1, alpha=3)
    values = {
        base.weight: [[1.0, 2.0], [3.0, 4.0]], base.bias: [0.5, -0.5],
        layer.lora_A.weight: [[1.0, -1.0]], layer.lora_B.weight: [[2.0], [0.0]],
    }  # fmt: skip
    with torch.no_grad():
        for weight, value in values.items():
            weight.copy_(torch.tensor(value))
    # W x + b = (11.5, 26.5); A x = 2, B of it (4, 0), times alpha / rank = 3: (12, 0)
    assert layer(torch.tensor([[5.0, 3.0]])).tolist() == [[23.5, 26.5]]
    assert layer.update().tolist() == [[6.0, -6.0], [0.0, 0.0]]


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ALL, ("lm_head",)])
def test_at_first_the_logits_are_bit_for_bit_those_of_before(targets):
    model = tiny()
    before = model(ids(2, 7))
    qk.add_lora(model, rank=4, targets=targets)
    assert {name.rpartition(".")[2] for name in lora_layers(model)} == set(targets)
    assert torch.equal(model(ids(2, 7)), before)
    assert not torch.equal(learned(model)(ids(2, 7)), before)


@pytest.mark.parametrize("variant", [{}, {"num_key_value_heads": 1}, {"head_dim": 10}], ids=str)
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ALL])
def test_logits_and_gradients_are_those_of_peft(targets, variant):
    theirs, ours = pair(**variant)
    with_lora(ours, rank=3, alpha=5, targets=targets)
    peft = with_peft(theirs, ours, r=3, lora_alpha=5, target_modules=list(targets))
    text = ids(2, 9)
    got, want = ours(text), peft(text).logits
    assert relative_error(got, want.detach()) < 1e-5
    for logits in (got, want):
        logits.logsumexp(-1).sum().backward()
    grads = {n.replace(".default", ""): p.grad for n, p in peft.named_parameters()}
    for name, weight in parts(ours).items():
        assert grads[PREFIX + name].abs().max() > 0
        assert relative_error(weight.grad, grads[PREFIX + name]) < 1e-4
    plain = [p for n, p in ours.named_parameters() if ".lora_" not in n]
    assert all(p.grad is None and not p.requires_grad for p in plain)


def test_bfloat16_weights_get_float32_lora_and_come_no_further_from_float32_than_peft():
    theirs, ours = pair(dtype=torch.bfloat16)
    exact = with_lora(pair()[1], rank=3)
    with_lora(ours, rank=3)
    assert {weight.dtype for weight in parts(ours).values()} == {torch.float32}
    peft = with_peft(theirs, ours, r=3, lora_alpha=16, target_modules=list(ALL))
    text = ids(96, 24)  # many: of a few tokens' rounding, either side may have the less by chance
    got, want, true = ours(text), peft(text).logits, exact(text)
    assert got.dtype == torch.bfloat16
    error, theirs_error = (((y.float() - true) ** 2).mean().item() for y in (got, want))
    assert error <= 1.1 * theirs_error


def test_one_seed_gives_one_initialization():
    values = []
    for _ in range(2):
        torch.manual_seed(3)
        model = tiny()
        qk.add_lora(model)
        values.append(torch.cat([one.lora_A.weight for one in lora_layers(model).values()]))
        assert not any(one.lora_B.weight.any() for one in lora_layers(model).values())
    assert torch.equal(*values)
    assert 0 < values[0].abs().max() <= 1 / 32**0.5  # uniform, to 1 / sqrt(in_features)


def test_only_a_and_b_are_trained_and_counted():
    model = tiny()
    qk.add_lora(model, rank=4)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == 3 * (4 * (32 + 32) + 4 * (32 + 16))  # layers × (q + v), each rank × (I + O)
    optimizer = qk.train.make_optimizer(model, learning_rate=1e-2)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == count


def test_training_lowers_the_loss_and_leaves_the_weights_alone():
    model = tiny()
    qk.add_lora(model, rank=4, targets=ALL)
    plain = {n: p.clone() for n, p in model.named_parameters() if ".lora_" not in n}
    optimizer = qk.train.make_optimizer(model, learning_rate=2e-2, weight_decay=0.0)
    text, losses = ids(4, 12), []
    for _ in range(30):
        logits = model(text)[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(model.get_parameter(name), value) for name, value in plain.items())


# --- merging ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_merged_computes_the_same_and_unmerging_gives_the_very_bits_back(dtype):
    model = pair(dtype=dtype)[1]
    plain = {n: p.clone() for n, p in model.named_parameters()}
    with_lora(model, rank=3)
    text = ids(2, 9)
    separate, cache = model(text), qk.KVCache(model.config, 2, 16)
    qk.merge_lora(model)
    changed = [n for n in plain if not torch.equal(model.get_parameter(n), plain[n])]
    assert len(changed) == 3 * len(ALL)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1  # a bfloat16 weight rounds the sum
    step = torch.cat([model(text[:, :4], cache=cache), model(text[:, 4:], cache=cache)], dim=1)
    for merged in (model(text), step):
        assert ((merged - separate).norm() / separate.norm()).item() < tolerance
    qk.merge_lora(model)  # once more changes nothing
    qk.unmerge_lora(model)
    for name, value in plain.items():
        assert torch.equal(model.get_parameter(name), value), name
    assert torch.equal(model(text), separate)


def test_what_is_merged_is_not_trained_and_what_is_unmerged_is_again_with_dropout():
    model, text = with_lora(dropout=0.5), ids(1, 6)
    qk.merge_lora(model)
    with pytest.raises(InputError, match="no parameter requires a gradient"):
        qk.train.make_optimizer(model)
    qk.unmerge_lora(model)
    assert all(weight.requires_grad for weight in parts(model).values())
    assert torch.equal(model(text), model(text))
    model.train()  # dropout acts in training alone
    assert not torch.equal(model(text), model(text))


@pytest.mark.parametrize("merge", [False, True])
def test_removing_gives_the_old_model_and_after_merging_the_new_one(tmp_path, merge):
    text, model = ids(1, 8), tiny()
    names, before = list(model.state_dict()), model(text)
    trained = with_lora(model)(text)
    if merge:
        qk.merge_lora(model)
    qk.remove_lora(model)
    assert not lora_layers(model)
    assert list(model.state_dict()) == names
    assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    if not merge:
        assert torch.equal(model(text), before)
        return
    assert relative_error(model(text), trained) < 1e-5
    qk.save_pretrained(model, tmp_path)
    assert torch.equal(qk.load_model(tmp_path, dtype=None)(text), model(text))


def test_traces_caches_and_generation_see_lora():
    model, text = tiny(), ids(1, 6)
    plain = [step.token_id for step in qk.generate(model, text, max_new_tokens=8)]
    with_lora(model, rank=4)
    trace, merged = qk.Trace(keep=("attn.q",)), qk.Trace(keep=("attn.q",))
    model(text, trace=trace)
    qk.merge_lora(model)
    model(text, trace=merged)
    name = "layers.1.attn.q"
    torch.testing.assert_close(merged[name], trace[name], rtol=1e-4, atol=1e-4)
    assert model.model.layers[1].self_attn.q_proj.merged
    assert [step.token_id for step in qk.generate(model, text, max_new_tokens=8)] != plain


def test_a_rehearsed_lora_step_would_run_on_mps():
    model = swap(tiny())  # as a model is loaded there
    qk.add_lora(model, rank=4, targets=ALL)

    def step(text):
        model(text).logsumexp(-1).mean().backward()

    report = mps.rehearse(step, ids(2, 8))
    assert report.ok, report


# --- what is refused ---

BAD = {
    "rank 0": ({"rank": 0}, "rank is 0; it must be an integer"),
    "half a rank": ({"rank": 1.5}, "rank is 1.5"), "True": ({"rank": True}, "rank is True"),
    "alpha 0": ({"alpha": 0}, "alpha is 0; it must be a number above 0"),
    "alpha infinite": ({"alpha": float("inf")}, "alpha is inf"),
    "alpha as text": ({"alpha": "16"}, "alpha is '16'"),
    "dropout 1": ({"dropout": 1.0}, "dropout is 1.0; it must be a number from 0 to below 1"),
    "dropout below 0": ({"dropout": -0.1}, "dropout is -0.1"),
    "a text": ({"targets": "q_proj"}, "targets is 'q_proj'; it must be some of q_proj"),
    "nothing": ({"targets": ()}, "targets is ()"),
    "a wrong name": ({"targets": ("q_proj", "query")}, "it must be some of"),
    "a tied head": ({"targets": ("lm_head",)}, "lm_head, which this model does not have"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_what_makes_no_sense_is_refused_and_changes_nothing(arguments, words):
    model = tiny(tie_word_embeddings=True).requires_grad_(True)
    with pytest.raises(InputError, match=re.escape(words)):
        qk.add_lora(model, **arguments)
    assert not lora_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_twice_or_with_int8_or_without_lora_is_refused(tmp_path):
    model = tiny()

    def refused(change, words, *more):
        with pytest.raises(InputError, match=words):
            change(model, *more)

    for change in (qk.merge_lora, qk.unmerge_lora, qk.remove_lora):
        refused(change, "has no LoRA; add_lora")
    qk.add_lora(model)
    refused(qk.add_lora, "has LoRA already; remove_lora")
    refused(qk.quantize, "has LoRA, which int8 would lose")
    refused(qk.save_pretrained, "save_adapter", tmp_path)
    assert not list(tmp_path.iterdir())
    qk.remove_lora(model)
    qk.quantize(model)
    refused(qk.add_lora, "q_proj is a FastInt8Linear; LoRA needs a Linear")
