"""What an int8 cache costs: its bytes, what it loses on code, greedy text, and the time of a step.

    QWENKIT_MODEL=folder python tests/bench/int8_cache.py [--dtype bfloat16] [--tokens N]

"same token" is the share of positions at which the most likely next token is that of the model with
a cache in its own dtype. The code is that of int4.py. A step decodes one token after the first N
of one file; both kinds of cache take turns, and the medians are printed.
"""

import argparse
import inspect
import os
import statistics
import textwrap
import time

import torch

import qwenkit as qk
from int4 import TOKENS, judged
from qwenkit.generate import cache_for
from qwenkit.generate.steps import next_logits

KINDS = ("auto", "int8")
TEXTS = ("def count_vowels(text):\n", "class Stack:\n    def __init__(self):\n", "import os\n\n")
NEW = 64  # tokens of each greedy text
STEPS = 15


def agreement(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> tuple[int, int]:
    """Return how many tokens of greedy texts stand at the same place with both caches, of how many.

    A text that has differed once goes on from other tokens, so that later ones differ, too.
    """
    same = 0
    for text in TEXTS:
        options = {"max_new_tokens": NEW, "stop_ids": ()}
        both = [qk.generate(model, tokenizer(text), cache_dtype=kind, **options) for kind in KINDS]
        same += sum(a.token_id == b.token_id for a, b in zip(*both, strict=True))
    return same, NEW * len(TEXTS)


def step_seconds(
    model: qk.QwenForCausalLM, ids: torch.Tensor
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the median time of a decode step after a text, and the bytes of each kind of cache."""
    caches = {kind: cache_for(model, 1, ids.shape[1] + 1, kind) for kind in KINDS}
    for cache in caches.values():
        next_logits(model, ids, cache, 0)
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(STEPS):
        for kind, cache in caches.items():
            start = time.perf_counter()
            next_logits(model, ids[:, -1:], cache, 1)
            took[kind].append(time.perf_counter() - start)
            cache.trim(ids.shape[1])
    return (
        {kind: statistics.median(seconds[1:]) for kind, seconds in took.items()},
        {kind: cache.nbytes for kind, cache in caches.items()},
    )


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each file")
    options = parser.parse_args()
    folder = os.environ.get("QWENKIT_MODEL")
    model, tokenizer = qk.load_pretrained(folder, device="cpu", dtype=options.dtype)
    ids = tokenizer(inspect.getsource(textwrap))[:, : options.tokens]  # (1, T)
    seconds, size = step_seconds(model, ids)
    likely = None
    for kind in KINDS:
        score, _, own = judged(model, tokenizer, options.tokens, kind)
        likely = own if likely is None else likely
        same = (own == likely).float().mean().item()
        print(
            f"{kind}  {size[kind]:,} bytes for {ids.shape[1] + 1} tokens  {score:.5f} bits per "
            f"byte on {len(own)} tokens  same token {same:.2%}  step {seconds[kind]:.3f} s",
            flush=True,
        )
    print("greedy texts: {} of {} tokens are the same".format(*agreement(model, tokenizer)))


if __name__ == "__main__":
    main()
