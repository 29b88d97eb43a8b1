"""AdamW's groups: which parameters decay, which do not, and which are left out."""

import pytest
import torch
from small import small_model

from qwenkit.errors import InputError
from qwenkit.train import make_optimizer
from qwenkit.train.optimizer import remembered


def groups(model, **options):
    """Return the names of each weight decay's parameters; each may be in one group only."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in make_optimizer(model, **options).param_groups:
        names = [name_of[id(parameter)] for parameter in group["params"]]
        assert len(set(names)) == len(names)
        assert group["weight_decay"] not in found
        found[group["weight_decay"]] = set(names)
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_matrices_decay_and_biases_and_norms_do_not(tied):
    layers = [f"model.layers.{i}" for i in range(2)]
    matrices = {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    matrices |= {f"{at}.self_attn.{x}_proj.weight" for at in layers for x in "qkvo"}
    matrices |= {f"{at}.mlp.{x}_proj.weight" for at in layers for x in ("gate", "up", "down")}
    others = {f"{at}.self_attn.{x}_proj.bias" for at in layers for x in "qkv"}
    others |= {f"{at}.{x}_layernorm.weight" for at in layers for x in ("input", "post_attention")}
    found = groups(small_model(tie_word_embeddings=tied), weight_decay=0.1)
    assert found == {0.1: matrices, 0.0: others | {"model.norm.weight"}}


def test_frozen_parameters_are_left_out_and_stay_as_they_are():
    model = small_model().requires_grad_(False)
    with pytest.raises(InputError, match=r"requires_grad_\(True\) unfreezes them"):
        make_optimizer(model)
    model.model.layers[1].mlp.requires_grad_(True)
    wanted = {f"model.layers.1.mlp.{x}_proj.weight" for x in ("gate", "up", "down")}
    assert groups(model, weight_decay=0.1) == {0.1: wanted}  # and no empty group
    optimizer = make_optimizer(model)
    model(torch.arange(8)[None]).square().sum().backward()
    optimizer.step()
    before = small_model().state_dict()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == wanted


def test_options_reach_adamw_and_decay_pulls_matrices_towards_zero_where_no_gradient_does():
    model = small_model()
    for parameter in model.parameters():
        parameter.data.fill_(2.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(model, learning_rate=0.1, weight_decay=0.5, betas=(0.8, 0.7))
    optimizer.step()
    for name, parameter in model.named_parameters():
        want = 2.0 * (1 - 0.1 * 0.5) if parameter.dim() == 2 else 2.0
        torch.testing.assert_close(parameter, torch.full_like(parameter, want), msg=name)
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.8, 0.7), 1e-8)
        assert not group["amsgrad"]


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_the_layers_matrices_and_adamw_the_rest_as_both_do_alone(tied):
    model, other = (small_model(tie_word_embeddings=tied) for _ in range(2))
    optimizer = make_optimizer(model, learning_rate=1e-2, weight_decay=0.2, muon=True)
    hidden = [n for n, p in other.named_parameters() if p.dim() == 2 and ".layers." in n]
    theirs = dict(other.named_parameters())
    alone = (
        torch.optim.Muon([theirs[n] for n in hidden], lr=1e-2, weight_decay=0.2,
                         adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for n, p in theirs.items() if n not in hidden and p.dim() > 1],
                          lr=1e-2, weight_decay=0.2, betas=(0.9, 0.95), fused=True),
        torch.optim.AdamW([p for p in theirs.values() if p.dim() < 2], lr=1e-2, weight_decay=0.0,
                          betas=(0.9, 0.95), fused=True),
    )  # fmt: skip
    for step in range(4):
        rate = 1e-2 / (step + 1)  # a schedule reaches both
        for group in (*optimizer.param_groups, *(g for one in alone for g in one.param_groups)):
            group["lr"] = rate
        for one in (model, other):
            one(torch.arange(8)[None] + step).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for one in alone:
            one.step()
            one.zero_grad()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, theirs[name], rtol=1e-5, atol=1e-6)
    stored = {id(p): set(state) for p, state in optimizer.state.items()}
    for name, parameter in model.named_parameters():
        assert stored[id(parameter)] == set(remembered(optimizer, parameter))
        assert (remembered(optimizer, parameter) == ("momentum_buffer",)) == (name in hidden)


def test_muon_trains_float32_weights_alone():
    with pytest.raises(InputError, match="Muon trains float32 weights; load the model in float32"):
        make_optimizer(small_model().bfloat16(), muon=True, master_weights=True)
