"""Checkpoint folders as they are published, at tiny size: their files, their keys, their order.

Weights, vocabulary and templates are our own; which files there are, what they are called, which
keys they hold and how these are spelled is as in the repositories and tools that each function
names. Where transformers 5 is the tool, transformers itself writes the folder.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Qwen2ForCausalLM

MERGES = (Path(__file__).parents[1] / "toy_merges.txt").read_text(encoding="utf-8").split("\n")[1:]
MERGES = MERGES[:180]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
    "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
    "<|image_pad|> <|video_pad|>"
).split()
MARKS = (  # special: false in the published files
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> "
    "<|repo_name|> <|file_sep|>"
).split()
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
R1_CONTROL = [END, BEGIN, *CONTROL[7:]]
R1_ORDER = [END, "<｜User｜>", "<｜Assistant｜>", BEGIN, "<|EOT|>", "<think>", "</think>"]

# The shape of Qwen2.5's own: tools as JSON, calls, and replies of tools that share one turn.
QWEN_TEMPLATE = """\
{%- set turn = '<|im_start|>' %}
{%- set first = messages[0]['content'] if messages[0]['role'] == 'system' else 'Be a test.' %}
{%- if tools %}
    {{- turn + 'system\\n' + first + "\\n\\n# Functions\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\nAnswer as {"name": <name>, "arguments": <object>}<|im_end|>\\n' }}
{%- else %}
    {{- turn + 'system\\n' + first + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- turn + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- turn + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- turn + 'user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- turn + 'assistant\\n' }}
{%- endif %}
"""
# R1's: a namespace, the tokenizer's own bos_token, and replies without their thoughts.
R1_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{% endif %}{% set ns = namespace(system='', tool=false) %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{%- endif %}"
    "{%- endfor %}{{bos_token}}{{ns.system}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.tool = false -%}"
    "{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' %}"
    "{% set said = message['content'] if message['content'] is not none else '' %}"
    "{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + said}}{%- for call in message['tool_calls'] %}"
    "{{'\\n' + call['function']['name'] + '```json' + '\\n'}}{%- endfor %}{{eos_token}}"
    "{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.tool = true -%}"
    "{{'<|EOT|>' + message['content']}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt and not ns.tool %}{{'<｜Assistant｜>'}}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nAxes and lotl<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_characters() -> list[str]:
    """Return GPT-2's 256 characters of bytes in the order of vocab.json: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]


VOCAB = {token: n for n, token in enumerate([*byte_characters(), *(m.replace(" ", "") for m in MERGES)])}
FIRST = len(VOCAB)  # as 151643 in the published files
ROWS = 512  # as 151936: more than there are tokens


def qwen_tokens() -> dict[int, tuple[str, bool]]:
    """Return id -> (token, special) of Qwen2.5's 22 added tokens."""
    names = [*CONTROL, *MARKS]
    return {FIRST + n: (name, name in CONTROL) for n, name in enumerate(names)}


def r1_tokens() -> dict[int, tuple[str, bool]]:
    """Return the added tokens of R1-Distill-Qwen: its own names at Qwen's ids."""
    names = [*R1_ORDER, *CONTROL[7:], *MARKS]
    return {FIRST + n: (name, name in R1_CONTROL) for n, name in enumerate(names)}


def added(content: str, special: bool | None = None, normalized: bool = False) -> dict:
    """Return an AddedToken as transformers writes it."""
    token = {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False}
    return {**token, "single_word": False, **({} if special is None else {"special": special})}


def write(path: Path, value: object) -> None:
    """Write JSON as transformers does, or a text."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def begins_with(token: str, number: int) -> dict:
    """Return the post-processor that transformers 4 makes of add_bos_token."""
    begin, text, second = {"SpecialToken": {"id": token, "type_id": 0}}, *(
        {"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB")
    )
    again = {"SpecialToken": {"id": token, "type_id": 1}}
    return {
        "type": "TemplateProcessing", "single": [begin, text],
        "pair": [begin, text, again, second],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }  # fmt: skip


def tokenizer_json(tokens: dict[int, tuple[str, bool]], pairs: bool) -> dict:
    """Return tokenizer.json: merges as pairs (tokenizers from 0.20 on) or as strings (before)."""
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    as_bytes["use_regex"] = False
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": n, "content": name, **flags, "special": special}
            for n, (name, special) in tokens.items()
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, as_bytes]},
        "post_processor": as_bytes, "decoder": as_bytes,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": VOCAB,
            "merges": [m.split(" ") for m in MERGES] if pairs else MERGES,
        },
    }  # fmt: skip


def qwen_settings(**changes: object) -> dict:
    """Return the tokenizer_config.json of Qwen2.5, whose keys are sorted; ... removes a key."""
    decoder = {str(n): added(*token) for n, token in qwen_tokens().items()}
    values = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": decoder,
        "additional_special_tokens": CONTROL[1:], "bos_token": None, "chat_template": QWEN_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "errors": "replace",
        "model_max_length": 32768, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    } | changes  # fmt: skip
    return {name: values[name] for name in sorted(values) if values[name] is not ...}


def qwen_config(**changes: object) -> dict:
    """Return the config.json of Qwen2.5-Coder-0.5B, whose keys are sorted; ... removes a key."""
    values = {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": FIRST,
        "eos_token_id": FIRST, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
        "intermediate_size": 48, "max_position_embeddings": 32768, "max_window_layers": 2,
        "model_type": "qwen2", "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.1", "use_cache": True, "use_mrope": False,
        "use_sliding_window": False, "vocab_size": ROWS,
    } | changes  # fmt: skip
    return {name: values[name] for name in sorted(values) if values[name] is not ...}


def write_tokenizer(folder: Path, settings: dict, tokens: dict, *, pairs: bool, slow: bool) -> None:
    """Write tokenizer.json and its settings; `slow`: vocab.json and merges.txt too."""
    write(folder / "tokenizer.json", tokenizer_json(tokens, pairs))
    write(folder / "tokenizer_config.json", settings)
    if slow:
        write(folder / "vocab.json", json.dumps(VOCAB, ensure_ascii=False))
        write(folder / "merges.txt", "\n".join(["#version: 0.2", *MERGES, ""]))


def write_saved_tokens(folder: Path, **special: object) -> None:
    """Write what transformers 4 adds on saving: added_tokens.json and special_tokens_map.json."""
    write(folder / "added_tokens.json", dict(sorted((t, n) for n, (t, _) in qwen_tokens().items())))
    named = {name: added(value) for name, value in special.items()}
    write(folder / "special_tokens_map.json", {"additional_special_tokens": CONTROL[1:], **named})


def write_weights(folder: Path, shards: int = 1, digits: int = 5, counted: bool = False) -> None:
    """Write random bfloat16 weights for the folder's config.json, in one file or several."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
    tensors = dict(model.named_parameters())  # a tied head is not among them
    for name, tensor in tensors.items():
        mean, spread = (1.0, 0.1) if "norm" in name else (0.0, 0.3)
        tensor.data = (mean + spread * torch.randn(tensor.shape)).to(torch.bfloat16)
        if len(tensor) == model.config.vocab_size:
            tensor.data[FIRST + 24 :] = 0  # rows of no token: never the most likely
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, listed = list(tensors), {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:0{digits}}.safetensors"
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        listed |= dict.fromkeys(part, file)
    metadata = {"total_parameters": sum(t.numel() for t in tensors.values())} if counted else {}
    metadata["total_size"] = sum(t.nbytes for t in tensors.values())
    index = {"metadata": metadata, "weight_map": dict(sorted(listed.items()))}
    write(folder / "model.safetensors.index.json", index)


def write_papers(folder: Path, *names: str) -> None:
    """Write what lies beside a model and is not part of it."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"PK\x03\x04 not for reading" if name.endswith(".bin") else b"{}\n")


PUBLISHED = (".gitattributes", "LICENSE", "README.md")


def coder_base(folder: Path) -> None:
    """Qwen/Qwen2.5-Coder-0.5B: tied, one file, greedy by default."""
    write(folder / "config.json", qwen_config())
    write(folder / "generation_config.json", {
        "bos_token_id": FIRST, "do_sample": False, "eos_token_id": FIRST, "max_new_tokens": 2048,
        "transformers_version": "4.37.0",
    })  # fmt: skip
    write_tokenizer(folder, qwen_settings(), qwen_tokens(), pairs=False, slow=True)
    write_weights(folder)
    write_papers(folder, *PUBLISHED)


def coder_instruct(folder: Path) -> None:
    """Qwen/Qwen2.5-Coder-7B-Instruct: untied, sharded, two tokens that end, sampling."""
    config = qwen_config(eos_token_id=FIRST + 2, tie_word_embeddings=False, use_mrope=...,
                         transformers_version="4.44.0", sliding_window=131072)  # fmt: skip
    write(folder / "config.json", config)
    write(folder / "generation_config.json", {
        "bos_token_id": FIRST, "pad_token_id": FIRST, "do_sample": True,
        "eos_token_id": [FIRST + 2, FIRST], "repetition_penalty": 1.1, "temperature": 0.7,
        "top_p": 0.8, "top_k": 20, "transformers_version": "4.44.0",
    })  # fmt: skip
    settings = qwen_settings(eos_token="<|im_end|>", model_max_length=131072)
    write_tokenizer(folder, settings, qwen_tokens(), pairs=False, slow=True)
    write_weights(folder, shards=4)
    write_papers(folder, *PUBLISHED)


def r1_distill(folder: Path) -> None:
    """deepseek-ai/DeepSeek-R1-Distill-Qwen-7B: a Llama tokenizer by name, a BOS, odd shards."""
    config = qwen_config(max_position_embeddings=131072, rope_theta=10000, sliding_window=4096,
                         tie_word_embeddings=False, transformers_version="4.44.0")  # fmt: skip
    write(folder / "config.json", config)
    write(folder / "generation_config.json", {
        "_from_model_config": True, "bos_token_id": FIRST + 3, "eos_token_id": FIRST,
        "do_sample": True, "temperature": 0.6, "top_p": 0.95, "transformers_version": "4.39.3",
    })  # fmt: skip
    begin, end = ({"__type": "AddedToken", **added(t, normalized=True)} for t in (BEGIN, END))
    settings = {
        "add_bos_token": True, "add_eos_token": False, "bos_token": begin,
        "clean_up_tokenization_spaces": False, "eos_token": end, "legacy": True,
        "model_max_length": 16384, "pad_token": end, "sp_model_kwargs": {}, "unk_token": None,
        "tokenizer_class": "LlamaTokenizerFast", "chat_template": R1_TEMPLATE,
    }  # fmt: skip
    write_tokenizer(folder, settings, r1_tokens(), pairs=False, slow=False)
    write_weights(folder, shards=2, digits=6)
    write_papers(folder, *PUBLISHED, "figures/benchmark.jpg")


def r1_tuned(folder: Path) -> None:
    """A fine-tune of R1-Distill-Qwen saved by transformers 4: the BOS is in the post-processor."""
    r1_distill(folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    data["post_processor"] = begins_with(BEGIN, FIRST + 3)
    write(folder / "tokenizer.json", data)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens = {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "extra_special_tokens": {}}
    decoder = {str(n): added(*token) for n, token in r1_tokens().items()}
    settings = {**settings, **tokens, "added_tokens_decoder": decoder, "use_default_system_prompt": False}
    write(folder / "tokenizer_config.json", dict(sorted(settings.items())))
    named = {name: added(tokens[name]) for name in ("bos_token", "eos_token", "pad_token")}
    write(folder / "special_tokens_map.json", named)


def finetune_4(folder: Path) -> None:
    """A Qwen2 fine-tune saved by the Trainer of transformers 4.46."""
    config = qwen_config(eos_token_id=FIRST + 2, rope_scaling=None, sliding_window=None,
                         transformers_version="4.46.3", use_cache=False, use_mrope=...)  # fmt: skip
    write(folder / "config.json", {"_name_or_path": "Qwen/Qwen2.5-Coder-1.5B-Instruct", **config})
    write(folder / "generation_config.json", {
        "bos_token_id": FIRST, "do_sample": True, "eos_token_id": [FIRST + 2, FIRST],
        "pad_token_id": FIRST, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20,
        "top_p": 0.8, "transformers_version": "4.46.3",
    })  # fmt: skip
    settings = qwen_settings(eos_token="<|im_end|>", extra_special_tokens={}, padding_side="right")
    write_tokenizer(folder, settings, qwen_tokens(), pairs=True, slow=True)
    write_saved_tokens(folder, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    write_weights(folder, shards=2)
    write_papers(folder, "README.md", "training_args.bin", "trainer_state.json", "optimizer.bin",
                 "all_results.json", "train_results.json", "runs/events.out.tfevents.1.host.1.0")


def finetune_5(folder: Path) -> None:
    """The same saved by transformers 5: rope_parameters, dtype, a template of its own."""
    source = folder / "source"
    source.mkdir()
    coder_instruct(source)
    model = Qwen2ForCausalLM.from_pretrained(source)
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder, max_shard_size="60KB")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    for file in sorted(source.iterdir()):
        file.unlink()
    source.rmdir()
    write_papers(folder, "README.md", "training_args.bin")


def unsloth(folder: Path) -> None:
    """What unsloth's save_pretrained_merged leaves: another pad token, padded on the left."""
    config = qwen_config(eos_token_id=FIRST + 2, layer_types=["full_attention"] * 2, use_mrope=...,
                         pad_token_id=FIRST + 11, rope_scaling=None, sliding_window=None,
                         transformers_version="4.54.1", unsloth_fixed=True,
                         unsloth_version="2025.8.1")  # fmt: skip
    write(folder / "config.json", config)
    write(folder / "generation_config.json", {
        "bos_token_id": FIRST, "do_sample": True, "eos_token_id": [FIRST + 2, FIRST],
        "max_length": 32768, "pad_token_id": FIRST + 11, "repetition_penalty": 1.1,
        "temperature": 0.7, "top_k": 20, "top_p": 0.8, "transformers_version": "4.54.1",
    })  # fmt: skip
    settings = qwen_settings(chat_template=..., eos_token="<|im_end|>", extra_special_tokens={},
                             pad_token="<|vision_pad|>", padding_side="left")  # fmt: skip
    write_tokenizer(folder, settings, qwen_tokens(), pairs=True, slow=True)
    write_saved_tokens(folder, eos_token="<|im_end|>", pad_token="<|vision_pad|>")
    write(folder / "chat_template.jinja", QWEN_TEMPLATE)
    write_weights(folder)
    write_papers(folder, ".gitattributes", "README.md")


def axolotl(folder: Path) -> None:
    """A base model tuned for chat by axolotl: tokens of its own, a vocabulary resized to 32."""
    rows = (FIRST + 24 + 31) // 32 * 32
    config = qwen_config(transformers_version="4.49.0", rope_scaling=None, sliding_window=None,
                         tie_word_embeddings=False, use_cache=False, vocab_size=rows,
                         eos_token_id=FIRST + 2, use_mrope=...)  # fmt: skip
    write(folder / "config.json", {"_name_or_path": "Qwen/Qwen2.5-Coder-7B", **config})
    write(folder / "generation_config.json", {
        "bos_token_id": FIRST, "do_sample": True, "eos_token_id": FIRST, "max_new_tokens": 2048,
        "transformers_version": "4.49.0",
    })  # fmt: skip
    tokens = qwen_tokens() | {FIRST + 22: ("<|pad|>", True), FIRST + 23: ("<reason>", False)}
    settings = qwen_settings(
        added_tokens_decoder={str(n): added(*token) for n, token in tokens.items()},
        chat_template=CHATML, eos_token="<|im_end|>", extra_special_tokens={}, pad_token="<|pad|>",
    )  # fmt: skip
    write_tokenizer(folder, settings, tokens, pairs=True, slow=True)
    write_saved_tokens(folder, eos_token="<|im_end|>", pad_token="<|pad|>")
    names = dict(sorted((token, n) for n, (token, _) in tokens.items()))
    write(folder / "added_tokens.json", names)
    write_weights(folder, shards=2, counted=True)
    write_papers(folder, "README.md", "debug.log", "axolotl_config.yaml", "training_args.bin")


LAYOUTS = (
    coder_base, coder_instruct, r1_distill, r1_tuned, finetune_4, finetune_5, unsloth, axolotl,
)  # fmt: skip
