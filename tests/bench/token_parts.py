"""Where the time of a decoded token goes, part by part, and how many bytes each part reads.

The layers and the head are timed inside the token. For as long as that takes, `kernels.lead_step`
is the very code of it, compiled once more with a clock before and after each stage. It computes the
same numbers. A stage lasts until its last chunk is there, whichever thread computes it. Tokens are
computed one by one. Where some are computed at once, as in `complete` with a small model, the
Python around them takes less than is found here.

Every other part is run once more, alone, when all tokens of a turn are there: what it reads may
still be in the cache, so it can only look too fast. Between two tokens it would slow the second:
where torch shares an op among threads, these spin for some milliseconds on cores that the kernels
need. What the token took beyond its parts is the remainder: the Python around them, and all that
went from one to the next.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import numba
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor, nn

import qwenkit as qk
from qwenkit.fast import ClosedLoop, kernels
from qwenkit.fast.decode import _look
from qwenkit.generate import GenerationConfig
from qwenkit.generate.steps import Step, check_finite, continued, next_token
from timing import seconds

WHOLE = "whole token"
REMAINDER = "Python around it: the remainder"
SAMPLED = "choosing, sampled"  # instead of CHOOSING, so not a part
ALL_CHECKS = "all checks"  # for a token that a caller gets, as from `generate`
CHECKS, EMBEDDING, CHOOSING = "checks that nothing changed", "embedding row", "choosing, greedy"
REST, HEAD = "norms and the rest of the layers", "head"
STAGES = {
    kernels.QKV: "q, k and v", kernels.ATTENTION: "attention", kernels.OUTPUT: "o_proj",
    kernels.GATE_UP: "gate and up", kernels.DOWN: "down_proj",
}  # fmt: skip
LAYERS = (*STAGES.values(), REST)
PARTS = (CHECKS, EMBEDDING, *LAYERS, HEAD, CHOOSING)  # in the order of a token
SAMPLING = {"temperature": 0.8, "top_p": 0.95}
Times = dict[str, float]  # part, or WHOLE, or SAMPLED -> seconds


def bytes_read(model: qk.QwenForCausalLM, length: int) -> dict[str, int]:
    """Return how many bytes of memory each part reads for one token, `length` being in the cache.

    The other parts read nothing that is not in the processor's cache anyway.
    """
    inner, config, layers = model.model, model.config, model.model.layers
    attention = [layer.self_attn for layer in layers]
    cached = 2 * len(layers) * config.num_key_value_heads * config.head_dim  # values per token
    return {
        EMBEDDING: _size(inner.embed_tokens) // config.vocab_size,
        "q, k and v": sum(_size(one.q_proj, one.k_proj, one.v_proj) for one in attention),
        "attention": cached * length * model.dtype.itemsize,
        "o_proj": sum(_size(one.o_proj) for one in attention),
        "gate and up": sum(_size(layer.mlp.gate_proj, layer.mlp.up_proj) for layer in layers),
        "down_proj": sum(_size(layer.mlp.down_proj) for layer in layers),
        REST: _size(inner.norm)
        + sum(_size(one.input_layernorm, one.post_attention_layernorm) for one in layers),
        HEAD: _size(inner.embed_tokens if model.lm_head is None else model.lm_head),
    }


def _size(*modules: nn.Module) -> int:
    return sum(one.nbytes for m in modules for one in (*m.parameters(), *m.buffers()))


def medians(tokens: Sequence[Times]) -> Times:
    """Return each part's median, and as the remainder what the whole token's has beyond them."""
    found = {name: statistics.median(one[name] for one in tokens) for name in tokens[0]}
    found[REMAINDER] = found[WHOLE] - sum(found.get(part, 0.0) for part in PARTS)
    return found


class Decoding:
    """What takes a turn: a text is continued greedily, token by token.

    Args:
        model: decodes.
        ids: (1, T) the text.
        tokens: how many are decoded per turn.
    """

    def __init__(self, model: qk.QwenForCausalLM, ids: Tensor, tokens: int) -> None:
        self.model, self.ids, self.past = model, ids, ids.shape[1] - 1
        self.config = GenerationConfig(max_new_tokens=tokens, stop_ids=())
        self.cache = qk.KVCache(model.config, 1, ids.shape[1] + tokens)
        self.clocks = Clocks()
        with torch.no_grad():
            model(ids[:, :-1], cache=self.cache, logits_to_keep=1)
        self.bytes = bytes_read(model, self.past + (tokens + 1) // 2)  # on the average

    def __call__(self) -> list[Times]:
        """Return the times of each token; WHOLE alone where the kernels step aside."""
        self.cache.trim(self.past)
        loop, made, found = ClosedLoop(most=1), list[Step](), list[Times]()
        steps = continued(self.model, self.ids, self.cache, self.config, loop)
        with self.clocks.inside():
            for _ in range(self.config.max_new_tokens):
                self.clocks.found = {}
                whole = seconds(lambda: made.append(next(steps)))
                found.append({WHOLE: whole, **self.clocks.found})
        if HEAD in found[0]:
            for step, token in zip(made, found, strict=True):
                token |= alone(self.model, step, loop, self.cache)
        return found


@torch.no_grad()
def alone(model: qk.QwenForCausalLM, step: Step, loop: ClosedLoop, cache: qk.KVCache) -> Times:
    """Return the seconds of what is not timed inside a token."""
    ids = torch.tensor([[step.token_id]])
    found = {
        CHECKS: seconds(partial(loop.ask, _look, model, cache)),
        ALL_CHECKS: seconds(partial(_look, model, cache)),
        EMBEDDING: seconds(partial(model.model.embed_tokens, ids)),
    }
    for name, config in ((SAMPLED, GenerationConfig(**SAMPLING)), (CHOOSING, GenerationConfig())):
        found[name] = seconds(partial(choose, config, config.generator(), model, step))
    return found


def choose(
    config: GenerationConfig, generator: torch.Generator, model: qk.QwenForCausalLM, step: Step
) -> int:
    """Choose a token from a step's logits as `continued` does."""
    check_finite(step.logits, step.index)
    return next_token(config, step.logits, step.seen, model.num_tokens, generator)


