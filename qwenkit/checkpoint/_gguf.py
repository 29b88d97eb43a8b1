"""The tensors of a GGUF file under the names that the model has for them."""

from __future__ import annotations

from pathlib import Path

from qwenkit.checkpoint._header import TensorInfo
from qwenkit.checkpoint._names import EMBEDDING, HEAD
from qwenkit.errors import CheckpointError, shown
from qwenkit.gguf import GgufFile, read_gguf, refuse_other_kinds

_OUTSIDE = {
    "token_embd.weight": EMBEDDING, "output_norm.weight": "model.norm.weight",
    "output.weight": HEAD,
}  # fmt: skip
# Within a layer. llama.cpp permutes q and k of Llama for its own RoPE, and not those of Qwen2: it
# rotates i with i + D/2, as the model here does.
_PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


def model_name(name: str) -> str:
    """Return the model's name for a tensor of a GGUF file; unchanged if it does not have one.

    >>> model_name("blk.12.attn_q.bias"), model_name("rope_freqs.weight")
    ('model.layers.12.self_attn.q_proj.bias', 'rope_freqs.weight')
    """
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _PARTS:
        return f"model.layers.{parts[1]}.{_PARTS[parts[2]]}.{parts[3]}"
    return name


def open_gguf(path: Path) -> tuple[GgufFile, dict[str, TensorInfo]]:
    """Return a file's header, and its tensors by the model's names, in the order of their bytes.

    Raises:
        CheckpointError: it is damaged, or is not one whole Qwen2 model.
    """
    file = read_gguf(path)
    refuse_other_kinds(file)
    found: dict[str, TensorInfo] = {}
    for one in sorted(file.tensors.values(), key=lambda one: (one.start, one.nbytes)):
        name = model_name(one.name)
        if name in found:
            raise CheckpointError(f"{path} has {shown(name)} under two names; fetch it again")
        found[name] = TensorInfo(name, one.type, one.shape, path, one.start, one.nbytes)
    return file, found
