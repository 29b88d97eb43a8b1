"""A sound call of every public function that has arguments to get wrong: name -> its arguments."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from qwenkit.generate import GenerationConfig
from qwenkit.programs import Task
from qwenkit.train import GrpoSettings, completion_batch

IDS = torch.tensor([[5, 6, 7, 8]])
PATTERN = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
TOKENS = list("abcd")
ONCE = {"step": [1.0], "loss": [2.0]}
LENS = {"probabilities": [[0.5, 0.5]] * 2, "guesses": [["a", "b"]] * 2, "tokens": ["x", "y"]}
NORMS = {"stream": [[1.0, 2], [2, 3]], "attention": [[1.0, 2]], "mlp": [[1.0, 2]]}
SAMPLING = {
    "temperature": 1.0, "top_k": 2, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1,
}  # fmt: skip
OPTIONS = {"max_new_tokens": 2, "stop_ids": [3], "seed": 1, **SAMPLING}


def names(ids):
    return [str(one) for one in ids]


def metric(logits):
    return logits[0, -1, 3]


def plots(config):
    """Return the calls of qwenkit.plot; those of the alt texts take some of the same arguments."""
    return {
        "architecture": {"config": config, "lit": "norm"},
        "as_png": {"figure": plt.figure()},
        "attention": {"pattern": PATTERN, "tokens": TOKENS, "name": "a"},
        "attention_heads": {"patterns": PATTERN[None], "names": ["a"], "columns": 1},
        "cache_growth": {
            "configs": config, "tokens": 10, "dtype": "float32", "references": {"a": 3.0},
        },
        "gqa_sharing": {"heads": 4, "kv_heads": 2, "marked": 1},
        "kv_repetition": {"k": np.ones((2, 3, 4)), "groups": 2},
        "logit_lens": LENS,
        "lora_spectra": {"update": [1.0, 2], "weight": [3.0, 4]},
        "mask": {"allowed": PATTERN > 0, "tokens": TOKENS},
        "outlier_channels": {"activations": {"a": np.ones((2, 3))}},
        "qk_distance": {"products": [1.0, 2], "name": "a"},
        "residual_norms": NORMS,
        "rope_pair": {"vector": (1, 0), "frequency": 0.5, "positions": [1, 2]},
        "rope_tables": {"cos": np.ones((2, 4)), "sin": np.ones((2, 4))},
        "rope_wavelengths": {"frequencies": [1.0, 0.1], "context": 10},
        "sampling": {"stages": {"logits": [1.0, 2, 3]}, "names": names, "most": 3},
        "show": {"figure": plt.figure(), "alt": "a"},
        "training_curve": {"metrics": ONCE, "references": {"a": 1.0}},
        "value_histograms": {"tensors": {"a": [1.0, 2]}, "columns": 1},
    }  # fmt: skip


def insights(model):
    """Return the calls of qwenkit.interpret."""
    one = {"model": model, "input_ids": IDS}
    random = {"model": model, "length": 4, "batch_size": 2, "seed": 0}
    both = {"model": model, "clean": IDS, "corrupted": IDS + 1, "metric": metric}
    two = {"model": model, "other": model, "input_ids": IDS, "other_ids": IDS}
    config = model.config
    means = torch.zeros(config.num_hidden_layers, config.num_attention_heads, config.head_dim)
    simple = ("previous_token_scores", "sink_scores", "attention_entropy", "mean_outputs")
    repeated = ("induction_scores", "duplicate_token_scores", "repeated_tokens")
    return {
        **dict.fromkeys(simple, one), **dict.fromkeys(repeated, random),
        "logit_lens": {**one, "position": -1},
        "attribute_logit": {**one, "token": 3, "position": -1},
        "ablate_heads": {"heads": [(0, 1)], "means": means},
        "head_effects": {**one, "metric": metric, "means": means},
        "patch_residual": both, "patch_heads": both, "divergences": two,
        "first_divergence": {**two, "tolerance": 1e-4},
        "replace": {"model": model, "target": "norm", "new": abs},
    }  # fmt: skip


def programs(model, tokenizer):
    """Return the calls of qwenkit.programs."""
    task = Task("def f():\n", "assert f() is None")
    pair = {"code": "x = 1", "tests": "assert x"}
    limits = {"seconds": 1.0, "memory": 10**8, "output": 10}
    return {
        "Task": {"prompt": "def f():\n", "tests": "assert f()", "family": "a", "solution": "b"},
        "families_of": {"split": "family"},
        "generate": {
            "seed": 0, "split": "train", "families": ["is_even"], "phrasings": ["0-whether"],
        },
        "first_function": {"text": "a"}, "interval": {"values": [0.5]},
        "overlap": {"tasks": [task], "texts": ["a"]}, "pass_at_k": {"n": 3, "c": 1, "k": 2},
        "generate_tasks": {"count": 1, "split": "family", "seed": 1, "families": None},
        "read_tasks": {"path": "tests/programs/tasks.jsonl"},
        "run": {**pair, **limits},
        "run_many": {"pairs": [("x = 1", "assert x")], "workers": 1, **limits},
        "score": {
            "model": model, "tokenizer": tokenizer, "tasks": [task], "samples": 1, "ks": [1],
            "temperature": 0.5, "greedy": True, "max_new_tokens": 1, "batch_size": 2, "seed": 0,
            "seconds": 1.0,
        },
    }  # fmt: skip


def policies(model, tokenizer):
    """Return the calls of those parts of qwenkit.train that learn from preferences and rewards."""
    of_batch = {"model": model, "batch": completion_batch([[1, 2]], [[3]])}
    logs, one = torch.zeros(1, 2), torch.zeros(1)
    task, smooth = Task("def f():\n", "assert f() is None"), {"beta": 0.1, "label_smoothing": 0.1}
    settings = GrpoSettings(steps=1, prompts=1, group_size=2, max_new_tokens=1)
    return {
        "completion_batch": {"prompts": [[1]], "completions": [[2]]},
        "token_log_probs": {**of_batch, "temperature": 1.0}, "sequence_log_probs": of_batch,
        "reference_log_probs": {**of_batch, "reference": model, "temperature": 1.0},
        "dpo_loss": {
            "policy_chosen": one, "policy_rejected": one, "reference_chosen": one,
            "reference_rejected": one, **smooth,
        },
        "preference_loss": {
            "model": model, "pairs": [([1], [2], [3])], "reference": model, **smooth,
        },
        "group_advantages": {"rewards": torch.ones(1, 2), "scale": True},
        "kl_estimate": {"log_probs": logs, "reference": logs},
        "grpo_loss": {
            "log_probs": logs, "old_log_probs": logs, "advantages": one, "mask": logs + 1,
            "clip": (0.2, 0.2), "beta": 0.1, "reference_log_probs": logs,
            "normalization": "dr_grpo", "max_length": 2,
        },
        "passes_tests": {"task": task, "texts": ["    pass"]},
        "GrpoSettings": vars(settings),
        "GrpoTrainer": {
            "model": model, "tokenizer": tokenizer, "tasks": [task], "settings": settings,
            "reward": max,
        },
    }  # fmt: skip


def generations(model, tokenizer):
    """Return the calls of qwenkit.generate."""
    pair = {"model": model, "tokenizer": tokenizer}
    text = {**pair, "prompt": "a", "stop_strings": ["x"], "max_new_tokens": 2}
    one = {"model": model, "input_ids": IDS}
    return {
        "generate": {**one, "cache_dtype": "int8", **OPTIONS},
        "generate_batch": {
            "model": model, "prompts": [[1, 2], [3]], "cache_dtype": "int8", **OPTIONS,
        },
        "complete": text, "stream": text, "default_stops": pair,
        "complete_batch": {**pair, "prompts": ["a", "b"], "max_new_tokens": 2},
        "beam_search": {
            **one, "num_beams": 2, "max_new_tokens": 2, "length_penalty": 1.0, "stop_ids": [3],
            "cache_dtype": "int8",
        },
        "log_probabilities": one, "score_text": {**pair, "text": "ab c"},
        "GenerationConfig": OPTIONS, "Sampling": SAMPLING,
        "Conversation": {**pair, "system": "a", "max_length": 64, "cache_dtype": "int8"},
        "row_seed": {"seed": 1, "row": 1},
        "reference_generate": {**one, "max_new_tokens": 2},
        "one_prompt": one,
        "cache_for": {"model": model, "batch_size": 1, "max_length": 8, "cache_dtype": "int8"},
        "speculate": {**one, "draft": model, "tokens": 2, "cache_dtype": "int8", **OPTIONS},
        "PromptLookup": {"longest": 3, "shortest": 1},
        "DraftModel": {"model": model, "config": GenerationConfig(), "max_length": 8},
    }  # fmt: skip


def serving(model):
    """Return the calls of qwenkit.serve."""
    return {
        "PagedCache": {"config": model.config, "num_pages": 4, "page_size": 2},
        "Scheduler": {
            "model": model, "max_tokens": 64, "page_size": 4, "max_batch_size": 2,
            "chunk_tokens": 8,
        },
    }  # fmt: skip


def widgets(model, tokenizer):
    """Return the calls of qwenkit.widgets."""
    text = {"model": model, "tokenizer": tokenizer, "prompt": "def f"}
    return {
        "AttentionExplorer": text, "SamplingExplorer": text, "ModelExplorer": text,
        "GenerationStepper": {**text, "max_new_tokens": 3},
        "LayerInspector": {**text, "other_prompt": "x"},
        "CheckpointBrowser": {"source": "data/tiny-coder"},
        "GQAExplorer": {"config": model.config},
        "RopeExplorer": {
            "theta": 100.0, "head_dim": 8, "vectors": np.ones((2, 8)), "positions": 16,
        },
    }  # fmt: skip
