"""SamplingExplorer: what temperature, top-k, top-p and min-p do to one distribution."""

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

from qwenkit.generate import Sampling
from qwenkit.plot.style import BLUE, PALE, TEXT, WIDEST, plain
from qwenkit.plot.tokens import label
from qwenkit.progress import stage
from qwenkit.widgets._base import View
from qwenkit.widgets._patterns import pack
from qwenkit.widgets._pictures import bars
from qwenkit.widgets._prompted import PromptInspector
from qwenkit.widgets._reading import check_finite, one_text

NAMED, SHOWN = 256, 16  # tokens that have a name in the page, and that have a bar
MOST_DRAWS = 10_000
SETTINGS = ("temperature", "top_k", "top_p", "min_p")


@dataclass
class SamplingView(View):
    """One next-token distribution, and how a token would be sampled from it."""

    chosen = (*SETTINGS, "seed", "draws")
    logits: Tensor  # (V,) float32, the largest first; without padding rows
    ids: Tensor  # (V,) of their tokens
    names: list[str]  # of the most likely tokens, in that order
    prompt: list[str]  # the tokens before, as they are shown
    temperature: float = 1.0  # see `Sampling`, as for the next three
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # of the draws
    draws: int = 0  # how many tokens were drawn

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse settings that `Sampling` refuses."""
        new = self.state() | state
        Sampling(**{name: new[name] for name in SETTINGS})
        return super().checked(state)

    def largest(self) -> dict[str, int]:
        """Return the largest seed, and the most draws."""
        return {"seed": 2**32 - 1, "draws": MOST_DRAWS}

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
        """Return how many tokens each filter cuts, and their probability at the temperature."""
        tempered, kept, found = self.tempered(), torch.ones(len(self.logits), dtype=torch.bool), {}
        for name, logits in self.sampling().transforms(self.logits, self.ids[:0]).items():
            cut = kept & logits.isinf()
            kept = kept & ~cut
            if name != "temperature":
                found[name] = int(cut.sum()), float(tempered[cut].sum())
        return found

    def kept(self) -> tuple[int, float]:
        """Return how many tokens can be drawn, and their probability at the temperature."""
        if self.temperature == 0:
            return 1, 1.0
        cuts = self.cuts().values()
        count = len(self.logits) - sum(number for number, _ in cuts)
        return count, float(self.tempered()[:count].sum())  # the largest logits come first

    def drawn(self) -> list[int]:
        """Return the tokens drawn, as ranks in the order of likelihood."""
        reach = np.cumsum(self.after().numpy(), dtype=np.float64)
        numbers = np.fromiter(_random_numbers(self.seed, self.draws), np.float64, self.draws)
        return np.searchsorted(reach / reach[-1], numbers, side="right").tolist()  # type: ignore[no-any-return]

    def entropies(self) -> str:
        """Return the entropy before and after, as text."""
        return f"entropy {_entropy(self.before()):.2f} → {_entropy(self.after()):.2f} nats"

    def title(self) -> str:
        """Name the settings, and what they keep."""
        count, probability = self.kept()
        others = [f"{name.replace('_', '-')} {getattr(self, name):g}" for name in self.cuts()]
        settings = ", ".join([f"temperature {self.temperature:g}", *others])
        return f"{settings}: {count:,} of {len(self.logits):,} tokens kept ({probability:.1%})"

    def alt(self) -> str:
        """Return what is shown as text."""
        before, after = self.before(), self.after()
        few = [
            f"{label(name)} {before[i]:.0%} → {after[i]:.0%}"
            for i, name in enumerate(self.names[:4])
        ]
        words = [
            f"The next token after {label(self.prompt[-1])}; {self.title()}",
            f"the most likely, before and after: {', '.join(few)}",
            self.entropies(),
        ]
        if self.draws:
            rank, count = Counter(self.drawn()).most_common(1)[0]
            name = label(self.names[rank]) if rank < NAMED else f"number {rank}"
            words.append(f"of {self.draws:,} drawn, {count:,} are {name}")
        return f"{'; '.join(words)}."


def _entropy(probabilities: Tensor) -> float:
    """Return the entropy in nats."""
    return max(0.0, float(-torch.xlogy(probabilities, probabilities).sum()))  # and never -0


def _random_numbers(seed: int, count: int) -> Iterator[float]:
    """Yield numbers from 0 to 1, the same that the page draws with (Ettinger's mulberry32)."""
    full = 0xFFFFFFFF
    for _ in range(count):
        seed = (seed + 0x6D2B79F5) & full
        mixed = (seed ^ seed >> 15) * (seed | 1) & full
        mixed ^= (mixed + ((mixed ^ mixed >> 7) * (mixed | 61) & full)) & full
        yield (mixed ^ mixed >> 14) / 2**32


class SamplingExplorer(PromptInspector):
    """The distribution of a text's next token, and what the filters leave of it.

    The page holds every logit, so its numbers are exact without a kernel. Another text can be
    entered in the page; the settings stay.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text.

    Raises:
        InputError: an empty prompt, or logits that are not finite.
    """

    script = "sampling"
    kept = SamplingView.chosen
    view: SamplingView

    def read(self, prompt: str) -> SamplingView:
        """Run the model on a prompt."""
        model, tokenizer = self.model, self.tokenizer
        input_ids = one_text(model, tokenizer, prompt)
        with stage("Running the model"), torch.no_grad():
            logits = model(input_ids, logits_to_keep=1)[0, -1].float().cpu()
        check_finite("a logit", logits[: model.num_tokens])
        logits, ids = logits[: model.num_tokens].sort(descending=True, stable=True)
        names, tokens = tokenizer.token_strings(ids[:NAMED]), tokenizer.token_strings(input_ids)
        return SamplingView(logits, ids, names, tokens)

    def settings(self) -> dict[str, Any]:
        """Return how many tokens there are, and how many have a name and a bar."""
        return {
            "tokens": self.model.num_tokens,
            "named": NAMED,
            "shown": SHOWN,
            "most_draws": MOST_DRAWS,
        }

    def snapshot(self) -> Figure:
        """Draw the most likely tokens before and after."""
        view, names = self.view, self.view.names[:SHOWN]
        figure, ax = plt.subplots(figsize=(WIDEST, 5), layout="constrained")
        before, after = (p[: len(names)].tolist() for p in (view.before(), view.after()))
        bars(ax, [*map(label, names)], (before, PALE, "before"), (after, BLUE, "after"))
        plain(ax, "probability", "").legend(frameon=False, fontsize=TEXT, loc="lower right")
        ax.set_title(f"{view.title()}\n{view.entropies()}", fontsize=TEXT + 1)
        return figure
