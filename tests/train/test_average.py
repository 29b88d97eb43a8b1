"""The mean of models is that of their weights, and nothing else is averaged."""

import copy

import pytest
import torch
from reference import ids, tiny

import qwenkit as qk
from qwenkit.cli import main
from qwenkit.errors import InputError
from qwenkit.train import average


def further(model, seed=1):
    """Return what more training could have made of a model."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return other


@pytest.mark.parametrize("shares", [None, (0.3, 0.7), (0.25, 0.25, 0.5), (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("tied", [True, False])
def test_each_weight_is_the_weighted_mean(shares, tied):
    models = [tiny(tie_word_embeddings=tied)]
    models += [further(models[0], seed) for seed in range(1, len(shares or (1, 1)))]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    mean = average(models, shares)
    own = shares or [0.5, 0.5]
    for name, weight in mean.state_dict().items():
        want = sum(share * state[name].double() for share, state in zip(own, before, strict=True))
        assert torch.allclose(weight.double(), want, atol=1e-6), name
    for model, state in zip(models, before, strict=True):  # the others are as they were
        assert all(torch.equal(model.state_dict()[name], old) for name, old in state.items())
    assert (mean.lm_head is None) == tied


def test_the_mean_of_equal_models_is_that_model():
    model = tiny()
    assert torch.allclose(average([model, model])(ids(1, 5)), model(ids(1, 5)), atol=1e-6)


def with_lora(model):
    qk.add_lora(model)
    return model


WRONG = [
    (lambda m: average([m]), "models holds QwenForCausalLM; it must hold at least two"),
    (lambda m: average(m), "models holds QwenForCausalLM; it must hold at least two"),
    (lambda m: average([]), "models holds nothing; it must hold at least two"),
    (lambda m: average([m, "folder"]), "models holds QwenForCausalLM, str; it must hold"),
    (lambda m: average([m, m], 0.5), "shares is 0.5; it must have a number above 0 for each"),
    (lambda m: average([m, m], "ab"), "shares is 'ab'; it must have a number above 0 for each"),
    (lambda m: average([m, m], [0.5]), r"shares is \[0.5\]; it must have a number above"),
    (lambda m: average([m, m], [0.5, 0.6]), "their sum must be 1"),
    (lambda m: average([m, m], [1.0, 0.0]), "a number above 0"),
    (lambda m: average([m, m], [float("nan"), 0.5]), "a number above 0"),
    (lambda m: average([m, tiny(num_hidden_layers=1)]), "model 2 has another config"),
    (lambda m: average([m, copy.deepcopy(m).bfloat16()]), "model 2 holds bfloat16; load it with"),
    (lambda m: average([m, with_lora(copy.deepcopy(m))]), "model 2 has .*other parts"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_has_no_mean_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(tiny())


def test_the_command_writes_a_model_with_its_tokenizer(tmp_path, capsys):
    model, tokenizer = qk.load_pretrained(qk.pretrained.EMBEDDED, device="cpu", dtype="float32")
    other = further(model)
    qk.save_pretrained(other, tmp_path / "other", tokenizer)
    folders = [str(qk.pretrained.EMBEDDED), str(tmp_path / "other")]
    given = ["--shares", "0.3", "0.7", "--dtype", "bfloat16", "--out", str(tmp_path / "mean")]
    assert main(["average", *folders, *given]) == 0
    assert str(tmp_path / "mean") in capsys.readouterr().out
    found, again = qk.load_pretrained(tmp_path / "mean", device="cpu")
    assert again.encode("def f(x):") == tokenizer.encode("def f(x):")
    want = average([model, other], [0.3, 0.7]).bfloat16().state_dict()
    assert all(torch.equal(tensor, want[name]) for name, tensor in found.state_dict().items())
    assert main(["average", folders[0], "--out", str(tmp_path / "none")]) == 1
    assert "it must hold at least two QwenForCausalLM" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
