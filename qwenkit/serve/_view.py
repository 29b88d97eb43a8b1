"""How the taught model reads pages: for one forward pass, they are gathered into a batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qwenkit.model import KVCache
from qwenkit.serve.pages import PagedCache, PageTable


class PageBatch(KVCache):
    """The pages of several texts as the `KVCache` of one forward pass.

    The model knows nothing of pages. Each layer writes the new tokens into their pages, and gets
    all tokens of each text as one row, with padding on the left. So every layer copies all keys
    and values that it attends to: 2 · L · KV · D numbers per token of every text, at every step,
    where a `KVCache` returns a view. With 32 texts of tiny-coder on one CPU core that is 6 % of a
    decode step at 64 tokens each, and a quarter at 512 (tests/bench/batching.py). A gathered batch
    is not kept for the next step, which may have other rows. A real server has an attention kernel
    that reads the pages through the table, and copies nothing (Kwon et al. 2023, sections 4.1 and
    5.1).

    Args:
        pool: holds the pages.
        tables: of B texts, with room for their new tokens.
        counts: how many new tokens each text is fed; T is the largest, and rows with fewer are
            padded on the left.

    Attributes:
        mask: (B, S) True for a token of the text, False for padding: the model's attention_mask.
    """

    def __init__(
        self, pool: PagedCache, tables: Sequence[PageTable], counts: Sequence[int]
    ) -> None:
        ends = [table.length + count for table, count in zip(tables, counts, strict=True)]
        super().__init__(pool.config, len(tables), max(ends))
        self.pool = pool
        self.length = max(ends) - max(counts)  # columns before the queries
        at = torch.arange(max(ends)) - (max(ends) - torch.tensor(ends)[:, None])  # (B, S)
        self.mask: Bool[Tensor, "B S"] = at >= 0
        queries = torch.arange(max(counts))
        self._new = queries >= max(counts) - torch.tensor(counts)[:, None]  # (B, T)
        slots = self._addresses(tables, at)  # (B, KV, S)
        self._new_slots = slots[:, :, self.length :].transpose(1, 2)[self._new]  # (N, KV)
        self._all_slots = slots.flatten()  # (B · KV · S)

    def _addresses(self, tables: Sequence[PageTable], at: Int[Tensor, "B S"]) -> Tensor:
        """Return where in a layer's pool each head of each token is, in vectors of D numbers."""
        size, heads = self.pool.page_size, self.config.num_key_value_heads
        zeros = self.pool.num_pages  # the page that stays zero
        most = max(len(table.pages) for table in tables)
        pages = torch.tensor([t.pages + [zeros] * (most - len(t.pages)) for t in tables])
        pages = pages.gather(1, at.clamp(min=0) // size)  # (B, S)
        pages = pages.where(self.mask, zeros)
        first = pages * heads * size + at % size  # (B, S) of head 0
        return first[:, None] + torch.arange(heads)[:, None] * size  # (B, KV, S)

    def update(
        self, layer: int, keys: Float[Tensor, "B KV T D"], values: Float[Tensor, "B KV T D"]
    ) -> tuple[Float[Tensor, "B KV S D"], Float[Tensor, "B KV S D"]]:
        """Write one layer's new keys and values into their pages; return each text's as a row.

        Raises:
            InputError: see `KVCache.update`.
        """
        self.pool.allocate(keys)
        self.keys, self.values = self.pool.keys, self.pool.values
        self._check(layer, keys, values)
        if self._new.device != keys.device:
            moved = (x.to(keys.device) for x in (self._new, self._new_slots, self._all_slots))
            self._new, self._new_slots, self._all_slots = moved
        return self._through(self.keys[layer], keys), self._through(self.values[layer], values)

    def _through(self, pool: Tensor, new: Float[Tensor, "B KV T D"]) -> Float[Tensor, "B KV S D"]:
        """Write into one layer's pool, and gather from it."""
        batch, heads, _, dim = new.shape
        vectors = pool.view(-1, dim)  # (pages · KV · page_size, D)
        vectors[self._new_slots] = new.transpose(1, 2)[self._new]  # (N, KV, D)
        return vectors.index_select(0, self._all_slots).view(batch, heads, -1, dim)  # (B, KV, S, D)
