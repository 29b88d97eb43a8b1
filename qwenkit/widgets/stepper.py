"""GenerationStepper: add a token, look at the alternatives, go back and take another one."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.generate._prompts import cache_for
from qwenkit.generate.config import check_count
from qwenkit.generate.steps import next_logits, only_tokens
from qwenkit.generate.text import default_stops
from qwenkit.model import QwenForCausalLM
from qwenkit.plot.style import BLUE, TEXT, VERMILION, WIDEST, plain
from qwenkit.plot.tokens import label
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets._base import View, check_integer
from qwenkit.widgets._pictures import bars
from qwenkit.widgets._prompted import PromptInspector
from qwenkit.widgets._reading import one_text

OFFERED = 8  # alternatives at each step
AHEAD, AHEAD_OTHERS = 10, 3  # steps that an exported page holds: the most likely, another first
CELLS = ListedColormap(["#e8e8e8", BLUE, VERMILION])  # free, prompt, new
LINE = 90  # letters in a line of the title
Choices = list[tuple[int, str, float]]
"""The most likely next tokens: id, name and probability; none after the text's end."""


@dataclass
class StepperView(View):
    """A text that grows token by token, and every step that was visited."""

    chosen = ("path", "at")
    model: QwenForCausalLM
    tokenizer: Tokenizer
    prompt: list[int]  # its ids
    max_new_tokens: int
    path: list[int] = field(default_factory=list)  # the tokens chosen, also those after a step back
    at: int = 0  # how many of them are in the text now
    visited: dict[tuple[int, ...], Choices] = field(default_factory=dict)  # by prefix of a path

    def __post_init__(self) -> None:
        # It holds the prompt and path[:at], apart from a token that stops generation.
        self.cache = cache_for(self.model, 1, len(self.prompt) + self.max_new_tokens)
        self._fed: list[int] = []
        self._feed([])

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse a path with a token that is not offered, and a step outside it."""
        path = state.get("path", self.path)
        if not isinstance(path, list) or any(type(token) is not int for token in path):
            raise InputError(f"path is {path!r}; it must be a list of ids")
        if len(path) > self.max_new_tokens:
            rule = f"at most max_new_tokens={self.max_new_tokens} are allowed"
            raise InputError(f"path has {len(path)} tokens; {rule}")
        at = state.get("at", self.at)
        check_integer("at", at, 0, len(path))
        try:
            self._visit(path)
        except InputError:
            self._feed(self.path[: self.at])
            raise
        self._feed(path[:at])
        return {"path": list(path), "at": at}

    def cached(self) -> int:
        """Return how many tokens of the current text the cache holds; never its stop token."""
        return len(self.prompt) + self.at - (not self.choices())

    def _visit(self, path: list[int]) -> None:
        """Visit the steps of a path that are new, and refuse a token that is not offered."""
        for step, token in enumerate(path):
            prefix = tuple(path[:step])
            if prefix not in self.visited:
                self._feed(path[:step])
            offered = [number for number, *_ in self.visited[prefix]]
            if token not in offered:
                few = f"one of {offered}" if offered else "none: the text has ended"
                raise InputError(f"token {step} of the path is {token}; it must be {few}")
        if tuple(path) not in self.visited:
            self._feed(path)

    @stage("Running the model")
    def _feed(self, path: list[int]) -> None:
        """Make the cache hold the prompt and a path, and note what comes next on the way.

        The prompt goes in at once and each later token alone, as in `generate`: the probabilities
        are then the same to the last bit, whatever was tried before.
        """
        stops = bool(path) and path[-1] in default_stops(self.model, self.tokenizer)
        ids = self.prompt + (path[:-1] if stops else path)
        start = len(self.prompt)
        same = self._shared(ids)
        if tuple(ids[start:]) not in self.visited:  # an interruption may have lost only the answer
            same = min(same, len(ids) - 1)
        same = 0 if same < start else same
        self.cache.trim(same)
        self._fed = ids  # from here on, the cache holds a beginning of it, whatever happens
        ends = [start] if same < start else []
        for end in ends + list(range(max(same, start) + 1, len(ids) + 1)):
            new = torch.tensor([ids[self.cache.length : end]], device=self.model.device)
            logits = next_logits(self.model, new, self.cache, end - start)[0]
            self.visited[tuple(ids[start:end])] = self._most_likely(logits)
        if stops:
            self.visited[tuple(path)] = []

    def _shared(self, ids: list[int]) -> int:
        """Return how many tokens at the beginning of the cache are those of `ids`."""
        held = self._fed[: self.cache.length]
        pairs = enumerate(zip(held, ids, strict=False))
        return next((i for i, (old, new) in pairs if old != new), min(len(held), len(ids)))

    def _most_likely(self, logits: torch.Tensor) -> Choices:
        count = min(OFFERED, self.model.num_tokens)
        found = only_tokens(logits, self.model.num_tokens).softmax(dim=-1).topk(count)
        names = self.tokenizer.token_strings(found.indices)
        return list(zip(found.indices.tolist(), names, found.values.tolist(), strict=True))

    def ahead(self) -> None:
        """Visit steps that a reader may take from here in a page without a kernel."""
        start = self.path[: self.at]
        for rank, (token, *_) in enumerate(self.choices()):
            path = [*start, token]
            for _ in range(AHEAD if rank == 0 else AHEAD_OTHERS):
                if len(path) > self.max_new_tokens:
                    break
                if tuple(path) not in self.visited:
                    self._feed(path)
                if not self.visited[tuple(path)]:
                    break
                path.append(self.visited[tuple(path)][0][0])
        self._feed(start)

    def choices(self) -> Choices:
        """Return the most likely next tokens after the text as it is now."""
        return self.visited[tuple(self.path[: self.at])]

    def data(self) -> dict[str, Any]:
        """Return what the script draws: every step visited, by the path's ids."""
        config, dtype = self.model.config, str(self.model.dtype).removeprefix("torch.")
        visited = {",".join(map(str, path)): choices for path, choices in self.visited.items()}
        return {
            "prompt": self.tokenizer.token_strings(self.prompt),
            "visited": visited,
            "max_new_tokens": self.max_new_tokens,
            "stop_ids": sorted(default_stops(self.model, self.tokenizer)),
            "layers": config.num_hidden_layers,
            "kv_heads": config.num_key_value_heads,
            "dim": config.head_dim,
            "token_bytes": config.kv_bytes_per_token(dtype),
        }

    def title(self) -> str:
        """Say how long the text is."""
        return f"{self.at} token{'s' * (self.at != 1)} after a prompt of {len(self.prompt)}"

    def alt(self) -> str:
        """Return what is shown as text."""
        new = [label(name) for name in self.tokenizer.token_strings(self.path[: self.at])]
        few = ", ".join(f"{label(name)} {one:.0%}" for _, name, one in self.choices()[:4])
        bytes_used = self.cached() * self.data()["token_bytes"]
        words = [
            f"{self.title()}{': ' if new else ''}{' '.join(new)}",
            f"the most likely next are {few}" if few else "the text has ended",
            f"the cache holds {self.cached()} of {self.cache.max_length} tokens in each of "
            f"{self.model.config.num_hidden_layers} layers, {bytes_used:,} bytes",
        ]
        return f"{'; '.join(words)}."