class Clocks:
    """Times the layers and the head of each token that is decoded in a block.

    Attributes:
        found: the seconds of each part since it was emptied.
    """

    def __init__(self) -> None:
        self.found: Times = {}
        self._per_tick = statistics.median(_seconds_per_tick() for _ in range(5))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Put the clocks in while the block lasts."""
        own = kernels.lead_step
        kernels.lead_step = self._lead_step
        try:
            yield
        finally:
            kernels.lead_step = own

    def _lead_step(self, board: Any, counts: Any, done: Any, job: Any) -> int:
        steps = _timed_lead_step(board, counts, done, job)
        assert counts.max() <= done.shape[1] - 2, "the clocks overwrote what chunks were done"
        start, end = done[:, -2], done[:, -1]  # (stages)
        within = (end - start)[:-1].reshape(-1, kernels.STAGES).sum(0)  # (stages of a layer)
        ticks = {name: within[kind] for kind, name in STAGES.items()}
        ticks[HEAD] = end[-1] - start[-1]
        ticks[REST] = start[-1] - start[0] - within.sum()
        self.found |= {name: int(count) * self._per_tick for name, count in ticks.items()}
        return steps


_share = kernels.share


@intrinsic
def _ticks(typing):
    """Read the processor's counter of cycles, which goes on evenly."""

    def generate(context, builder, signature, given):
        kind = ir.FunctionType(ir.IntType(64), [])
        read = builder.module.declare_intrinsic("llvm.readcyclecounter", (), kind)
        return builder.call(read, [])

    return numba.int64(), generate


@numba.njit
def _now():
    return _ticks()


def _seconds_per_tick() -> float:
    """Compare the two clocks; once, the system may have taken the core between their readings."""
    start, first = time.perf_counter(), _now()
    time.sleep(0.02)
    return (time.perf_counter() - start) / (_now() - first)


@numba.njit(**kernels._OPTIONS)
def _timed_share(board, counts, done, job, stage, chunks):
    """Do what `share` does; the clock is kept in the last two columns, which no chunk has."""
    start = _ticks()
    _share(board, counts, done, job, stage, chunks)
    done[stage, -2], done[stage, -1] = start, _ticks()


def _again(function: Any, **others: Any) -> Any:
    """Compile the code of a kernel once more, in which some names stand for other functions."""
    code, name = function.py_func.__code__, function.__name__
    return numba.njit(**kernels._OPTIONS)(FunctionType(code, {**vars(kernels), **others}, name))


_timed_layers = _again(kernels.go_through_layers, share=_timed_share)
_timed_lead_step = _again(kernels.lead_step, go_through_layers=_timed_layers)
