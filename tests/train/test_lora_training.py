"""Training LoRA: a resumed training equals an uninterrupted one, and stores only the adapter."""

import copy
import json

import pytest
import small
import torch
from safetensors.torch import load_file
from small import held_out_loss, small_model, small_trainer

import qwenkit as qk
from qwenkit.errors import TrainingError
from qwenkit.fast import swap
from qwenkit.lora import lora_layers
from qwenkit.train import KeepModel, SaveTraining, load_training, save_training

ALL = ("q_proj", "v_proj", "down_proj")


def lora_model(seed=0, base=0, fast=False, **settings):
    """Return a model with LoRA; `seed` is that of A, `base` that of the frozen weights."""
    model = small_model(seed=base)
    if fast:
        swap(model)
    torch.manual_seed(seed)
    qk.add_lora(model, **{"rank": 3, "alpha": 6, "dropout": 0.2, "targets": ALL, **settings})
    return model


@pytest.mark.parametrize("fast", [False, True], ids=["as taught", "accelerated"])
def test_a_resumed_training_equals_an_uninterrupted_one_and_keeps_the_adapter(tmp_path, fast):
    def make(folder, record, again):
        keep = KeepModel(folder / "model", small.tokenizer())
        callbacks = (record, keep, SaveTraining(folder / "checkpoints", keep=1))
        options = {"model": lora_model(99 * again, fast=fast), "evaluate_every": 2}
        return small_trainer(*callbacks, evaluate=held_out_loss, **options)

    whole, _ = small.resumed(tmp_path, make, 5)
    rows = whole.callbacks[0].rows
    assert rows[-1][2] < rows[0][2]
    for name, weight in small_model().named_parameters():
        assert torch.equal(whole.model.get_parameter(name), weight), name
    names = {"adapter_config.json", "adapter_model.safetensors"}
    assert {path.name for path in (tmp_path / "parts" / "model").iterdir()} == names
    best = small_model()
    qk.load_adapter(best, tmp_path / "whole" / "model")
    found = min(row[5].loss for row in rows if row[5])
    assert held_out_loss(best.eval()).loss == pytest.approx(found, rel=1e-6)


PATTERNS = {"alpha_pattern": {"q_proj": 5, "v_proj": 2.1}, "use_rslora": True}


def test_a_training_begun_from_an_adapter_of_several_alphas_is_resumed(tmp_path):
    qk.save_adapter(lora_model(), tmp_path / "start")
    config = tmp_path / "start" / "adapter_config.json"
    plain = json.loads(config.read_text())

    def begun(**changes):
        config.write_text(json.dumps({**plain, **PATTERNS, **changes}))
        model = small_model()
        qk.load_adapter(model, tmp_path / "start", trainable=True)
        return small_trainer(model=model)

    trainer = begun()
    trainer.train_step()
    save_training(tmp_path / "saved", trainer)
    want, then = trainer.train_step().loss, begun()
    assert load_training(tmp_path / "saved", then) == 1
    assert then.train_step().loss == want
    assert small.same_weights(then.model, trainer.model)
    for changes in ({"alpha_pattern": {"q_proj": 5}}, {"use_rslora": False}):
        with pytest.raises(TrainingError, match="another alpha"):
            load_training(tmp_path / "saved", begun(**changes))


def test_a_checkpoint_holds_the_adapter_and_not_the_frozen_weights(tmp_path):
    trainer = small_trainer(model=lora_model())
    trainer.train_step()
    folder = save_training(tmp_path, trainer)
    assert {file.name for file in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "base.json", "optimizer.safetensors",
        "state.json",
    }  # fmt: skip
    names = load_file(folder / "optimizer.safetensors").keys() - {"random_state"}
    layers = {name.partition(".")[2].rpartition(".lora_")[0] for name in names}
    assert layers == set(lora_layers(trainer.model))


@pytest.mark.parametrize(("make", "options", "message"), [
    (lora_model, {"base": 7}, "belongs to other frozen weights"),
    (lora_model, {"rank": 2}, "another rank"), (lora_model, {"alpha": 7}, "another alpha"),
    (lora_model, {"targets": ("q_proj",)}, "other targets"),
    (small_model, {}, "it trained LoRA, this one trains all weights"),
    (lora_model, {}, "it trained all weights, this one trains LoRA"),
])  # fmt: skip
def test_another_model_is_refused_and_unchanged(tmp_path, make, options, message):
    trainer = small_trainer(model=small_model() if "trained all" in message else lora_model())
    trainer.train_step()
    save_training(tmp_path, trainer)
    other = small_trainer(model=make(**options))
    before = copy.deepcopy(other.model)
    with pytest.raises(TrainingError, match=message):
        load_training(tmp_path, other)
    assert small.same_weights(other.model, before)
