"""Checkpoint folders as they are published, at tiny size: their files, their keys, their order.

Weights, vocabulary and templates are our own; which files there are, what they are called, and
which keys they hold is as in the repositories and tools that each function names.
"""

import shutil

from chat_templates import QWEN_TEMPLATE, R1_TEMPLATE
from folder_parts import (
    BEGIN,
    END,
    FIRST,
    QWEN_TOKENS,
    R1_TOKENS,
    added,
    bos_first,
    config_of,
    of,
    pipeline,
    settings_of,
    write,
    write_folder,
)  # fmt: skip
from transformers import AutoTokenizer, GenerationConfig, Qwen2ForCausalLM

from qwenkit.tokenizer.bpe import CHAT

SAMPLING = {"repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20}


def coder_base(folder):
    """Qwen/Qwen2.5-Coder-0.5B: tied, one file, greedy by default."""
    generation = {"bos_token_id": FIRST, "do_sample": False, "eos_token_id": FIRST,
                  "max_new_tokens": 2048, "transformers_version": "4.37.0"}  # fmt: skip
    write_folder(folder, config_of(), generation, settings_of(), pairs=False)


def coder_instruct(folder):
    """Qwen/Qwen2.5-Coder-7B-Instruct: untied, sharded, two tokens that end, sampling."""
    config = config_of(eos_token_id=FIRST + 2, tie_word_embeddings=False, use_mrope=...,
                       transformers_version="4.44.0", sliding_window=131072)  # fmt: skip
    generation = {"bos_token_id": FIRST, "pad_token_id": FIRST, "do_sample": True,
                  "eos_token_id": [FIRST + 2, FIRST], **SAMPLING,
                  "transformers_version": "4.44.0"}  # fmt: skip
    settings = settings_of(eos_token="<|im_end|>", model_max_length=131072)
    write_folder(folder, config, generation, settings, pairs=False, shards=4)


def r1_distill(folder):
    """deepseek-ai/DeepSeek-R1-Distill-Qwen-7B: a Llama tokenizer by name, odd shards."""
    config = config_of(max_position_embeddings=131072, rope_theta=10000, sliding_window=4096,
                       tie_word_embeddings=False, transformers_version="4.44.0")  # fmt: skip
    generation = {"_from_model_config": True, "bos_token_id": FIRST + 3, "eos_token_id": FIRST,
                  "do_sample": True, "temperature": 0.6, "top_p": 0.95,
                  "transformers_version": "4.39.3"}  # fmt: skip
    begin, end = ({"__type": "AddedToken", **added(t, normalized=True)} for t in (BEGIN, END))
    settings = {
        "add_bos_token": True, "add_eos_token": False, "bos_token": begin,
        "clean_up_tokenization_spaces": False, "eos_token": end, "legacy": True,
        "model_max_length": 16384, "pad_token": end, "sp_model_kwargs": {}, "unk_token": None,
        "tokenizer_class": "LlamaTokenizerFast", "chat_template": R1_TEMPLATE,
    }  # fmt: skip
    papers = ("README.md", "LICENSE", "figures/benchmark.jpg")
    write_folder(folder, config, generation, settings, tokens=R1_TOKENS, pairs=False, slow=False,
                 papers=papers, shards=2, digits=6)  # fmt: skip


def r1_tuned(folder):
    """A fine-tune of it saved by transformers 4: the BOS has become a post-processor."""
    r1_distill(folder)
    first = {"post_processor": bos_first(BEGIN, FIRST + 3)}
    write(folder / "tokenizer.json", {**pipeline(R1_TOKENS, pairs=True), **first})
    names = {"bos_token": BEGIN, "eos_token": END, "pad_token": END}
    more = {"add_bos_token": True, "add_eos_token": False, "legacy": True, "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizerFast", "use_default_system_prompt": False,
            "additional_special_tokens": ..., "extra_special_tokens": {}}  # fmt: skip
    settings = settings_of(R1_TOKENS, chat_template=R1_TEMPLATE, **names, **more)
    write(folder / "tokenizer_config.json", settings)
    write(folder / "special_tokens_map.json", {name: added(names[name]) for name in names})


def finetune_4(folder):
    """A Qwen2 fine-tune saved by the Trainer of transformers 4.46."""
    config = config_of(eos_token_id=FIRST + 2, rope_scaling=None, sliding_window=None,
                       transformers_version="4.46.3", use_cache=False, use_mrope=...)  # fmt: skip
    generation = of(SAMPLING, {"bos_token_id": FIRST, "do_sample": True, "pad_token_id": FIRST,
                               "eos_token_id": [FIRST + 2, FIRST],
                               "transformers_version": "4.46.3"})  # fmt: skip
    settings = settings_of(eos_token="<|im_end|>", extra_special_tokens={}, padding_side="right")
    papers = ("README.md", "training_args.bin", "trainer_state.json", "runs/events.out.tfevents.1")
    write_folder(folder, {"_name_or_path": "Qwen/Qwen2.5-Coder-1.5B-Instruct", **config},
                 generation, settings, papers=papers, shards=2)  # fmt: skip


def finetune_5(folder):
    """The same saved by transformers 5, here by itself: rope_parameters, dtype, a template file."""
    source = folder / "source"
    source.mkdir()
    coder_instruct(source)
    model = Qwen2ForCausalLM.from_pretrained(source)
    model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder, max_shard_size="60KB")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    shutil.rmtree(source)


