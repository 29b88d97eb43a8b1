"""Each published layout: ids, text, logits and generation as in transformers; saving keeps it."""

import json
import unicodedata

import pytest
import torch
import transformers
from against_transformers import TALKS, TEXTS, TOOL, Both, changed, parts, resaved, tensors
from peft import LoraConfig, PeftModel, get_peft_model
from published_folders import CONTROL, FIRST, LAYOUTS
from transformers import AutoTokenizer, GenerationConfig

import qwenkit as qk

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "def area(w, h):\n    return"


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda build: build.__name__)
def both(request, tmp_path_factory):
    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp(request.param.__name__)
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
    assert ours.special == dict(sorted(theirs.get_added_vocab().items(), key=lambda item: item[1]))


def test_text_from_others_holds_no_control_token(both):
    """All its letters are there as letters; only a BOS of the post-processor may come first."""
    added = set(both.hf_tokenizer.get_added_vocab().values())
    begin = both.hf_tokenizer("").input_ids
    for text in TEXTS:
        ids = both.tokenizer.encode(text, special=False)
        ids = ids[len(begin) :] if begin and ids[: len(begin)] == begin else ids
        assert not set(ids) & added
        assert both.tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("tools", [None, [TOOL]], ids=["", "tools"])
def test_chat_texts(both, talk, tools):
    for prompt in (True, False):
        theirs = both.hf_tokenizer.apply_chat_template(
            TALKS[talk], tools=tools, add_generation_prompt=prompt, tokenize=False
        )
        assert both.tokenizer.chat(TALKS[talk], prompt, tools) == theirs


def test_special_tokens(both):
    """Templates see them, and they say what ends and what pads."""
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    seen = "|".join(f"{{{{ {name} }}}}" for name in names)
    ours, theirs = qk.Tokenizer(both.folder), AutoTokenizer.from_pretrained(both.folder)
    ours.chat_template = theirs.chat_template = seen
    talk = TALKS["one message"]
    assert ours.chat(talk) == theirs.apply_chat_template(talk, tokenize=False)


def test_logits_of_a_batch_padded_on_the_left(both):
    prompts = [both.tokenizer.encode(text) for text in (PROMPT, "x = 面", "a")]
    width = max(map(len, prompts))
    ids = torch.tensor([[both.hf_tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        theirs = both.hf_model(ids, attention_mask=mask, position_ids=places).logits
        ours = both.model(ids, attention_mask=mask)
    torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], atol=1e-5, rtol=1e-5)


def greedy(both, ids, penalty=1.0, **options):
    """Return the new tokens of transformers, which reads its defaults from the folder, and ours."""
    hf = both.hf_model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), do_sample=False,
        max_new_tokens=12, repetition_penalty=penalty, **options,
    )  # fmt: skip
    steps = qk.generate(both.model, ids, 12, repetition_penalty=penalty)
    return hf[0, len(ids) :].tolist(), [step.token_id for step in steps]


def test_greedy_generation(both):
    for text, penalty in ((PROMPT, 1.0), (PROMPT, 1.1), (TEXTS[7], 1.0)):
        theirs, ours = greedy(both, both.tokenizer.encode(text), penalty)
        assert ours == theirs


def test_generation_stops_where_it_does_in_transformers(both):
    """Each stop token is given the weights of the fourth token, so that it comes fourth."""
    ids = both.tokenizer.encode(PROMPT)
    found = GenerationConfig.from_pretrained(both.folder).eos_token_id
    stops = found if isinstance(found, list) else [found]
    own = both.hf_tokenizer.eos_token_id  # what a tuned tokenizer ends a turn with may count too
    assert set(stops) <= set(both.model.stop_ids) <= {*stops, own}
    free = both.hf_model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)),
                                  do_sample=False, max_new_tokens=4, eos_token_id=None,
                                  repetition_penalty=1.0)[0, len(ids) :].tolist()  # fmt: skip
    for stop in stops:
        for model in (both.model, both.hf_model):
            swap(model, stop, free[3])
        theirs, ours = greedy(both, ids)
        for model in (both.model, both.hf_model):
            swap(model, stop, free[3])
        assert ours == theirs
        assert len(ours) <= 4
        assert ours[-1] == stop


def swap(model, one, other):
    """Let two tokens change their rows in the embedding, and in the head where it is not tied."""
    rows = [p for p in model.parameters() if p.shape[0] == model.config.vocab_size]
    with torch.no_grad():
        for weight in rows:
            weight[[one, other]] = weight[[other, one]]


