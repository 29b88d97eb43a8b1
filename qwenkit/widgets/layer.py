"""LayerInspector: what one head, one layer and one token do, in panels that move together."""

from __future__ import annotations

from typing import Any

import traitlets
from matplotlib.figure import Figure

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets._base import Inspector
from qwenkit.widgets._layer_picture import draw_layer
from qwenkit.widgets._layer_view import LayerView
from qwenkit.widgets._outputs import guesses
from qwenkit.widgets._patterns import LARGEST, Patterns, read_patterns
from qwenkit.widgets._reading import one_text, read_layers

CHEAP = 100e9  # multiplications; if the lens of all tokens takes fewer, it is computed at once


class LayerInspector(Inspector):
    """One layer, one head, one token: linked panels, from the attention to the output.

    Click a token or use arrow keys; the panels follow at once. Only two things need the kernel:
    ablating a head, and, on a large model with a long text, the logit lens of a token.

    Args:
        model: any Qwen2 model.
        tokenizer: the model's.
        prompt: the text, of at most 512 tokens.
        other_prompt: a second text, whose attention is shown next to it.

    Raises:
        InputError: an empty prompt, or one that is too long.
    """

    script = "parts maps layer_panels layer"
    view: LayerView
    lens = traitlets.Dict().tag(sync=True)  # the answer for a token whose lens was not sent yet
    without = traitlets.Dict().tag(sync=True)  # the answer for the head that is off

    def __init__(
        self,
        model: QwenForCausalLM,
        tokenizer: Tokenizer,
        prompt: str,
        other_prompt: str | None = None,
    ) -> None:
        patterns = _short(read_patterns(model, tokenizer, prompt))
        input_ids = one_text(model, tokenizer, prompt)
        reading = read_layers(model, input_ids)
        other = None
        if other_prompt is not None:
            other = _short(read_patterns(model, tokenizer, other_prompt))
        view = LayerView(model, tokenizer, input_ids, patterns, reading, other)
        last = len(patterns.tokens) - 1
        streams = reading.streams
        if streams.numel() * model.config.vocab_size < CHEAP:
            view.lenses |= {
                token: guesses(model, tokenizer, streams[:, token]) for token in range(last + 1)
            }
        view.choose(token=last, other_token=len(other.tokens) - 1 if other else 0)
        view.lens()
        super().__init__(view)
        self.observe(self._answer, "state")

    def _answer(self, _change: object) -> None:
        """Send what the page cannot compute, with the token or head that it belongs to."""
        view = self.view
        if str(view.token) not in self.data["lens"]:
            self.lens = {"token": view.token, "rows": view.lens()}
        compared = view.compared()
        if compared is not None:
            self.without = compared.data()

    def exported(self) -> dict[str, Any]:
        """Return all that was computed so far."""
        lenses = {str(token): rows for token, rows in self.view.lenses.items()}
        return {**super().exported(), "data": self.data | {"lens": lenses}, "without": self.without}

    def snapshot(self) -> Figure:
        """Draw the panels, and what has changed if a head is off."""
        return draw_layer(self.view)


def _short(patterns: Patterns) -> Patterns:
    if patterns.factor > 1:
        raise InputError(
            f"the prompt has {len(patterns.tokens):,} tokens; LayerInspector takes at most "
            f"{LARGEST}: shorten it, or use AttentionExplorer"
        )
    return patterns
