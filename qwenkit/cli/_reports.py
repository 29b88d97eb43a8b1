"""What `qwenkit doctor`, `inspect` and `forward` print, as lines of plain text."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from qwenkit.checkpoint import Checkpoint
from qwenkit.config import QwenConfig
from qwenkit.device import default_dtype, free_memory, known_problem, pick_device
from qwenkit.errors import QwenkitError, printable, shown
from qwenkit.files import format_bytes
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import EMBEDDED, cached_models
from qwenkit.pretrained.compare import compare_with_cpu
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import POINTS, Trace

_LIBRARIES = ("torch", "safetensors", "tokenizers", "huggingface_hub", "jupyterlab", "ipywidgets")


def doctor() -> tuple[list[str], list[str]]:
    """Return the facts about this machine, and the problems found (empty when all is well)."""
    problems = []
    device, total = pick_device(), format_bytes(psutil.virtual_memory().total)
    facts = [
        f"python       {platform.python_version()} on {platform.platform()}",
        f"device       {device}, computing in {_name(default_dtype(device))}",
        f"cores        {torch.get_num_threads()} used by torch, {os.cpu_count()} in the machine",
        f"memory       {format_bytes(free_memory())} free of {total}",
    ]
    for name in _LIBRARIES:
        try:
            facts.append(f"{name:<16} {version(name)}")
        except PackageNotFoundError:
            problems.append(f"{name} is not installed; run `make lab` again")
    known = known_problem(device)
    if known:
        problems.append(known)
    if device.type != "cpu":
        facts += [*_compared(device, problems)]
    chosen = os.environ.get("QWENKIT_MODEL")
    facts += [
        f"embedded model   {EMBEDDED if EMBEDDED.is_dir() else 'missing'}",
        f"cached models    {', '.join(cached_models()) or 'none'}",
        f"QWENKIT_MODEL    {chosen or 'not set'}",
    ]
    if chosen and os.path.exists(os.path.expanduser(chosen)):
        try:
            checkpoint = Checkpoint(chosen)
            checkpoint.validate()
            facts.append(f"                 {checkpoint.config.num_parameters:,} parameters, valid")
        except QwenkitError as error:
            problems.append(f"QWENKIT_MODEL: {error}")
    return facts, problems


def _compared(device: torch.device, problems: list[str]) -> Iterator[str]:
    """Yield how much each part of the model on the device differs from the CPU's."""
    dtype = default_dtype(device)
    found = compare_with_cpu(device, dtype)
    for one in found:
        verdict = "as on the CPU" if one.ok else "WRONG"
        yield f"  {one.part:<42} {verdict} (differs by {one.error:.1e} of the largest value)"
    wrong = [one.part for one in found if not one.ok]
    if wrong:
        problems.append(
            f"{device} gets {', '.join(wrong)} wrong in {_name(dtype)} with torch "
            f"{version('torch')}; models in that dtype are loaded on the CPU instead, unless a "
            "device is named: try a newer torch"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def inspect(checkpoint: Checkpoint, every_tensor: bool = False) -> Iterator[str]:
    """Yield config, parameters by module, and tensors, from headers alone."""
    config, files = checkpoint.config, len(checkpoint.files)
    yield "CONFIG"
    yield from (f"  {name:<26} {value}" for name, value in config.to_dict().items())
    yield f"  {'query heads per kv head':<26} {config.num_key_value_groups}"
    yield f"  {'KV cache, one token':<26} {config.kv_bytes_per_token():,} bytes"
    yield from ("", "PARAMETERS", *parameter_table(config), "")
    where = f"{files} file{'s' if files > 1 else ''}, {format_bytes(checkpoint.nbytes)}"
    yield f"TENSORS  {len(checkpoint.tensors)} in {where}"
    yield from _tensor_lines(checkpoint, every_tensor)


def parameter_table(config: QwenConfig) -> list[str]:
    """Count parameters by module, exactly."""
    counts: dict[str, int] = {}
    for name, shape in config.tensor_shapes().items():
        module = _any_layer(name.removeprefix("model.")).rpartition(".")[0]
        counts[module] = counts.get(module, 0) + torch.Size(shape).numel()
    total = config.num_parameters
    rows = [f"  {name:<34} {n:>15,}  {n / total:6.1%}" for name, n in counts.items()]
    tied = "  (the head is the embedding)" if config.tie_word_embeddings else ""
    return [*rows, f"  {'total':<34} {total:>15,}{tied}"]


def _tensor_lines(checkpoint: Checkpoint, every_tensor: bool) -> Iterator[str]:
    """Yield one line per tensor, or one for the same tensor of all layers."""
    groups = Counter(
        (printable(info.name if every_tensor else _any_layer(info.name)), info.dtype, info.shape)
        for info in checkpoint.tensors.values()
    )
    for (name, dtype, shape), count in groups.items():
        times = f"  × {count}" if count > 1 else ""
        yield f"  {name:<46} {dtype:<5} {shown(list(shape), most=100)}{times}"


def _any_layer(name: str) -> str:
    return re.sub(r"layers\.\d+", "layers.*", name)


def forward(
    model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str, count: int = 5
) -> Iterator[str]:
    """Yield a prompt's tokens, the shapes in the forward pass, and the most likely next tokens."""
    ids = tokenizer(prompt).to(model.device)
    strings = tokenizer.token_strings(ids)
    inside = [p for p in POINTS if p.in_layer and p.name not in ("attn.scores", "attn.pattern")]
    keep = [point.name for point in POINTS if not point.in_layer]
    trace = Trace(keep=[*keep, *(f"layers.0.{point.name}" for point in inside)])
    with torch.no_grad():
        logits = model(ids, trace=trace)[0, -1].float()
    yield from (f"TOKENS  {len(strings)}", f"  {' | '.join(strings)}", "")
    config = model.config
    yield (
        f"SHAPES  T={len(strings)} tokens, C={config.hidden_size}, "
        f"H={config.num_attention_heads} heads, KV={config.num_key_value_heads}, "
        f"D={config.head_dim}, F={config.intermediate_size}, V={config.vocab_size}"
    )
    layers = config.num_hidden_layers
    for point in POINTS:
        name = f"layers.0.{point.name}" if point.in_layer else point.name
        if name in trace:
            shape = str(tuple(trace[name].shape))
            yield f"  {name:<22} {shape:<22} {point.meaning}"
        if point.name == "resid_post" and layers > 1:
            yield f"  {f'... and so on to layer {layers - 1}':<44} the same shapes again"
    count = min(count, model.num_tokens)
    yield from ("", f"THE {count} MOST LIKELY NEXT TOKENS")
    logits[model.num_tokens :] = float("-inf")
    best = logits.softmax(dim=-1).topk(count)
    for probability, number in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        yield f"  {probability:6.1%}  {tokenizer.token_strings([number])[0]}"
