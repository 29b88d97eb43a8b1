"""SamplingExplorer: what temperature, top-k, top-p and min-p make of one distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.generate.sampling import Sampling
from qwenkit.model import QwenForCausalLM
from qwenkit.plot.tokens import label
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets.base import Inspector
from qwenkit.widgets.choices import check_names
from qwenkit.widgets.pack import pack
from qwenkit.widgets.reading import one_text

NAMED, SHOWN = 256, 16  # tokens that have a name in the page, and that have a bar
MOST_DRAWS = 10_000
SETTINGS = ("temperature", "top_k", "top_p", "min_p")


@dataclass
class SamplingView:
    """One next-token distribution, and how a token would be chosen from it.

    Attributes:
        logits: (V,) float32, the largest first; without padding rows.
        ids: (V,) whose they are.
        names: of the likeliest tokens, in that order.
        prompt: the tokens before, as they are shown.
        temperature: see `Sampling`, as for the next three.
        top_k: see `Sampling`.
        top_p: see `Sampling`.
        min_p: see `Sampling`.
        seed: of the draws.
        draws: how many tokens were drawn.
    """

    logits: Tensor
    ids: Tensor
    names: list[str]
    prompt: list[str]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    draws: int = 0

    def state(self) -> dict[str, Any]:
        """Return what is chosen now."""
        return {name: getattr(self, name) for name in (*SETTINGS, "seed", "draws")}

    def choose(self, **state: Any) -> None:
        """Choose others; all or, where one cannot be, none of them."""
        check_names(state, self.state())
        new = self.state() | state
        Sampling(**{name: new[name] for name in SETTINGS})  # refuses what cannot be
        for name, most in (("seed", 2**32 - 1), ("draws", MOST_DRAWS)):
            if type(new[name]) is not int or not 0 <= new[name] <= most:
                raise InputError(
                    f"{name} is {new[name]!r}; it must be a whole number from 0 to {most:,}"
                )
        for name, value in state.items():
            setattr(self, name, value)

    def data(self) -> dict[str, Any]:
        """Return what the script draws."""
        return {
            "logits": pack(self.logits.numpy().astype("<f4")),
            "names": self.names,
            "ids": self.ids[: len(self.names)].tolist(),
            "prompt": self.prompt,
            "shown": SHOWN,
            "most_draws": MOST_DRAWS,
        }

    def sampling(self) -> Sampling:
        """Return the settings."""
        return Sampling(**{name: getattr(self, name) for name in SETTINGS})

    def before(self) -> Tensor:
        """Return (V,) the model's own probabilities."""
        return self.logits.softmax(dim=-1)

    def tempered(self) -> Tensor:
        """Return (V,) the probabilities after the temperature alone; at 0, greedy, one is 1."""
        if self.temperature == 0:
            return torch.nn.functional.one_hot(self.logits.argmax(), len(self.logits)).float()
        return Sampling(temperature=self.temperature).probabilities(self.logits, self.ids[:0])

    def after(self) -> Tensor:
        """Return (V,) the probabilities that a token is drawn from."""
        if self.temperature == 0:
            return self.tempered()
        return self.sampling().probabilities(self.logits, self.ids[:0])

    def cuts(self) -> dict[str, tuple[int, float]]:
        """Return how many tokens each filter that is on cuts, and their share after temperature."""
        tempered, kept, found = self.tempered(), torch.ones(len(self.logits), dtype=torch.bool), {}
        for name, logits in self.sampling().transforms(self.logits, self.ids[:0]).items():
            cut = kept & logits.isinf()
            kept = kept & ~cut
            if name != "temperature":
                found[name] = int(cut.sum()), float(tempered[cut].sum())
        return found

    def kept(self) -> tuple[int, float]:
        """Return how many tokens can be drawn, and the share they had after the temperature."""
        if self.temperature == 0:
            return 1, 1.0
        cuts = self.cuts().values()
        count = len(self.logits) - sum(number for number, _ in cuts)
        return count, float(self.tempered()[:count].sum())  # the largest logits come first

    def drawn(self) -> list[int]:
        """Return the tokens drawn, as places in the order of likelihood."""
        reach = np.cumsum(self.after().numpy(), dtype=np.float64)
        numbers = np.fromiter(random_numbers(self.seed, self.draws), np.float64, self.draws)
        return np.searchsorted(reach / reach[-1], numbers, side="right").tolist()  # type: ignore[no-any-return]

    def title(self) -> str:
        """Name the settings, and what they leave."""
        count, share = self.kept()
        others = [f"{name.replace('_', '-')} {getattr(self, name):g}" for name in self.cuts()]
        settings = ", ".join([f"temperature {self.temperature:g}", *others])
        return f"{settings}: {count:,} of {len(self.logits):,} tokens kept ({share:.1%})"

    def alt(self) -> str:
        """Return in words what is shown."""
        before, after = self.before(), self.after()
        few = [
            f"{label(name)} {before[i]:.0%} → {after[i]:.0%}"
            for i, name in enumerate(self.names[:4])
        ]
        words = [
            f"The next token after {label(self.prompt[-1])}; {self.title()}",
            f"the likeliest, before and after: {', '.join(few)}",
            f"entropy {entropy(before):.2f} → {entropy(after):.2f} nats",
        ]
        if self.draws:
            place, count = Counter(self.drawn()).most_common(1)[0]
            name = label(self.names[place]) if place < NAMED else f"number {place}"
            words.append(f"of {self.draws:,} drawn, {count:,} are {name}")
        return f"{'; '.join(words)}."


