"""What is timed within one process: forwards of loaded models, next to the machine's own limits."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from transformers import Qwen2ForCausalLM
from transformers.utils import logging

import qwenkit as qk
from qwenkit.generate.steps import next_logits
from qwenkit.pretrained import EMBEDDED
from rows import Row, Rows, by_dtype
from sizes import KEPT, Sizes
from timing import BIG, few, memory_speed, seconds, take_turns
from token_parts import bytes_read

DTYPES = ("float32", "bfloat16", "int8", "int4")
Sides = dict[str, Callable[[], float]]
logging.disable_progress_bar()


class Models:
    """The models under test, and what each takes turns at."""

    def __init__(self, folder: str, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self.ours = {d: qk.load_pretrained(folder, device="cpu", dtype=d)[0] for d in DTYPES}
        self.theirs = self.load_theirs("sdpa")
        first = self.ours["float32"]
        generator = torch.Generator().manual_seed(0)
        count = max(*sizes.prefills, *sizes.lengths, *sizes.pasts, sizes.trace) + sizes.steps
        self.ids = torch.randint(0, first.num_tokens, (1, count), generator=generator)
        # What a forward multiplies by: every matrix once, the embedding as the head.
        self.weights = [p for p in first.parameters() if p.dim() == 2]

    def load_theirs(self, attention: str) -> Qwen2ForCausalLM:
        """Return transformers' model in float32."""
        options = {"dtype": torch.float32, "attn_implementation": attention}
        return Qwen2ForCausalLM.from_pretrained(self.folder, **options).eval()

    def prefill(self, dtype: str, length: int) -> float:
        """Return the seconds until the last position's logits."""
        return seconds(lambda: self.ours[dtype](self.ids[:, :length], logits_to_keep=1))

    def prefill_theirs(self, length: int) -> float:
        """The same in transformers; neither side fills a cache."""
        options = {"use_cache": False, "logits_to_keep": 1}
        return seconds(lambda: self.theirs(self.ids[:, :length], **options))

    def decoding(self, dtype: str, past: int, batch: int = 1) -> Callable[[], float]:
        """Return what takes a turn: the seconds that a step of `generate` takes after `past`."""
        model, longest = self.ours[dtype], past + self.sizes.steps
        ids = self.ids[:, :longest].expand(batch, -1)
        cache = qk.KVCache(model.config, batch, max_length=longest)
        model(ids[:, :past], cache=cache, logits_to_keep=1)
        forget = partial(cache.trim, past)
        return self._turn(past, lambda i: next_logits(model, ids[:, i : i + 1], cache, i), forget)

    def decoding_theirs(self, past: int) -> Callable[[], float]:
        """The same in transformers."""
        model, ids = self.theirs, self.ids
        cache = model(ids[:, :past], use_cache=True, logits_to_keep=1).past_key_values
        step = partial(model, past_key_values=cache, use_cache=True)
        forget = partial(cache.crop, -self.sizes.steps)
        return self._turn(past, lambda i: step(ids[:, i : i + 1]), forget)

    def _turn(self, past: int, step: Callable, forget: Callable) -> Callable[[], float]:
        steps = self.sizes.steps

        def run() -> None:
            for i in range(past, past + steps):
                step(i)

        def turn() -> float:
            took = seconds(run) / steps
            forget()
            return took

        return turn

    def products(self, rows: int) -> float:
        """Multiply `rows` tokens by every weight, with F.linear in float32, and nothing else."""
        inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in self.weights}
        pairs = [(inputs[w.shape[1]], w) for w in self.weights]
        head = self.theirs.config.vocab_size  # for the last position alone
        pairs = [(x[-1:] if len(w) == head else x, w) for x, w in pairs]

        def run() -> None:
            for x, weight in pairs:
                F.linear(x, weight)

        return seconds(run)


def scaled(found: Row, factor: float) -> Row:
    return {side: [value * factor for value in values] for side, values in found.items()}


def bench_machine(models: Models, rounds: int) -> Rows:
    """Return what the machine can do at most: read memory, and multiply."""
    big = torch.ones(BIG)
    square = torch.randn(2048, 2048)
    weights = sum(weight.nbytes for weight in models.weights)
    sides: Sides = {
        "memory read, GB/s": partial(memory_speed, big),
        "one-row products read, GB/s": lambda: weights / 1e9 / models.products(1),
        "float32 products, GFLOP/s": lambda: 2 * 2048**3 / 1e9 / seconds(lambda: square @ square),
    }
    return {name: {"machine": found} for name, found in take_turns(sides, rounds).items()}


