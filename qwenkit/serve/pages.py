"""A KV cache in pages: a text holds only the room that it fills, and equal beginnings are shared.

Source: Kwon et al. 2023, "Efficient memory management for large language model serving with
PagedAttention". A cache of one buffer per text must be as long as the text may become. Here memory
is divided into pages of a few tokens, as an operating system divides it, and each text has a page
table. Pages stay after a text ends, until others need the room: a text that begins with the same
tokens uses them again (as in Zheng et al. 2024, "SGLang: Efficient execution of structured language
model programs", section 3).
"""

from collections.abc import Sequence
from itertools import repeat
from operator import is_

from qwenkit.config import QwenConfig
from qwenkit.errors import CacheFullError, InputError
from qwenkit.model import PagePool, PageTable

_ROOT = -1  # the page before the first
_Prefix = tuple[int, tuple[int, ...]]  # the page before a page, and its own ids


class PagedCache(PagePool):
    """Keys and values of many texts, in one pool of pages per layer.

    A page is free; or in use by one table or more, which its reference count tells; or kept: in use
    by none, but full, and findable by its tokens. A page that others can find or use is not
    written: who writes next gets a copy (copy-on-write).

    A full page is found by the page before it and its own ids. A dict looks this up by its hash and
    compares the ids themselves; as the page before was found in the same way, the whole text up
    to there is equal. Two texts whose hashes collide do not share a page.

    Args:
        config: gives layers, kv heads and head_dim.
        num_pages: pages in the pool.
        page_size: tokens per page. Large pages waste more, small ones need longer tables.

    Attributes:
        keys: one tensor per layer, (num_pages + 1, KV, page_size, D), made at the first forward
            pass; the last page stays zero: padding is read from it.
        values: the same for values.
        tables: the tables that are open.
        references: page -> how many tables use it, of those in use.

    Raises:
        InputError: a size below 1, or not a config.
    """

    def __init__(self, config: QwenConfig, num_pages: int = 512, page_size: int = 8) -> None:
        if not isinstance(config, QwenConfig):
            raise InputError(f"config is a {type(config).__name__}; it must be a QwenConfig")
        for name, value in (("num_pages", num_pages), ("page_size", page_size)):
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
        super().__init__(config, num_pages, page_size)
        self.tables: list[PageTable] = []
        self.references: dict[int, int] = {}
        self._fresh = iter(range(num_pages))  # pages that were never used
        self._free: list[int] = []  # pages that were, and are no longer
        self._found: dict[_Prefix, int] = {}  # full pages
        self._prefix: dict[int, _Prefix] = {}  # the same, from the page
        self._kept: dict[int, None] = {}  # least recently used first

    @property
    def used(self) -> int:
        """Pages in use."""
        return len(self.references)

    @property
    def kept(self) -> int:
        """Pages in use by none that can still be found by their tokens."""
        return len(self._kept)

    @property
    def room(self) -> int:
        """Pages that can be taken: free ones, and kept ones, which are then forgotten."""
        return self.num_pages - self.used

    @property
    def waste(self) -> float:
        """The proportion of token slots in used pages that hold no token; 0 to 1."""
        slots = self.used * self.page_size
        empty = sum(len(table.pages) * self.page_size - table.length for table in self.tables)
        return empty / slots if slots else 0.0

    def pages(self, length: int) -> int:
        """Return how many pages so many tokens need."""
        return -(-length // self.page_size)

    def open(self) -> PageTable:
        """Return an empty table; `close` it when its text is done."""
        table = PageTable()
        self.tables.append(table)
        return table

    def close(self, table: PageTable) -> None:
        """Give a table's pages back: full ones are kept as long as there is room.

        Raises:
            InputError: a table that is not open.
        """
        self._check(table)
        self.tables.remove(table)
        while table.pages:  # the last first: a page is kept longer than those after it
            self._release(table.pages.pop())
        table.length = 0

    def share(self, table: PageTable, ids: Sequence[int]) -> int:
        """Append known pages that hold the next tokens of a text; return how many tokens.

        The last token is never among them, so that there is one to feed, for its logits. Where a
        known page holds it, that page is shared without it.

        Args:
            table: holds the text's first tokens; pages are found only where its last one is full.
            ids: the whole text.
        """
        self._check(table)
        before = table.length
        while table.length == len(table.pages) * self.page_size:
            page = self._found.get(self._next(table, ids))
            if page is None:
                break
            self._use(page)
            table.pages.append(page)
            table.length = min(len(table.pages) * self.page_size, len(ids) - 1)
        return table.length - before

    def beginning(self, table: PageTable, ids: Sequence[int]) -> object | None:
        """Return what the page that is filled next will be found by; None: `ids` do not fill it."""
        found = self._next(table, ids)
        return found if len(found[1]) == self.page_size else None

    def extend(self, table: PageTable, count: int) -> None:
        """Make room for so many more tokens in pages that nobody else can see.

        Raises:
            InputError: a count below 1, or a table that is not open.
            CacheFullError: too few pages; nothing has changed.
        """
        self._check(table)
        if type(count) is not int or count < 1:
            raise InputError(f"count is {count!r}; it must be an integer of at least 1")
        first = table.length // self.page_size  # where the next token is written
        shared = first < len(table.pages) and not self._own(table.pages[first])
        more = self.pages(table.length + count) - len(table.pages)
        # A shared page that no other table uses makes room by itself: it becomes a kept one.
        room = self.room + (shared and self.references[table.pages[first]] == 1)
        if more + shared > room:
            raise CacheFullError(
                f"{more + shared} pages are needed and {room} of {self.num_pages} can be taken; "
                "close other tables, or make the cache with more pages"
            )
        if shared:
            self._copy(table, first)
        table.pages += [self._take() for _ in range(more)]

    def advance(self, table: PageTable, ids: Sequence[int]) -> None:
        """Count the tokens that every layer has written; pages that are full now can be found.

        Where another table has filled a page with the same text meanwhile, this one uses that.

        Args:
            table: has room for the text.
            ids: the whole text up to the last token written.

        Raises:
            InputError: more tokens than the table has room for, or a table that is not open.
        """
        self._check(table)
        if not table.length <= len(ids) <= len(table.pages) * self.page_size:
            raise InputError(
                f"ids holds {len(ids)} tokens; the table holds {table.length}, and has room for "
                f"{len(table.pages) * self.page_size}: call extend before"
            )
        for index in range(table.length // self.page_size, len(ids) // self.page_size):
            table.length = index * self.page_size
            self._full(table, index, self._next(table, ids))
        table.length = len(ids)

    def forget(self) -> None:
        """Let no text find the pages that were filled so far: the model's weights have changed."""
        self._free += self._kept
        self._kept, self._found, self._prefix = {}, {}, {}

    def _check(self, table: PageTable) -> None:
        if not isinstance(table, PageTable) or not any(map(is_, self.tables, repeat(table))):
            raise InputError(f"{table!r} is not a table that this cache has open; use open()")

    def _next(self, table: PageTable, ids: Sequence[int]) -> _Prefix:
        """Return the prefix of the page in which the next token stands."""
        index = table.length // self.page_size
        before = table.pages[index - 1] if index else _ROOT
        return before, tuple(ids[index * self.page_size : (index + 1) * self.page_size])

    def _own(self, page: int) -> bool:
        """Whether a page may be written: one table uses it, and nobody can find it."""
        return self.references[page] == 1 and page not in self._prefix

    def _full(self, table: PageTable, index: int, prefix: _Prefix) -> None:
        """Let others find a page, or use the page that they find already."""
        page, known = table.pages[index], self._found.get(prefix)
        if known == page or (index and prefix[0] not in self._prefix):
            return  # found already; or the page before was forgotten, and may mean another text
        if known is None:
            self._found[prefix], self._prefix[page] = page, prefix
        else:
            self._use(known)
            table.pages[index] = known
            self._release(page)

    def _copy(self, table: PageTable, index: int) -> None:
        """Put a copy in the place of a shared page."""
        old = table.pages.pop(index)
        self._release(old)  # first, so that the last page of a pool can be its own copy
        new = self._take()
        table.pages.insert(index, new)
        if new != old:
            for pool in (*self.keys, *self.values):
                pool[new] = pool[old]

    def _use(self, page: int) -> None:
        self.references[page] = self.references.get(page, 0) + 1
        self._kept.pop(page, None)

    def _release(self, page: int) -> None:
        self.references[page] -= 1
        if self.references[page]:
            return
        del self.references[page]
        if page in self._prefix:
            self._kept[page] = None
        else:
            self._free.append(page)

    def _take(self) -> int:
        """Return a page of nobody's: a free one, or else the one kept that was used longest ago.

        Pages after it in a text were released before it, so that they are gone already.
        """
        page = self._free.pop() if self._free else next(self._fresh, None)
        if page is None:
            page = next(iter(self._kept))
            del self._kept[page], self._found[self._prefix.pop(page)]
        self.references[page] = 1
        return page