def unsloth(folder):
    """What unsloth's save_pretrained_merged leaves: another pad token, padded on the left."""
    config = config_of(eos_token_id=FIRST + 2, layer_types=["full_attention"] * 2, use_mrope=...,
                       pad_token_id=FIRST + 11, rope_scaling=None, sliding_window=None,
                       transformers_version="4.54.1", unsloth_fixed=True,
                       unsloth_version="2025.8.1")  # fmt: skip
    generation = of(SAMPLING, {"bos_token_id": FIRST, "do_sample": True, "max_length": 32768,
                               "eos_token_id": [FIRST + 2, FIRST], "pad_token_id": FIRST + 11,
                               "transformers_version": "4.54.1"})  # fmt: skip
    settings = settings_of(chat_template=..., eos_token="<|im_end|>", extra_special_tokens={},
                           pad_token="<|vision_pad|>", padding_side="left")  # fmt: skip
    write_folder(folder, config, generation, settings, papers=("README.md", ".gitattributes"))
    write(folder / "chat_template.jinja", QWEN_TEMPLATE)


def axolotl(folder):
    """A base model tuned for chat by axolotl: tokens of its own, rows a multiple of 32."""
    config = config_of(eos_token_id=FIRST + 2, rope_scaling=None, sliding_window=None,
                       tie_word_embeddings=False, transformers_version="4.49.0", use_cache=False,
                       use_mrope=..., vocab_size=(FIRST + 24 + 31) // 32 * 32)  # fmt: skip
    generation = {"bos_token_id": FIRST, "do_sample": True, "eos_token_id": FIRST,
                  "max_new_tokens": 2048, "transformers_version": "4.49.0"}  # fmt: skip
    tokens = QWEN_TOKENS | {FIRST + 22: ("<|pad|>", True), FIRST + 23: ("<reason>", False)}
    settings = settings_of(tokens, chat_template=CHAT, eos_token="<|im_end|>",
                           extra_special_tokens={}, pad_token="<|pad|>")  # fmt: skip
    papers = ("README.md", "debug.log", "axolotl_config.yaml", "training_args.bin")
    write_folder(folder, {"_name_or_path": "Qwen/Qwen2.5-Coder-7B", **config}, generation, settings,
                 tokens=tokens, papers=papers, shards=2, counted=True)  # fmt: skip


LAYOUTS = (
    coder_base, coder_instruct, r1_distill, r1_tuned, finetune_4, finetune_5, unsloth, axolotl,
)  # fmt: skip
