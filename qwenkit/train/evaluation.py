"""How well a model foresees a text it has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwenkit.errors import InputError
from qwenkit.model import QwenForCausalLM
from qwenkit.tokenizer import Tokenizer
from qwenkit.train.documents import Document
from qwenkit.train.losses import bits_per_byte, perplexity


@dataclass(frozen=True)
class Evaluation:
    """The loss of a text.

    Attributes:
        nats: summed over its tokens.
        num_tokens: how many tokens were foreseen.
        num_bytes: how many bytes of text these are, in UTF-8 and as the text came: the tokenizer
            normalises to NFC before it cuts, and may so see fewer.
    """

    nats: float
    num_tokens: int
    num_bytes: int

    @property
    def loss(self) -> float:
        """Mean loss a token, in nats."""
        return self.nats / self.num_tokens

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of text."""
        return bits_per_byte(self.nats, self.num_bytes)

    def __add__(self, other: Evaluation) -> Evaluation:
        """Return the evaluation of both texts together."""
        return Evaluation(
            self.nats + other.nats,
            self.num_tokens + other.num_tokens,
            self.num_bytes + other.num_bytes,
        )


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

    Every token of a document is foreseen exactly once, the first one from `<|endoftext|>`.

    Args:
        model: in training or not; gradients are not computed.
        tokenizer: of the model.
        documents: texts that the model should not have learned from.
        context: how many tokens a window holds.
        stride: windows start this far apart, so that all but a document's first tokens see at least
            context − stride tokens before them; None: context, the fastest and least favourable.
        batch_size: windows in one forward.

    Raises:
        InputError: an empty document, two of one name, or sizes that make no windows.
    """
    end = tokenizer.special_id("<|endoftext|>")
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
        model: gives the probabilities.
        ids: (N + 1,) one text.
        context: tokens in a window.
        stride: distance of the windows' starts, at most the context; None: the context.
        batch_size: windows in one forward.

    Raises:
        InputError: a text of fewer than two tokens, or sizes that make no windows.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise InputError(f"stride is {stride}; it must be from 1 to the context of {context}")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1")
    if ids.dim() != 1 or len(ids) < 2:
        raise InputError(f"ids are {tuple(ids.shape)}; one text of at least two tokens is needed")
    count = len(ids) - 1  # tokens to foresee
    losses = torch.empty(count)
    starts = list(range(0, max(count - context, 0) + stride, stride))
    for first in range(0, len(starts), batch_size):
        some = starts[first : first + batch_size]
        longest = min(context, count)
        begins = [min(start, count - longest) for start in some]  # the last window reaches back
        windows = torch.stack([ids[b : b + longest + 1] for b in begins]).to(model.device)
        logits = model(windows[:, :-1]).float()  # (b, T, V)
        loss = F.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none").cpu()
        for row, (start, begin) in enumerate(zip(some, begins, strict=True)):
            # A token's loss comes from the first window that holds it: skip the one before's.
            done = 0 if start == 0 else start + context - stride - begin
            losses[begin + done : begin + longest] = loss[row, done:]
    return losses
