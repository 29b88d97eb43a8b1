"""LoRA: nothing changes at first, then what PEFT's changes; merging is the same in one weight."""

import mps
import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import ids, pair, relative_error, tiny
from torch import nn

import qwenkit as qk
from qwenkit.errors import InputError
from qwenkit.fast import swap
from qwenkit.lora import LoRALinear, lora_layers

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def trained(model, seed=5):
    """Give every A and B random values, as if something had been learned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            for part in (layer.lora_A, layer.lora_B):
                part.weight.copy_(0.3 * torch.randn(part.weight.shape, generator=generator))
    return model


def with_peft(theirs, ours, **settings):
    """Return PEFT's model, its A and B those of ours."""
    peft = get_peft_model(theirs, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    state = peft.state_dict()
    with torch.no_grad():
        for name, layer in lora_layers(ours).items():
            for part in ("lora_A", "lora_B"):
                key = f"base_model.model.{name}.{part}.default.weight"
                state[key].copy_(layer.get_submodule(part).weight)
    return peft


# --- the numbers ---


def test_a_layer_by_hand():
    base = nn.Linear(2, 2, bias=True)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        base.bias.copy_(torch.tensor([0.5, -0.5]))
    layer = LoRALinear(base, rank=1, alpha=3)
    with torch.no_grad():
        layer.lora_A.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.lora_B.weight.copy_(torch.tensor([[2.0], [0.0]]))
    x = torch.tensor([[5.0, 3.0]])
    # W x + b = (11.5, 26.5); A x = 2, B of it (4, 0), times alpha / rank = 3: (12, 0)
    assert layer(x).tolist() == [[23.5, 26.5]]
    assert layer.update().tolist() == [[6.0, -6.0], [0.0, 0.0]]


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ALL])
def test_at_first_the_logits_are_bit_for_bit_those_of_before(targets):
    model = tiny()
    before = model(ids(2, 7))
    qk.add_lora(model, rank=4, targets=targets)
    assert torch.equal(model(ids(2, 7)), before)


@pytest.mark.parametrize("variant", [{}, {"num_key_value_heads": 1}, {"head_dim": 10}], ids=str)
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ALL])
def test_logits_and_gradients_are_those_of_peft(targets, variant):
    theirs, ours = pair(**variant)
    qk.add_lora(ours, rank=3, alpha=5, targets=targets)
    trained(ours)
    peft = with_peft(theirs, ours, r=3, lora_alpha=5, target_modules=list(targets))
    text = ids(2, 9)
    got, want = ours(text), peft(text).logits
    assert relative_error(got, want.detach()) < 1e-5
    for logits in (got, want):
        logits.logsumexp(-1).sum().backward()
    state = {n.replace(".default", ""): p.grad for n, p in peft.named_parameters()}
    for name, layer in lora_layers(ours).items():
        for part in ("lora_A", "lora_B"):
            grad = state[f"base_model.model.{name}.{part}.weight"]
            assert grad.abs().max() > 0
            assert relative_error(layer.get_submodule(part).weight.grad, grad) < 1e-4
    plain = [p for n, p in ours.named_parameters() if ".lora_" not in n]
    assert all(p.grad is None and not p.requires_grad for p in plain)


def test_bfloat16_weights_get_float32_lora_and_come_no_further_from_float32_than_peft():
    theirs, ours = pair(dtype=torch.bfloat16)
    exact = pair()[1]
    for model in (ours, exact):
        qk.add_lora(model, rank=3, targets=ALL)
        trained(model)
    assert {p.dtype for n, p in ours.named_parameters() if ".lora_" in n} == {torch.float32}
    peft = with_peft(theirs, ours, r=3, lora_alpha=16, target_modules=list(ALL))
    text = ids(96, 24)  # many: of a few tokens' rounding, either side may have the less by chance
    got, want, true = ours(text), peft(text).logits, exact(text)
    assert got.dtype == torch.bfloat16
    error, theirs_error = (((y.float() - true) ** 2).mean().item() for y in (got, want))
    assert error <= 1.1 * theirs_error


def test_one_seed_gives_one_beginning():
    values = []
    for _ in range(2):
        model = tiny()
        torch.manual_seed(3)
        qk.add_lora(model)
        values.append(torch.cat([one.lora_A.weight for one in lora_layers(model).values()]))
        assert not any(one.lora_B.weight.any() for one in lora_layers(model).values())
    assert torch.equal(*values)
    assert 0 < values[0].abs().max() <= 1 / 32**0.5  # uniform, to 1 / sqrt(inputs)


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
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in plain.items())


def test_dropout_acts_in_training_alone():
    model = tiny()
    qk.add_lora(model, rank=4, dropout=0.5, targets=ALL)
    trained(model)
    text = ids(1, 6)
    assert torch.equal(model(text), model(text))
    model.train()
    assert not torch.equal(model(text), model(text))


