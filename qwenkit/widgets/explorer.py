"""ModelExplorer: the whole model, computed and drawn in the page, for any prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from qwenkit.checkpoint import Checkpoint
from qwenkit.errors import InputError
from qwenkit.generate import Sampling
from qwenkit.interpret import ablate_heads
from qwenkit.model import QwenForCausalLM
from qwenkit.plot import architecture
from qwenkit.plot.style import BLUE
from qwenkit.plot.tokens import label
from qwenkit.pretrained import EMBEDDED, load_pretrained, resolve
from qwenkit.progress import stage
from qwenkit.tokenizer import Tokenizer
from qwenkit.trace import Edit, Trace
from qwenkit.widgets._base import Inspector, View, check_integer
from qwenkit.widgets._carried import UNKNOWN_THERE, packed, weights, why_not
from qwenkit.widgets._pictures import bars
from qwenkit.widgets._reading import check_finite

MOST_PARAMETERS = 32_000_000  # 64 MB in bfloat16: more is slow in a page
MOST_READ = 256  # tokens of a text: the small maps, and the time for a new one, grow with them
SHOWN = 8  # bars
PROMPT = 'def is_even(n):\n    """Return True if n is even."""\n    return'
EXAMPLES = {  # name -> prompt
    "Is a number even?": PROMPT,
    "Is a number prime?": 'def is_prime(n):\n    """Return True if n is prime."""\n',
    "Area of a rectangle": "def area(width, height):\n    return width *",
    "Count the vowels": (
        'def count_vowels(text):\n    """Return how many vowels are in text."""\n    return'
    ),
    "A class": "class Point:\n    def __init__(self, x, y):\n        self.x =",
    "Repeated words": "red green blue one two red green blue one two red green",
    "English, which it has hardly seen": "The capital of France is",
}


@dataclass
class ExplorerView(View):
    """A model, a prompt, and what is switched off."""

    chosen = ("prompt", "temperature", "top_k", "off")
    model: QwenForCausalLM
    tokenizer: Tokenizer
    prompt: str = PROMPT
    temperature: float = 0.0  # see `Sampling`, as for the next one; 0: greedy
    top_k: int = 0
    off: list[list[int | None]] = field(default_factory=list)  # [layer, head]; None: its MLP

    def checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """Refuse a prompt that is not a string, impossible settings, and unknown heads."""
        new = self.state() | state
        if not isinstance(new["prompt"], str):
            raise InputError(f"prompt is {new['prompt']!r}; it must be a string")
        Sampling(temperature=new["temperature"], top_k=new["top_k"])
        if not isinstance(new["off"], list):
            raise InputError(f"off is {new['off']!r}; it must be a list of [layer, head]")
        for one in new["off"]:
            self._check_off(one)
        return state

    def _check_off(self, one: object) -> None:
        if not isinstance(one, list) or len(one) != 2:
            rule = "[layer, head], or [layer, None] for the MLP"
            raise InputError(f"off holds {one!r}; it must hold {rule}")
        layer, head = one
        check_integer("the layer in off", layer, 0, self.model.config.num_hidden_layers - 1)
        if head is not None:
            check_integer("the head in off", head, 0, self.model.config.num_attention_heads - 1)

    def data(self) -> dict[str, Any]:
        """Return what the script needs in addition to the model's files."""
        return {
            "examples": EXAMPLES,
            "tokens": self.model.num_tokens,
            "stop": list(self.model.stop_ids),
            "most": MOST_READ,
        }

    def edits(self) -> dict[str, Edit]:
        """Return the edits that switch off what `off` names."""
        heads = [(layer or 0, head) for layer, head in self.off if head is not None]
        mlps = [layer for layer, head in self.off if head is None]
        return {
            **ablate_heads(heads),
            **{f"layers.{layer}.mlp.out": torch.zeros_like for layer in mlps},
        }

    def ids(self) -> Tensor:
        """Return (1, T) the prompt's tokens; what is too long is cut off, as in the page."""
        return self.tokenizer(self.prompt)[:, :MOST_READ].to(self.model.device)

    @torch.no_grad()
    def next_tokens(self) -> list[tuple[str, float]]:
        """Return the most likely next tokens and their probabilities; none after no prompt."""
        ids = self.ids()
        if ids.shape[1] == 0:
            return []
        with stage("Running the model"):
            trace = Trace(keep=(), edits=self.edits())
            logits = self.model(ids, trace=trace, logits_to_keep=1)[0, -1].float().cpu()
        logits = logits[: self.model.num_tokens]
        check_finite("a logit", logits)
        found = logits.softmax(-1).topk(min(SHOWN, len(logits)))
        names = self.tokenizer.token_strings(found.indices)
        return list(zip(names, found.values.tolist(), strict=True))

    def title(self) -> str:
        """Name the prompt's length, and what is off."""
        count = self.ids().shape[1]
        words = f"the model on {count:,} token{'s' * (count != 1)}"
        return f"{words}, {len(self.off)} parts off" if self.off else words

    def alt(self) -> str:
        """Return what is shown as text."""
        config, found = self.model.config, self.next_tokens()
        likely = ", ".join(f"{label(name)} {part:.0%}" for name, part in found[:4])
        return (
            f"The drawing of {self.title()}: {config.num_hidden_layers} layers of "
            f"{config.num_attention_heads} heads; the most likely next tokens: {likely or 'none'}."
        )