def entropy(probabilities: Tensor) -> float:
    """Return the entropy in nats."""
    return max(0.0, float(-torch.xlogy(probabilities, probabilities).sum()))  # and never -0


def random_numbers(seed: int, count: int) -> Iterator[float]:
    """Yield numbers from 0 to 1, the same ones that the page draws with (Ettinger's mulberry32)."""
    full = 0xFFFFFFFF
    for _ in range(count):
        seed = (seed + 0x6D2B79F5) & full
        mixed = (seed ^ seed >> 15) * (seed | 1) & full
        mixed ^= (mixed + ((mixed ^ mixed >> 7) * (mixed | 61) & full)) & full
        yield (mixed ^ mixed >> 14) / 2**32


class SamplingExplorer(Inspector):
    """The distribution of a text's next token, and what is left of it once it is filtered.

    The page holds every logit, so that its numbers are exact without a kernel.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text.

    Raises:
        InputError: an empty prompt.
    """

    script = "parts sampling"
    view: SamplingView

    def __init__(self, model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str) -> None:
        input_ids = one_text(model, tokenizer, prompt)
        with torch.no_grad():
            logits = model(input_ids, logits_to_keep=1)[0, -1].float().cpu()
        logits, ids = logits[: model.num_tokens].sort(descending=True, stable=True)
        names, tokens = tokenizer.token_strings(ids[:NAMED]), tokenizer.token_strings(input_ids)
        super().__init__(SamplingView(logits, ids, names, tokens))

    def snapshot(self) -> Figure:
        """Draw the likeliest tokens before and after."""
        view, places = self.view, np.arange(min(SHOWN, len(self.view.names)))
        figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
        before, after = view.before(), view.after()
        for shift, values, colour, name in (
            (-0.2, before, "#b0b0b0", "before"),
            (0.2, after, "#0072b2", "after"),
        ):
            ax.barh(places + shift, values[: len(places)].tolist(), 0.4, color=colour, label=name)
        ax.set_yticks(places, [label(view.names[i]) for i in places], family="monospace")
        ax.invert_yaxis()
        ax.set_xlabel("probability")
        ax.legend(loc="lower right")
        nats = f"entropy {entropy(before):.2f} → {entropy(after):.2f} nats"
        ax.set_title(f"{view.title()}\n{nats}", fontsize=10)
        return figure