# --- merging ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_merged_computes_the_same_and_unmerging_gives_the_very_bits_back(dtype):
    model = pair(dtype=dtype)[1]
    plain = {n: p.clone() for n, p in model.named_parameters()}
    qk.add_lora(model, rank=3, targets=ALL)
    trained(model)
    text = ids(2, 9)
    open_, cache = model(text), qk.KVCache(model.config, 2, 16)
    qk.merge_lora(model)
    changed = [
        n for n, p in model.named_parameters() if n in plain and not torch.equal(p, plain[n])
    ]
    assert len(changed) == 3 * len(ALL)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1  # a bfloat16 weight rounds the sum
    assert ((model(text) - open_).norm() / open_.norm()).item() < tolerance
    step = torch.cat([model(text[:, :4], cache=cache), model(text[:, 4:], cache=cache)], dim=1)
    assert ((step - open_).norm() / open_.norm()).item() < tolerance
    qk.merge_lora(model)  # once more changes nothing
    qk.unmerge_lora(model)
    for name, value in plain.items():
        assert torch.equal(model.get_parameter(name), value), name
    assert torch.equal(model(text), open_)


def test_what_is_merged_is_not_trained_and_what_is_unmerged_is_again():
    model = tiny()
    qk.add_lora(model)
    qk.merge_lora(model)
    with pytest.raises(InputError, match="no parameter requires a gradient"):
        qk.train.make_optimizer(model)
    qk.unmerge_lora(model)
    assert all(one.lora_A.weight.requires_grad for one in lora_layers(model).values())


def test_removing_gives_the_old_model_and_after_merging_the_new_one(tmp_path):
    text = ids(1, 8)
    for merge in (False, True):
        model = tiny()
        names, before = list(model.state_dict()), model(text)
        qk.add_lora(model, targets=ALL)
        trained(model)
        learned = model(text)
        if merge:
            qk.merge_lora(model)
        qk.remove_lora(model)
        assert not lora_layers(model)
        assert list(model.state_dict()) == names
        assert {type(m) for m in model.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
        if merge:
            assert relative_error(model(text), learned) < 1e-5
            qk.save_pretrained(model, tmp_path)
            again = qk.load_model(tmp_path, dtype=None)
            assert torch.equal(again(text), model(text))
        else:
            assert torch.equal(model(text), before)


def test_traces_caches_and_generation_see_lora():
    model = tiny()
    text = ids(1, 6)
    plain = [step.token_id for step in qk.generate(model, text, max_new_tokens=8)]
    qk.add_lora(model, rank=4, targets=ALL)
    trained(model)
    trace = qk.Trace(keep=("attn.q",))
    model(text, trace=trace)
    layer = model.get_submodule("model.layers.1.self_attn.q_proj")
    qk.merge_lora(model)
    merged = qk.Trace(keep=("attn.q",))
    model(text, trace=merged)
    name = "layers.1.attn.q"
    torch.testing.assert_close(merged[name], trace[name], rtol=1e-4, atol=1e-4)
    assert layer.merged
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
    "half a rank": ({"rank": 1.5}, "rank is 1.5"),
    "True": ({"rank": True}, "rank is True"),
    "alpha 0": ({"alpha": 0}, "alpha is 0; it must be a number above 0"),
    "alpha infinite": ({"alpha": float("inf")}, "alpha is inf"),
    "alpha a word": ({"alpha": "16"}, "alpha is '16'"),
    "dropout 1": ({"dropout": 1.0}, "dropout is 1.0; it must be a number from 0 to below 1"),
    "dropout below 0": ({"dropout": -0.1}, "dropout is -0.1"),
    "a word": ({"targets": "q_proj"}, "targets is 'q_proj'; it must be some of q_proj"),
    "nothing": ({"targets": ()}, "targets is ()"),
    "a wrong name": ({"targets": ("q_proj", "query")}, "it must be some of"),
    "a tied head": ({"targets": ("lm_head",)}, "lm_head, which this model does not have"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused_and_changes_nothing(case):
    arguments, words = BAD[case]
    model = tiny(tie_word_embeddings=True)
    model.requires_grad_(True)
    with pytest.raises(InputError) as caught:
        qk.add_lora(model, **arguments)
    assert words in str(caught.value)
    assert not lora_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_twice_or_beside_int8_or_without_lora_is_refused(tmp_path):
    model = tiny()
    for change in (qk.merge_lora, qk.unmerge_lora, qk.remove_lora):
        with pytest.raises(InputError, match="has no LoRA; add_lora"):
            change(model)
    qk.add_lora(model)
    with pytest.raises(InputError, match="has LoRA already; remove_lora"):
        qk.add_lora(model)
    with pytest.raises(InputError, match="has LoRA, which int8 would lose"):
        qk.quantize(model)
    with pytest.raises(InputError, match="save_adapter"):
        qk.save_pretrained(model, tmp_path)
    assert not list(tmp_path.iterdir())
    qk.remove_lora(model)
    qk.quantize(model)
    with pytest.raises(InputError, match="q_proj is a Int8Linear; LoRA needs a Linear"):
        qk.add_lora(model)


def test_an_untied_head_can_have_lora():
    model = tiny()
    qk.add_lora(model, targets=("lm_head",))
    assert list(lora_layers(model)) == ["lm_head"]
    text = ids(1, 5)
    before = model(text)
    trained(model)
    assert not torch.equal(model(text), before)