def test_load_and_save_is_the_identity(both, tmp_path):
    """All of a checkpoint, none of the papers; and transformers makes the same of it."""
    saved = resaved(both.folder, tmp_path)
    assert changed(both.folder, saved) == []
    assert {file.name for file in saved.iterdir() if file.name[0] != "."} == parts(both.folder)
    again = Both(saved)
    for text in TEXTS:
        assert again.hf_tokenizer(text).input_ids == both.hf_tokenizer(text).input_ids
    talk = TALKS["calls and replies"]
    texts = [
        b.hf_tokenizer.apply_chat_template(talk, tools=[TOOL], tokenize=False)
        for b in (both, again)
    ]
    assert texts[0] == texts[1]
    ids = torch.tensor([both.hf_tokenizer(PROMPT).input_ids])
    with torch.no_grad():
        assert torch.equal(again.hf_model(ids).logits, both.hf_model(ids).logits)
    assert again.hf_model.generation_config.to_diff_dict() == (
        both.hf_model.generation_config.to_diff_dict()
    )


def test_stop_ids_alone_change(both, tmp_path):
    saved = resaved(both.folder, tmp_path, lambda m, t: setattr(m, "stop_ids", (FIRST + 4,)))
    assert changed(both.folder, saved) == ["generation_config.json: eos_token_id"]
    assert GenerationConfig.from_pretrained(saved).eos_token_id in (FIRST + 4, [FIRST + 4])


def test_the_template_alone_changes(both, tmp_path):
    mine = "{% for m in messages %}{{ m.content }}!{% endfor %}"
    saved = resaved(both.folder, tmp_path, lambda m, t: setattr(t, "chat_template", mine))
    own = (both.folder / "chat_template.jinja").exists()
    file = "chat_template.jinja" if own else "tokenizer_config.json: chat_template"
    assert changed(both.folder, saved) == [file]
    again = AutoTokenizer.from_pretrained(saved)
    assert again.apply_chat_template(TALKS["one message"], tokenize=False) == "Wie groß? <b>!"


def test_one_weight_alone_changes(both, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"

    def change(model, tokenizer):
        with torch.no_grad():
            model.get_parameter(name)[3, 5] = 0.5

    saved = resaved(both.folder, tmp_path, change)
    assert changed(both.folder, saved) == [name]
    apart = tensors(saved)[name] != tensors(both.folder)[name]
    assert apart.nonzero().tolist() == [[3, 5]]


def test_float32_weights_say_so_in_the_config(both, tmp_path):
    saved = resaved(both.folder, tmp_path, dtype="float32")
    config, before = (json.loads((f / "config.json").read_text()) for f in (saved, both.folder))
    spelling = "dtype" if "dtype" in before else "torch_dtype"
    assert config == {**before, spelling: "float32"}
    assert list(config) == list(before)


@pytest.mark.parametrize("tool", ["peft", "unsloth"])
def test_an_adapter_of_peft(both, tool, tmp_path):
    """Its logits are PEFT's, and load and save keep its files."""
    torch.manual_seed(1)
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(both.folder, dtype=torch.float32)
    targets = ["q_proj", "v_proj", "down_proj"]
    made = get_peft_model(theirs, LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.05, target_modules=targets, task_type="CAUSAL_LM",
        use_rslora=tool == "unsloth", inference_mode=False,
    ))  # fmt: skip
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(tmp_path / "adapter")
    if tool == "unsloth":
        file = tmp_path / "adapter" / "adapter_config.json"
        config = json.loads(file.read_text())
        parent = {"base_model_class": "Qwen2ForCausalLM",
                  "parent_library": "transformers.models.qwen2.modeling_qwen2",
                  "unsloth_fixed": True}  # fmt: skip
        file.write_text(json.dumps({**config, "auto_mapping": parent}, indent=2))
    ids = torch.tensor([both.hf_tokenizer(PROMPT).input_ids])
    ours = qk.load_pretrained(both.folder, dtype="float32")[0]
    qk.load_adapter(ours, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), made.eval()(ids).logits, atol=1e-5, rtol=1e-5)
    qk.save_adapter(ours, tmp_path / "saved")
    config, saved = (
        json.loads((tmp_path / where / "adapter_config.json").read_text())
        for where in ("adapter", "saved")
    )
    assert saved == config
    assert list(saved) == list(config)
    del config, saved
    base = transformers.Qwen2ForCausalLM.from_pretrained(both.folder, dtype=torch.float32)
    again = PeftModel.from_pretrained(base, tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(again(ids).logits, made(ids).logits)


def test_the_layouts_are_what_they_are_called(both):
    """What sets each apart, so that an edit of the builders does not lose it."""
    config = json.loads((both.folder / "config.json").read_text())
    theirs = both.hf_tokenizer
    facts = {
        "coder_base": config["tie_word_embeddings"] and theirs.eos_token == CONTROL[0],
        "coder_instruct": len(list(both.folder.glob("*.safetensors"))) == 4,
        "r1_distill": (both.folder / "model-00001-of-000002.safetensors").exists(),
        "r1_tuned": theirs("a").input_ids[0] == FIRST + 3,
        "finetune_4": (both.folder / "training_args.bin").exists(),
        "finetune_5": "rope_parameters" in config and "dtype" in config,
        "unsloth": theirs.pad_token == "<|vision_pad|>" and theirs.padding_side == "left",
        "axolotl": config["vocab_size"] > len(theirs) and config["use_cache"] is False,
    }
    assert facts[both.folder.name[:-1]]
