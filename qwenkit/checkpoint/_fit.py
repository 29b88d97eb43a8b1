"""Do the tensors of a checkpoint fit its config? Each misfit is reported in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qwenkit.checkpoint._header import TensorInfo
from qwenkit.checkpoint._names import EMBEDDING, HEAD, can_be_derived
from qwenkit.checkpoint._values import AS_FLOATS, FLOATS, STORED, same_values, stored_as
from qwenkit.config import QwenConfig
from qwenkit.errors import few, printable, shown
from qwenkit.gguf import QUANTIZED

Pair = tuple[TensorInfo, TensorInfo]
CONFIG_JSON, METADATA = "config.json", "metadata"  # what a config is read from
_ENDINGS = ("", "_scale")  # of the name of a matrix in int8 and of its scales
_TIED_HINT = " (is the head tied? then config.json must say tie_word_embeddings: true)"


def misfits(
    config: QwenConfig, found: Mapping[str, TensorInfo], stated: str = CONFIG_JSON
) -> list[str]:
    """List tensors that are missing, unexpected, or of the wrong shape or dtype.

    Args:
        config: the model's.
        found: the tensors, by their names in the model.
        stated: what the config was read from.
    """
    expected = config.tensor_shapes()
    wrong = [line for name in expected for line in _misfit(name, found.get(name), expected, stated)]
    return wrong + [
        f"unexpected {printable(info.name)} {_sizes(info.shape)}"
        for name, info in found.items()
        if name not in expected and not can_be_derived(name, info, tied=config.tie_word_embeddings)
    ]


def _misfit(
    name: str, info: TensorInfo | None, expected: Mapping[str, tuple[int, ...]], stated: str
) -> Iterator[str]:
    """Yield what is wrong with one of the tensors that the config expects."""
    want = _sizes(expected[name])
    if info is None:
        yield f"missing {name} {want}{_TIED_HINT if name == HEAD else ''}"
        return
    if info.shape != expected[name]:
        yield f"wrong shape of {name}: {_sizes(info.shape)}, expected {want} from {stated}"
    right = stored_as(name, expected)
    if info.dtype in QUANTIZED:
        return
    if info.dtype not in STORED:
        yield f"{name} is stored as {info.dtype}, which qwenkit cannot read"
    elif info.dtype not in right:
        yield f"wrong dtype of {name}: {info.dtype}, expected {', '.join(right)}"


def stored_as_head(config: QwenConfig, found: dict[str, TensorInfo]) -> None:
    """Find the embedding of a tied model under the head's name, if it is stored under that alone.

    safetensors' `save_model` writes a shared tensor once, under the first of its names.
    """
    for ending in _ENDINGS if config.tie_word_embeddings else ():
        if EMBEDDING + ending not in found and HEAD + ending in found:
            found[EMBEDDING + ending] = found.pop(HEAD + ending)


def tied_copies(config: QwenConfig, found: Mapping[str, TensorInfo]) -> list[Pair]:
    """Return the embedding and the copy of it that a tied model's file may hold as the head."""
    if not config.tie_word_embeddings:
        return []
    pairs = [(EMBEDDING + ending, HEAD + ending) for ending in _ENDINGS]
    return [(found[one], found[other]) for one, other in pairs if {one, other} <= found.keys()]


def unequal(pairs: list[Pair]) -> list[str]:
    """List the pairs that differ in values; each pair should be one tensor.

    Raises:
        CheckpointError, OSError: as `same_values` does.
    """
    return [_difference(*pair) for pair in pairs if not same_values(*pair)]


def _difference(one: TensorInfo, other: TensorInfo) -> str:
    """Say which two tensors should be equal and are not."""
    if one.name == other.name:
        files = f"{printable(one.file.name)} and {printable(other.file.name)}"
        return f"{printable(one.name)} is in both {files}, with different values; fetch it again"
    if other.name.endswith((HEAD, f"{HEAD}_scale")):
        return (
            f"{printable(other.name)} differs from the embedding, and config.json says that they "
            "are tied (tie_word_embeddings: true); if the head was trained, it must say false"
        )
    return f"{printable(one.name)} and {printable(other.name)} are one tensor with two values"


def cause(
    config: QwenConfig,
    tensors: Mapping[str, TensorInfo],
    found: Mapping[str, TensorInfo],
    stated: str = CONFIG_JSON,
) -> str:
    """Name the single cause of many misfits; empty if there is no obvious one.

    Args:
        config: the model's.
        tensors: by their names in the file.
        found: by their names in the model.
        stated: what the config was read from.
    """
    if any(".lora_A." in name or ".base_layer." in name for name in tensors):
        return "it holds unmerged LoRA matrices: use PEFT's merge_and_unload, and save again"
    unread = {info.dtype for info in tensors.values()}
    unread -= STORED.keys() if config.quantization else AS_FLOATS
    if unread and stated == METADATA:
        return f"stored as {few(sorted(unread))}: take a Q4_K_M, Q8_0 or F16 file of the model"
    if unread:
        return f"stored as {few(sorted(unread))}: take a checkpoint in {', '.join(FLOATS)}"
    if not found.keys() & config.tensor_shapes().keys():
        return f"its names are not those of Qwen2: {few(map(printable, tensors), most=2)}"
    other = sorted({name.split(".")[0] for name in found} - {"model", "lm_head"})
    if other:
        parts = few(map(printable, other), most=2)
        return f"it has a part that Qwen2ForCausalLM does not have: {parts}"
    layers = {name.split(".")[2] for name in found if name.startswith("model.layers.")}
    more = sorted(layers - set(map(str, range(config.num_hidden_layers))), key=len)
    if more:
        return (
            f"it has layers that {stated}'s num_hidden_layers of {config.num_hidden_layers} "
            f"leaves out: {few(map(printable, more), most=2)}"
        )
    return ""


def _sizes(shape: tuple[int, ...]) -> str:
    return shown(list(shape), most=100)