def bench_forwards(models: Models, rounds: int) -> Rows:
    """Prefill and decode, next to transformers and the bare products."""
    sizes = models.sizes
    part = models.ids[:, : max(sizes.prefills)]
    difference = (models.ours["float32"](part) - models.theirs(part).logits).abs().max().item()
    rows: Rows = {"max |logit difference|": {"qwenkit": [difference]}}
    for length in sizes.prefills:
        sides: Sides = {f"qwenkit {d}": partial(models.prefill, d, length) for d in DTYPES}
        sides["transformers"] = partial(models.prefill_theirs, length)
        sides["bare products"] = partial(models.products, length)
        rows |= by_dtype(f"prefill {length}, s", take_turns(sides, rounds), DTYPES)
    sides = {f"qwenkit {d}": models.decoding(d, sizes.past) for d in DTYPES}
    sides["transformers"] = models.decoding_theirs(sizes.past)
    sides["bare products"] = partial(models.products, 1)
    sides["memory"] = partial(memory_speed, torch.ones(BIG))
    found, decode = take_turns(sides, rounds), f"decode after {sizes.past}"
    rows |= by_dtype(f"{decode}, s a token", found, DTYPES)
    for dtype in DTYPES:
        gigabytes = sum(bytes_read(models.ours[dtype], sizes.past).values()) / 1e9
        own = [gigabytes / took for took in found[f"qwenkit {dtype}"]]
        rows[f"{decode}, GB/s, {dtype}"] = {"qwenkit": own, "memory": found["memory"]}
    return rows


def bench_trace(models: Models, rounds: int) -> Rows:
    """Keep every pattern and hidden state, next to a plain forward and next to transformers."""
    ours, theirs = models.ours["float32"], models.load_theirs("eager")
    part = models.ids[:, : models.sizes.trace]
    wanted = {"output_attentions": True, "output_hidden_states": True, "use_cache": False}
    sides: Sides = {
        "qwenkit": lambda: seconds(lambda: ours(part, trace=qk.Trace(keep=KEPT))),
        "transformers": lambda: seconds(lambda: theirs(part, **wanted)),
        "plain forward": lambda: seconds(lambda: ours(part)),
    }
    return {f"trace of {models.sizes.trace}, s": take_turns(sides, rounds)}


def bench_tiny_coder(rounds: int) -> Rows:
    """Generate greedily with the embedded model, and with transformers' own `generate`.

    Like that, `complete` returns the whole. An iterator of steps also gives each step's
    probabilities, and checks the model for each. Many texts are generated in bfloat16, too, in
    which the model is stored; transformers computes in float32 throughout.
    """
    loaded = {d: qk.load_pretrained(EMBEDDED, device="cpu", dtype=d) for d in DTYPES[:2]}
    model, tokenizer = loaded["float32"]
    theirs = Qwen2ForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    ids, count, texts = tokenizer("def "), 128, 32
    options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}

    def by_theirs(ids: torch.Tensor) -> float:
        mask = torch.ones_like(ids)
        return seconds(lambda: theirs.generate(ids, attention_mask=mask, **options))

    def batch(dtype: str) -> list[list[int]]:
        own, _ = loaded[dtype]
        return qk.generate_batch(own, list(many), max_new_tokens=count, stop_ids=())

    def steps() -> list[qk.Step]:
        return list(qk.generate(model, ids, count, stop_ids=()))

    def whole() -> str:
        return qk.complete(model, tokenizer, "def ", count, stop_ids=())

    sides: Sides = {
        "qwenkit": lambda: seconds(whole),
        "qwenkit, step by step": lambda: seconds(steps),
        "transformers": lambda: by_theirs(ids),
    }
    one = scaled(take_turns(sides, rounds), 1 / count)
    many = torch.randint(model.num_tokens, (texts, 4), generator=torch.manual_seed(0))
    sides = {d: partial(seconds, partial(batch, d)) for d in loaded}
    sides["transformers"] = lambda: by_theirs(many)
    found = scaled(take_turns(sides, rounds), 1 / count / texts)
    other = {"transformers": found["transformers"]}
    name = f"tiny-coder, {texts} texts in {{}}, s a token"
    many_rows = {name.format(d): {"qwenkit": found[d], **other} for d in loaded}
    return {"tiny-coder, s a token": one, **many_rows}


def bench_growth(models: Models, rounds: int) -> Rows:
    """How prefill and decode grow with the length, and decode with the batch."""
    rows: Rows = {}
    sizes = models.sizes
    for length in sizes.lengths:
        sides = {d: partial(models.prefill, d, length) for d in DTYPES}
        found = take_turns(sides, few(rounds, 3 if length <= 1024 else 2))
        rows[f"prefill {length}, ms a token"] = scaled(found, 1e3 / length)
    # All lengths in one group: they are compared with one another.
    sides = {f"{d} {past}": models.decoding(d, past) for d in DTYPES for past in sizes.pasts}
    found = take_turns(sides, few(rounds, 3))
    for past in sizes.pasts:
        row = {d: found[f"{d} {past}"] for d in DTYPES}
        rows[f"decode after {past}, ms a token"] = scaled(row, 1e3)
    for batch in sizes.batches:
        sides = {d: models.decoding(d, sizes.past, batch) for d in DTYPES}
        rows[f"decode, batch {batch}, ms a step"] = scaled(take_turns(sides, few(rounds, 3)), 1e3)
    return rows
