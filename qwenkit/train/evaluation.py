"""How well a model predicts a text that it has not learned from."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.train._checks import at_least, require
from qwenkit.train.documents import Document
from qwenkit.train.losses import bits_per_byte, perplexity


@dataclass(frozen=True)
class Evaluation:
    """The loss of a text.

    Attributes:
        nats: summed over its tokens.
        num_tokens: how many tokens were predicted.
        num_bytes: how many bytes of text these are, in UTF-8 and as given: the tokenizer
            normalizes to NFC before it splits, and so may see fewer.
    """

    nats: float
    num_tokens: int
    num_bytes: int

    @property
    def loss(self) -> float:
        """Mean loss per token, in nats."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text."""
        return bits_per_byte(self.nats, self.num_bytes)

    def __add__(self, other: Self) -> Self:
        """Return the evaluation of both texts together."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return type(self)(*(one + more for one, more in pairs))


def evaluate(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    *,
    context: int = 512,
    stride: int | None = None,
    batch_size: int = 8,
) -> dict[str, Evaluation]:
    """Return each document's evaluation by its name.

    Every token of a document is predicted exactly once, the first one from `<|endoftext|>`.

    Args:
        model: in training or not; gradients are not computed.
        tokenizer: of the model.
        documents: texts that the model should not have learned from.
        context: how many tokens a window holds.
        stride: windows start this far apart, so that all but a document's first tokens see at least
            context − stride tokens before them; None: context, the fastest and least favorable.
        batch_size: windows in one forward.

    Raises:
        InputError: an empty document, two of the same name, or sizes that make no windows.
    """
    end = tokenizer.document_end
    found: dict[str, Evaluation] = {}
    for document in documents:
        if not document.text or document.name in found:
            what = "two documents are called" if document.text else "nothing is in the document"
            raise InputError(f"{what} {document.name!r}; leave one out")
        ids = torch.tensor([end, *tokenizer.encode(document.text, special=False)])
        losses = token_losses(model, ids, context=context, stride=stride, batch_size=batch_size)
        found[document.name] = Evaluation(float(losses.sum()), len(losses), document.num_bytes)
    return found


@torch.no_grad()
def token_losses(
    model: QwenForCausalLM,
    ids: Tensor,
    *,
    context: int = 512,
    stride: int | None = None,
    batch_size: int = 8,
) -> Float[Tensor, " N"]:
    """Return the loss of each token but the first, in nats, on the CPU.

    Args:
        model: predicts the tokens.
        ids: (N + 1,) one text.
        context: as in `evaluate`.
        stride: as in `evaluate`; at most the context.
        batch_size: as in `evaluate`.

    Raises:
        InputError: a text of fewer than two tokens, or sizes that make no windows.
    """
    stride = context if stride is None else stride
    require(1 <= stride <= context, "stride", stride, f"from 1 to the context of {context}")
    at_least(1, batch_size=batch_size)
    if ids.dim() != 1 or len(ids) < 2:
        raise InputError(f"ids are {tuple(ids.shape)}; one text of at least two tokens is needed")
    count = len(ids) - 1  # tokens to predict
    longest = min(context, count)
    losses = torch.empty(count)
    starts = range(0, max(count - context, 0) + stride, stride)
    for first in range(0, len(starts), batch_size):
        some = starts[first : first + batch_size]
        begins = [min(start, count - longest) for start in some]  # the last window reaches back
        # A token's loss comes from the first window that holds it: skip those seen before.
        seen = [start + context - stride if start else 0 for start in some]
        keep = max(b + longest - s for b, s in zip(begins, seen, strict=True))
        windows = torch.stack([ids[b : b + longest + 1] for b in begins]).to(model.device)
        logits = model(windows[:, :-1], logits_to_keep=keep).float()  # (b, keep, V)
        labels = windows[:, -keep:]  # (b, keep)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").cpu()
        for row, begin, done in zip(loss.view(-1, keep), begins, seen, strict=True):
            end = begin + longest
            losses[done:end] = row[keep - (end - done) :]
    return losses
