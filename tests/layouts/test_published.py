"""Each published layout: ids, text, logits and generation as in transformers; saving keeps it."""

import json
import unicodedata

import pytest
import torch
import transformers
from against_transformers import TALKS, TEXTS, TOOL, Both, changed, parts, resaved, tensors
from folder_parts import FIRST
from peft import LoraConfig, PeftModel, get_peft_model
from published_folders import LAYOUTS
from transformers import AutoTokenizer, GenerationConfig

import qwenkit as qk

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def area(w, h):\n    return"
WEIGHT = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda build: build.__name__)
def both(request, tmp_path_factory):
    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("layout") / request.param.__name__
    folder.mkdir()
    request.param(folder)
    return Both(folder)


def test_ids_and_texts(both):
    ours, theirs = both.tokenizer, both.hf_tokenizer
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.num_tokens == max(theirs.get_vocab().values()) + 1


def test_text_from_others_holds_no_control_token(both):
    """All its letters are there as letters; only a BOS of the post-processor may come first."""
    control = set(both.hf_tokenizer.get_added_vocab().values())
    begin = both.hf_tokenizer("").input_ids
    for text in TEXTS:
        ids = both.tokenizer.encode(text, special=False)
        ids = ids[len(begin) :] if begin and ids[: len(begin)] == begin else ids
        assert not set(ids) & control
        assert both.tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("talk", TALKS)
def test_chats(both, talk):
    for theirs, ours in both.chats(talk):
        assert ours == theirs


def test_logits_of_a_batch_padded_on_the_left(both):
    prompts = [both.hf_tokenizer(text).input_ids for text in (PROMPT, "x = 面", "a")]
    width = max(map(len, prompts))
    ids = torch.tensor([[both.hf_tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        theirs = both.hf_model(ids, attention_mask=mask, position_ids=places).logits
        ours = both.model(ids, attention_mask=mask)
    torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], atol=1e-5, rtol=1e-5)


def greedy(both, text, penalty=1.0, **options):
    """Return the new tokens of transformers, which reads its defaults from the folder, and ours."""
    ids = both.hf_tokenizer(text, return_tensors="pt").input_ids
    theirs = both.hf_model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
        repetition_penalty=penalty, **options,
    )  # fmt: skip
    steps = qk.generate(both.model, ids, 12, repetition_penalty=penalty)
    return theirs[0, ids.shape[1] :].tolist(), [step.token_id for step in steps]


@pytest.mark.parametrize(("text", "penalty"), [(PROMPT, 1), (PROMPT, 1.1), ("<|im_start|>", 1)])
def test_greedy_generation(both, text, penalty):
    theirs, ours = greedy(both, text, float(penalty))
    assert ours == theirs


def test_generation_stops_where_it_does_in_transformers(both):
    """Each stop token is given the weights of the fourth new token, so that it comes fourth."""
    found = both.hf_model.generation_config.eos_token_id
    stops = found if isinstance(found, list) else [found]
    own = both.hf_tokenizer.eos_token_id  # what a tuned tokenizer ends a turn with may count too
    assert set(stops) <= set(both.model.stop_ids) <= {*stops, own}
    fourth = greedy(both, PROMPT, eos_token_id=None)[0][3]
    for stop in stops:
        swap(both, stop, fourth)
        theirs, ours = greedy(both, PROMPT)
        swap(both, stop, fourth)
        assert ours == theirs
        assert ours.index(stop) == len(ours) - 1 <= 3


def swap(both, one, other):
    """Let two tokens change their rows in the embedding, and in the head where it is not tied."""
    with torch.no_grad():
        for weight in (*both.model.parameters(), *both.hf_model.parameters()):
            if weight.shape[0] == both.model.config.vocab_size:
                weight[[one, other]] = weight[[other, one]]


