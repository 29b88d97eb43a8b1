"""What is begun under torch.inference_mode goes on outside of it."""

import pytest
import torch
from fixtures_toy import toy_of

import qwenkit as qk
from qwenkit.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_of(tmp_path_factory, tied=False)


@pytest.fixture(scope="module")
def toy(folder):
    return qk.load_pretrained(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("rows", [1, 2])
def test_a_cache_goes_on(toy, rows):
    cache, ids = qk.KVCache(toy[0].config, rows, 8), IDS.expand(rows, 4)
    with torch.inference_mode():
        toy[0](ids, cache=cache)
        cache.reorder(range(rows))
    with torch.no_grad():
        logits = toy[0](ids[:, :1], cache=cache)
        want = toy[0](torch.cat([ids, ids[:, :1]], dim=1))[:, -1:]
    torch.testing.assert_close(logits, want)


def test_a_conversation_and_a_stepper_go_on(toy):
    alone, talk = qk.Conversation(*toy), qk.Conversation(*toy)
    with torch.inference_mode():
        talk.say("a", max_new_tokens=3)
        stepper = qk.widgets.GenerationStepper(*toy, "def f")
    alone.say("a", max_new_tokens=3)
    assert talk.say("b", max_new_tokens=3) == alone.say("b", max_new_tokens=3)
    stepper.choose(path=[stepper.view.choices()[0][0]], at=1)
    assert stepper.view.cache.length == stepper.view.cached()


def test_what_was_recorded_can_be_written_and_differentiated(toy):
    trace = qk.Trace(keep=("resid_post",))
    with torch.inference_mode():
        toy[0](IDS, trace=trace)
    value = trace["layers.0.resid_post"].add_(1)
    assert trace["layers.0.resid_post"] is value
    value.requires_grad_().sum().backward()
    assert value.grad is not None


def test_a_model_that_was_loaded_there_trains(folder):
    with torch.inference_mode():
        model = qk.load_model(folder, device="cpu", dtype="float32")
    qk.add_lora(model, rank=2)
    model(IDS).sum().backward()
    assert any(one.grad is not None for one in model.parameters())


def test_a_cache_of_another_dtype_is_refused(toy, folder):
    cache = qk.KVCache(toy[0].config, 1, 8)
    with torch.no_grad():
        toy[0](IDS, cache=cache)
        other = qk.load_model(folder, device="cpu", dtype="bfloat16")
        with pytest.raises(InputError, match=r"torch.float32 on cpu and the model gives"):
            other(IDS[:, :1], cache=cache)
    assert cache.length == 4
