"""What the widgets share that run a model on a text: the reader can enter another text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import traitlets

from qwenkit.errors import QwenkitError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.widgets._base import TURN, Inspector, View, page, words_of
from qwenkit.widgets._carried import carried
from qwenkit.widgets._reading import one_text

AHEAD = 1000  # more choices than a page makes while the kernel reads a text


class PromptInspector(Inspector):
    """Base of the widgets that show a model on a prompt, which code and page can change.

    Attributes:
        model: the model that is run.
        tokenizer: the model's.
        prompt: the text that is shown now; `choose(prompt=...)` changes it.
        kept: names of what stays as it is chosen when the prompt changes.
    """

    kept: ClassVar[tuple[str, ...]] = ()
    prompt = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, model: QwenForCausalLM, tokenizer: Tokenizer, prompt: str) -> None:
        self.model, self.tokenizer = model, tokenizer
        super().__init__(self.read(prompt))
        self.set_trait("prompt", prompt)

    def read(self, prompt: str) -> View:
        """Run the model on a prompt; return a view-model of what it computed.

        Raises:
            InputError: a prompt that this widget does not take.
        """
        raise NotImplementedError

    def aim(self, view: Any, state: dict[str, Any]) -> None:
        """Choose in a new view what fits to what is kept, unless `state` names it."""

    def choose(self, *, prompt: str | None = None, **state: Any) -> None:
        """Choose by code what a reader chooses with the mouse, or enter another prompt.

        Args:
            prompt: the new text; the model is run on it. None: it stays.
            state: what is chosen, by name.

        Raises:
            InputError: a prompt or a value that is not allowed; then nothing changes.
        """
        if prompt is None:
            return super().choose(**state)
        view = self.read(prompt)
        view.choose(**{name: getattr(self.view, name) for name in self.kept} | state)
        self.aim(view, state)
        self.view = view
        with self.hold_sync():  # in one message: the page never draws half of it
            self.data = view.data()
            self.set_trait("prompt", prompt)
            if self._turn:  # what the page chooses until it has the new text is for the old one
                self._turn = {TURN: self._turn[TURN] + AHEAD}
            self.tell()
            self.answer()
        return None

    def asked(self, message: dict[str, Any]) -> None:
        """Run the model on a prompt that was entered in the page."""
        if "prompt" not in message:
            return
        done = {"done": message["ask"], "error": ""}
        try:
            self.choose(prompt=message["prompt"])
        except BaseException as error:
            done["error"] = words_of(error)
            if not isinstance(error, QwenkitError):
                raise  # a bug, or Ctrl-C: the kernel's log tells where
        finally:
            self.send(done)

    def exported(self) -> dict[str, Any]:
        """Return what an exported page holds: the widget's values by name."""
        return super().exported() | {"prompt": self.prompt}

    def settings(self) -> dict[str, Any]:
        """Return what the engine of an exported page has to know besides the model."""
        return {}

    def to_html(self, path: str | Path, live: bool = False) -> Path:
        """Write one page that shows this widget from disk: no kernel, no network.

        Args:
            path: the file.
            live: let the page carry the model and an engine in JavaScript that runs it, so that a
                reader can enter prompts there. For small models in float32, of at most 16 MB.

        Returns:
            The file's path. An existing file is replaced only once the page is complete.

        Raises:
            InputError: the file cannot be written there, or a page cannot carry this model.
        """
        if not live:
            return super().to_html(path)
        ids = one_text(self.model, self.tokenizer, self.prompt)
        engine = carried(self.model, self.tokenizer, ids) | {"settings": self.settings()}
        return self._write(path, page(self, self._png(), engine))