class GenerationStepper(PromptInspector):
    """Generate token by token: take the most likely or another, go back, and see the cache fill.

    Each new step needs the kernel; steps that were visited are shown at once. An exported page
    holds those, and some steps from the current one on. Another text can be entered in the page;
    the new tokens are then dropped.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text to continue.
        max_new_tokens: by how many tokens at most.

    Raises:
        InputError: an empty prompt, or max_new_tokens below 1.
    """

    script = "stepper"
    view: StepperView

    def __init__(
        self, model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str, max_new_tokens: int = 32
    ) -> None:
        check_count("max_new_tokens", max_new_tokens)
        self.max_new_tokens = max_new_tokens
        super().__init__(model, tokenizer, prompt)

    def read(self, prompt: str) -> StepperView:
        """Run the model on a prompt; no token is added yet."""
        ids = one_text(self.model, self.tokenizer, prompt)[0].tolist()
        return StepperView(self.model, self.tokenizer, ids, self.max_new_tokens)

    def answer(self) -> None:
        """Send the steps that are new."""
        self.data = self.view.data()

    def exported(self) -> dict[str, Any]:
        """Return the widget's values, with steps that can be taken from here."""
        self.view.ahead()
        return super().exported() | {"data": self.view.data()}

    def settings(self) -> dict[str, Any]:
        """Return how many tokens there are, and how many are offered."""
        return {"tokens": self.model.num_tokens, "offered": min(OFFERED, self.model.num_tokens)}

    def snapshot(self) -> Figure:
        """Draw the alternatives, and how full the cache is."""
        view, choices = self.view, self.view.choices()
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDEST, 3.6), layout="constrained")
        names, probabilities = [label(one[1]) for one in choices], [one[2] for one in choices]
        bars(left, names, (probabilities, BLUE, None))
        left.set_xlim(0, 1)
        plain(left, "probability", "")
        left.set_title("the next token" if choices else "the text has ended", fontsize=TEXT)
        full = np.zeros((view.model.config.num_hidden_layers, view.cache.max_length))
        full[:, : view.cached()] = 2
        full[:, : len(view.prompt)] = 1
        right.imshow(full, cmap=CELLS, vmin=0, vmax=2, aspect="auto", interpolation="nearest")
        right.set(xlabel="position: prompt, new tokens, free", ylabel="layer")
        length, room = view.cached(), view.cache.max_length
        right.set_title(f"KV cache: {length} of {room} positions", fontsize=TEXT)
        last = view.tokenizer.token_strings(view.path[: view.at])[-10:]
        words = f"{view.title()}: {' '.join(map(label, last))}" if last else view.title()
        figure.suptitle("\n".join(wrap(words, LINE)), fontsize=TEXT + 1)
        return figure
