"""Time decoding one token next to llama.cpp, with weights of as many bits and as many threads.

    QWENKIT_MODEL=folder python tests/bench/llama.py [--dtypes bfloat16 int8 int4] [--rounds 5]

It needs llama-cpp-python, which no extra of the project installs; pip compiles it for this machine
(`pip install llama-cpp-python`). The checkpoint is written as GGUF by the gguf library: BF16, Q8_0,
and Q4_0 whose embedding and head are Q8_0, as ours of int4 are int8. Both sides continue the same
text greedily and take turns. A ratio above 1 means that qwenkit is faster. As a control that both
hold the same model, it is printed how many of the first tokens are the same.
"""

import argparse
import os
import statistics
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qwenkit as qk
from limit import whole
from rows import apart, ratio, spread
from timing import others_share, seconds, take_turns
from token_parts import Decoding

sys.path.append(str(Path(__file__).parents[1]))  # of the tests, which write GGUF files, too
from gguf_writing import Kind, convert, stored

KINDS = {"bfloat16": Kind.BF16, "int8": Kind.Q8_0, "int4": Kind.Q4_0}
PAST = 128  # tokens in the cache


def q4_0_but_the_head(values: np.ndarray) -> tuple[np.ndarray, Kind]:
    """Return a matrix as Q4_0 stores it; one with more rows than any layer has, as Q8_0."""
    return stored(values, Kind.Q8_0 if len(values) > 1 << 16 else Kind.Q4_0)


class Theirs:
    """What takes a turn: llama.cpp continues a text, token by token."""

    def __init__(self, path: Path, ids: list[int], tokens: int) -> None:
        self.library: Any = import_module("llama_cpp")
        threads = torch.get_num_threads()
        self.model = self.library.Llama(
            str(path), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.ids, self.tokens, self.new = ids, tokens, []
        self.model.eval(ids[:-1])

    def __call__(self) -> float:
        """Return the median of the seconds per token."""
        self.model.n_tokens, self.new = len(self.ids) - 1, [self.ids[-1]]

        def step() -> None:
            self.model.eval(self.new[-1:])
            logits = self.library.llama_get_logits(self.model.ctx)
            values = np.ctypeslib.as_array(logits, (self.model.n_vocab(),))
            self.new.append(int(values.argmax()))

        return statistics.median(seconds(step) for _ in range(self.tokens))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    options = parser.parse_args()
    folder = qk.resolve(os.environ["QWENKIT_MODEL"])
    text = qk.Tokenizer(folder).encode(Path(statistics.__file__).read_text("utf-8"))
    ids = text[: PAST + 1]
    for dtype in options.dtypes:
        with tempfile.TemporaryDirectory() as made:
            kind = q4_0_but_the_head if dtype == "int4" else KINDS[dtype]
            path = convert(folder, Path(made) / "model.gguf", kind)
            theirs, size = Theirs(path, ids, options.tokens), path.stat().st_size
            model = qk.load_pretrained(folder, device="cpu", dtype=dtype)[0]
            ours = Decoding(model, torch.tensor([ids]), options.tokens)
            with others_share() as others:
                found = take_turns({"ours": ours, "theirs": theirs}, options.rounds)
        own, other = whole(found["ours"]), found["theirs"]
        each = (f"{spread(side).median * 1e3:.2f} ms" for side in (own, other))
        times = ratio(other, own)
        steps = qk.generate(model, ids, options.tokens, stop_ids=())
        same = [a.token_id == b for a, b in zip(steps, theirs.new[1:], strict=True)]
        print(
            f"{dtype:<9}{sum(ours.bytes.values()) / 1e6:.0f} MB read per token, {next(each)}; "
            f"llama.cpp {KINDS[dtype].name}, {size / 1e6:.0f} MB, {next(each)}; "
            f"{times.median:.2f}{apart(times)} × llama.cpp; first {[*same, False].index(False)} "
            f"tokens the same; others took {others.share:.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