def test_load_and_save_is_the_identity(both, tmp_path):
    """All of a checkpoint and none of the papers; and transformers makes the same of it."""
    saved = Both(resaved(both.folder, tmp_path))
    assert changed(both.folder, saved.folder) == []
    assert {file.name for file in tmp_path.iterdir() if file.name[0] != "."} == parts(both.folder)
    ids, texts = [], []
    for hf in (both.hf_tokenizer, saved.hf_tokenizer):
        ids.append(hf(list(TEXTS)).input_ids)
        talk = TALKS["calls and replies"]
        texts.append(hf.apply_chat_template(talk, tools=[TOOL], tokenize=False))
    assert ids[0] == ids[1]
    assert texts[0] == texts[1]
    with torch.no_grad():
        here, there = (b.hf_model(torch.tensor([ids[0][3]])).logits for b in (both, saved))
    assert torch.equal(here, there)
    defaults = [b.hf_model.generation_config.to_diff_dict() for b in (both, saved)]
    assert defaults[0] == defaults[1]


def half(model, tokenizer):
    with torch.no_grad():
        model.get_parameter(WEIGHT)[3, 5] = 0.5


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m, t: setattr(m, "stop_ids", (FIRST + 4,)), "generation_config.json: eos_token_id"),
        (lambda m, t: setattr(t, "chat_template", "{{ messages[0].content }}!"), "chat_template"),
        (half, WEIGHT),
    ],
)
def test_what_was_changed_alone_differs(both, change, what, tmp_path):
    saved = resaved(both.folder, tmp_path, change)
    if what == "chat_template":
        own = (both.folder / "chat_template.jinja").exists()
        what = f"{what}.jinja" if own else f"tokenizer_config.json: {what}"
        hf = AutoTokenizer.from_pretrained(saved)
        text = hf.apply_chat_template(TALKS["one message"], tokenize=False)
        assert text == TALKS["one message"][0]["content"] + "!"
    elif what == WEIGHT:
        differs = tensors(saved)[WEIGHT] != tensors(both.folder)[WEIGHT]
        assert differs.nonzero().tolist() == [[3, 5]]
    else:
        assert GenerationConfig.from_pretrained(saved).eos_token_id in (FIRST + 4, [FIRST + 4])
    assert changed(both.folder, saved) == [what]


def test_float32_weights_say_so_in_the_config(both, tmp_path):
    saved = resaved(both.folder, tmp_path, dtype="float32")
    config, before = (json.loads((f / "config.json").read_text()) for f in (saved, both.folder))
    spelling = "dtype" if "dtype" in before else "torch_dtype"
    assert config == {**before, spelling: "float32"}
    assert list(config) == list(before)


def test_an_adapter(both, tmp_path):
    """As PEFT saves it and unsloth marks it: logits are PEFT's; load and save keep its files."""
    base = transformers.Qwen2ForCausalLM.from_pretrained(both.folder, dtype=torch.float32)
    made = get_peft_model(base, LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.05, task_type="CAUSAL_LM", use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False,
    ))  # fmt: skip
    made.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    parent = {"base_model_class": "Qwen2ForCausalLM", "unsloth_fixed": True}
    file.write_text(json.dumps(
        {**json.loads(file.read_text()), "auto_mapping": parent, "init_lora_weights": True}
    ))  # fmt: skip
    ids = both.hf_tokenizer(PROMPT, return_tensors="pt").input_ids
    ours = qk.load_pretrained(both.folder, dtype="float32")[0]
    qk.load_adapter(ours, file.parent)
    qk.save_adapter(ours, tmp_path / "saved")
    with torch.no_grad():
        theirs = made.eval()(ids).logits
        torch.testing.assert_close(ours(ids), theirs, atol=2e-5, rtol=1e-5)
        again = PeftModel.from_pretrained(made.unload(), tmp_path / "saved").eval()
        assert torch.equal(again(ids).logits, theirs)
    saved = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert list(saved.items()) == list(json.loads(file.read_text()).items())