class ModelExplorer(Inspector):
    """The whole model as a drawing that computes: type a prompt, follow a token, switch heads off.

    The model runs in the page, in JavaScript; once it is shown, it needs no kernel.

    Args:
        model: None: the embedded model; a source as `load_pretrained` takes it; or a
            model of at most 32 million parameters, and then with its tokenizer.
        tokenizer: the model's; None: the folder's.
        prompt: the first text; a reader may type another one.

    Raises:
        InputError: a model that is too large or that the page cannot run; a model without its
            tokenizer; or a prompt that is not a string.
        QwenkitError: as in `load_pretrained`.
    """

    script = "explorer"
    styles = ("style.css", "explorer.css", "explorer_panels.css")
    view: ExplorerView

    def __init__(
        self,
        model: QwenForCausalLM | str | Path | None = None,
        tokenizer: Tokenizer | None = None,
        prompt: str = PROMPT,
    ) -> None:
        view = ExplorerView(*_loaded(model, tokenizer))
        view.choose(prompt=prompt)
        super().__init__(view)

    @cached_property
    def files(self) -> dict[str, Any]:
        """What the page computes with: config and tokenizer, and the weights, compressed."""
        return packed(self.view.model, self.view.tokenizer, weights(self.view.model))

    def asked(self, message: dict[str, Any]) -> None:
        """Send the files to a page that asks: as a trait they would be saved in the notebook."""
        if message.get("files"):
            small = {name: value for name, value in self.files.items() if name != "weights"}
            self.send({"files": small}, buffers=[self.files["weights"]])

    def exported(self) -> dict[str, Any]:
        """Return what an exported page holds: the model's files, too."""
        return {**super().exported(), "files": self.files}

    def snapshot(self) -> Figure:
        """Draw the model, and below it the next token's bars."""
        figure = plt.figure(figsize=(9, 9.6), facecolor="white")
        architecture(self.view.model.config, ax=figure.add_axes((0, 0.24, 1, 0.76)))
        ax, found = figure.add_axes((0.2, 0.045, 0.72, 0.15)), self.view.next_tokens()
        bars(ax, [label(name) for name, _ in found], ([part for _, part in found], BLUE, None))
        ax.set_xlim(0, 1)
        ax.set_title(f"Next token: {self.view.title()}", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        return figure


def _loaded(
    model: QwenForCausalLM | str | Path | None, tokenizer: Tokenizer | None
) -> tuple[QwenForCausalLM, Tokenizer]:
    """Return the model and its tokenizer; what no page can run is refused before it is loaded."""
    if isinstance(model, QwenForCausalLM):
        if not isinstance(tokenizer, Tokenizer):
            kind = type(tokenizer).__name__
            raise InputError(f"tokenizer is a {kind}; a model needs its Tokenizer: give both")
        _check(model.config)
        reason = why_not(model, tokenizer(PROMPT).to(model.device))
        if reason:
            raise InputError(f"ModelExplorer computes the model in the page: {reason}")
        return model, tokenizer
    if model is not None and not isinstance(model, str | Path):
        kind = type(model).__name__
        raise InputError(f"model is a {kind}; it must be a folder, a Hub id, a model, or None")
    if tokenizer is not None:
        raise InputError("tokenizer was given without a model; a folder has its own: leave it out")
    folder = resolve(EMBEDDED if model is None else model)
    _check(Checkpoint(folder).config)
    return load_pretrained(folder, device="cpu", dtype="float32")


def _check(config: Any) -> None:
    """Refuse a model that is too large for a page, or has parts that the script lacks."""
    if config.num_parameters > MOST_PARAMETERS:
        raise InputError(
            f"the model has {config.num_parameters:,} parameters; ModelExplorer computes in the "
            f"page and takes at most {MOST_PARAMETERS:,}: take the embedded model, or a "
            "LayerInspector"
        )
    for name in UNKNOWN_THERE:
        if getattr(config, name):
            raise InputError(f"the model has {name}, which ModelExplorer does not compute")
