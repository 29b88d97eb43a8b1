"""A KV cache in pages: the memory that texts share, and how a forward pass reads it.

Source: Kwon et al. 2023, "Efficient memory management for large language model serving with
PagedAttention". Which text holds which pages is the business of `qwenkit.serve.PagedCache`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qwenkit.config import QwenConfig
from qwenkit.model.cache import KVCache


@dataclass(eq=False)
class PageTable:
    """The pages of one text, in order.

    Attributes:
        pages: their numbers; all but the last few are full.
        length: tokens whose keys and values are there.
    """

    pages: list[int] = field(default_factory=list)
    length: int = 0


class PagePool:
    """The memory of the pages, one pool per layer.

    Args:
        config: gives layers, kv heads and head_dim.
        num_pages: pages in the pool.
        page_size: tokens per page.

    Attributes:
        keys: one tensor per layer, (num_pages + 1, KV, page_size, D), made at the first forward
            pass; the last page stays zero: padding is read from it.
        values: the same for values.
    """

    def __init__(self, config: QwenConfig, num_pages: int, page_size: int) -> None:
        self.config = config
        self.num_pages = num_pages
        self.page_size = page_size
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the pool; 0 before the first forward pass."""
        return sum(pool.nbytes for pool in (*self.keys, *self.values))

    def allocate(self, like: Tensor) -> None:
        """Make the pool in a tensor's dtype and on its device."""
        config = self.config
        shape = (
            self.num_pages + 1, config.num_key_value_heads, self.page_size, config.head_dim
        )  # fmt: skip

        def pool() -> list[Tensor]:
            layers = range(config.num_hidden_layers)
            return [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in layers]

        with torch.inference_mode(False):  # so that it can be written outside of it, too
            self.keys, self.values = pool(), pool()


class PageBatch(KVCache):
    """The pages of several texts as the `KVCache` of one forward pass.

    The model knows nothing of pages. Each layer writes the new tokens into their pages, and gets
    all tokens of each text as one row, with padding on the left. So every layer copies all keys
    and values that it attends to: 2 · L · KV · D numbers per token of every text, at every step,
    where a `KVCache` returns a view. With 32 texts of tiny-coder on two cores that is 12 % of a
    decode step at 64 tokens each, and 27 % at 512 (tests/bench/batching.py). A gathered batch is
    not kept for the next step, which may have other rows. A real server has an attention kernel
    that reads the pages through the table, and copies nothing (Kwon et al. 2023, sections 4.1 and
    5.1); so does the decode step of `qwenkit.fast`.

    Args:
        pool: holds the pages.
        tables: of B texts, with room for their new tokens.
        counts: how many new tokens each text is fed; T is the largest, and rows with fewer are
            padded on the left.

    Attributes:
        mask: (B, S) True for a token of the text, False for padding: the model's attention_mask;
            None: one text, which has no padding.
    """

    def __init__(self, pool: PagePool, tables: Sequence[PageTable], counts: Sequence[int]) -> None:
        self.ends = [table.length + count for table, count in zip(tables, counts, strict=True)]
        super().__init__(pool.config, len(tables), max(self.ends))
        self.pool, self.tables, self.counts = pool, tables, counts
        self.length = max(self.ends) - max(counts)  # columns before the queries
        self.mask: Bool[Tensor, "B S"] | None = None if len(tables) == 1 else self._at >= 0
        self._places: tuple[Tensor, Tensor, Tensor] | None = None  # as _find_places returns them

    @property
    def _at(self) -> Int[Tensor, "B S"]:
        """Which token of its text each column is; below 0 for padding."""
        return torch.arange(self.max_length) - (self.max_length - torch.tensor(self.ends)[:, None])

    def _find_places(self) -> tuple[Bool[Tensor, "B T"], Int[Tensor, "N KV"], Int[Tensor, " M"]]:
        """Return which queries are new tokens, where they are written, and where all are read.

        The places, one per head and token, count vectors of D numbers in a layer's pool.
        """
        size, heads = self.pool.page_size, self.config.num_key_value_heads
        zeros, at = self.pool.num_pages, self._at  # the page that stays zero
        most = max(len(table.pages) for table in self.tables)
        pages = torch.tensor([t.pages + [zeros] * (most - len(t.pages)) for t in self.tables])
        pages = pages.gather(1, at.clamp(min=0) // size).where(at >= 0, zeros)  # (B, S)
        first = pages * heads * size + at % size  # (B, S) of head 0
        slots = first[:, None] + torch.arange(heads)[:, None] * size  # (B, KV, S)
        queries = torch.arange(max(self.counts))
        new = queries >= max(self.counts) - torch.tensor(self.counts)[:, None]  # (B, T)
        written = slots[:, :, self.length :].transpose(1, 2)[new]  # (N, KV)
        device = self.pool.keys[0].device
        return new.to(device), written.to(device), slots.flatten().to(device)  # M is B · KV · S

    def update(
        self, layer: int, keys: Float[Tensor, "B KV T D"], values: Float[Tensor, "B KV T D"]
    ) -> tuple[Float[Tensor, "B KV S D"], Float[Tensor, "B KV S D"]]:
        """Write one layer's new keys and values into their pages; return each text's as a row.

        Raises:
            InputError: see `KVCache.update`.
        """
        if not self.pool.keys:
            self.pool.allocate(keys)
        self.keys, self.values = self.pool.keys, self.pool.values
        self._check(layer, keys, values)
        places = self._places = self._places or self._find_places()
        return (
            self._through(self.keys[layer], keys, *places),
            self._through(self.values[layer], values, *places),
        )

    def _through(
        self,
        pool: Tensor,
        new: Float[Tensor, "B KV T D"],
        is_new: Bool[Tensor, "B T"],
        written: Int[Tensor, "N KV"],
        read: Int[Tensor, " M"],
    ) -> Float[Tensor, "B KV S D"]:
        """Write into one layer's pool, and gather from it."""
        batch, heads, _, dim = new.shape
        vectors = pool.view(-1, dim)  # (pages · KV · page_size, D)
        vectors[written] = new.transpose(1, 2)[is_new]  # (N, KV, D)
        return vectors.index_select(0, read).view(batch, heads, -1, dim)  # (B, KV, S, D)
