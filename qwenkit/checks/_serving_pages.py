"""Exercise 18.3, pages that are shared: a script of texts, run right and with common mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from qwenkit.checks._judge import Mistake

Table = list[int]
# (text, count): append so many tokens; (text, other): share the other's pages; (text, None): close
Script = tuple[tuple[str, int | str | None], ...]
_PAGES = 16


class Pages:
    """A pool of pages; the arguments after the size are what can go wrong in it.

    Args:
        count: pages in the pool.
        size: tokens per page.
        early: whether the next page is taken as soon as one is full.
        fresh: a page's count when it is taken.
        taken: whether a taken page leaves the free ones.
        shared_from: a page with so many users or more is copied before it is written.
        filled: whether a copy holds what the old page held.
        left: whether the old page's count falls when it is copied.
        whole: whether all pages of the table are copied, not only the one that is written.
        counted: whether sharing raises the counts.
        listed: whether a shared table is a list of its own.
        eager: which pages are copied when they are shared, "none", "all" or "last".
        freed: which pages of a closed table become free: those whose count is "0", "all", "none".
        lowered: whether closing lowers the counts.
        oldest: whether the free page is taken that became free first, instead of last. Both are
            right; where pages are counted wrongly, it decides which text is damaged.
    """

    def __init__(
        self,
        count: int,
        size: int,
        early: bool = False,
        fresh: int = 1,
        taken: bool = True,
        shared_from: int = 2,
        filled: bool = True,
        left: bool = True,
        whole: bool = False,
        counted: bool = True,
        listed: bool = True,
        eager: str = "none",
        freed: str = "0",
        lowered: bool = True,
        oldest: bool = False,
    ) -> None:
        self.size, self.free, self.uses = size, list(range(count)), [0] * count
        self.memory: list[list[Any]] = [[None] * size for _ in range(count)]
        self._early, self._fresh, self._taken, self._shared_from = early, fresh, taken, shared_from
        self._filled, self._left, self._whole, self._counted = filled, left, whole, counted
        self._listed, self._eager, self._freed, self._lowered = listed, eager, freed, lowered
        self._place = 0 if oldest else -1  # of the page that is taken

    def append(self, table: Table, length: int, token: Any) -> None:
        """Write the token that follows the first `length` ones."""
        index, offset = divmod(length, self.size)
        if index >= len(table):
            table.append(self._take())
        elif self.uses[table[index]] >= self._shared_from:
            for each in range(len(table)) if self._whole else [index]:
                table[each] = self._copy(table[each])
        self.memory[table[index]][offset] = token
        if self._early and offset + 1 == self.size:
            table.append(self._take())

    def share(self, table: Table) -> Table:
        """Return the table of another text that begins with all tokens of this one."""
        pages = range(len(table))
        copied = {"none": [], "all": pages, "last": pages[-1:]}[self._eager]
        for index in pages:
            self.uses[table[index]] += self._counted
        other = [*table] if self._listed else table
        for index in copied:
            other[index] = self._copy(other[index])
        return other

    def close(self, table: Table) -> None:
        """Give back what no other table uses."""
        for page in table:
            self.uses[page] -= self._lowered
            if self._freed == "all" or (self._freed == "0" and self.uses[page] == 0):
                self.free.append(page)

    def _take(self) -> int:
        page = self.free.pop(self._place) if self._taken else self.free[self._place]
        self.uses[page] = self._fresh
        return page

    def _copy(self, old: int) -> int:
        new = self._take()
        if self._filled:
            self.memory[new] = [*self.memory[old]]
        if self._left:
            self.uses[old] -= 1
            if self.uses[old] == 0:
                self.free.append(old)
        return new


def measured(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a learner's class into a function of a page size and a script.

    It returns the texts that are open at the end, as they are read through their tables, how many
    pages are not free, and how many copies were made.
    """

    @wraps(kind, updated=())
    def run(size: int, script: Script) -> Any:
        pool = kind(_PAGES, size)
        if pool is None or not hasattr(pool, "memory"):
            return pool
        tables: dict[str, Table] = {}
        lengths: dict[str, int] = {}
        copies = number = 0
        for name, what in script:
            if isinstance(what, str):
                tables[name], lengths[name] = pool.share(tables[what]), lengths[what]
                if tables[name] is None:
                    return _untouched(pool, "share returns None")
                copies += _changed(tables[what], tables[name])
            elif what is None:
                pool.close(tables.pop(name))
            else:
                table = tables.setdefault(name, [])
                for _ in range(what):
                    before = [*table]
                    pool.append(table, lengths.setdefault(name, 0), number)
                    copies += _changed(before, table)
                    lengths[name] += 1
                    number += 1
        if number and not any(tables.values()) and tables:
            return _untouched(pool, "append leaves the table empty")
        texts = {name: _read(pool, table, lengths[name]) for name, table in tables.items()}
        return texts, f"{_PAGES - len(pool.free)} pages in use", f"{copies} pages copied"

    return run


def _untouched(pool: Any, said: str) -> str | None:
    """Return what is wrong, or None where nothing was written: the stub is empty."""
    return said if any(one is not None for page in pool.memory for one in page) else None


def _changed(before: Table, after: Table) -> int:
    return sum(one != other for one, other in zip(before, after, strict=False))


def _read(pool: Any, table: Table, length: int) -> str:
    """Return a text's tokens; "-" stands for what was never written, or has no page."""
    found = []
    for place in range(length):
        index, offset = divmod(place, pool.size)
        token = pool.memory[table[index]][offset] if index < len(table) else None
        found.append("-" if token is None else str(int(token)))
    return " ".join(found)


_MISTAKES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("no copy on write", "a token is written into a page that another text uses, too, and "
        "changes that text. Copy the page first.",
        {"shared_from": 99}),
    ("an empty copy", "a shared page is replaced by an empty one. What it held belongs to "
        "the text as well.",
        {"filled": False}),
    ("old page still counted", "after a copy the old page has one user less. Its count must "
        "fall, or it never becomes free.",
        {"left": False}),
    ("copied without need", "you copy a page that no other text uses. Look at its count "
        "first.",
        {"shared_from": 1}),
    ("all pages copied", "you copy all pages of the text. Only the one that is written must "
        "be copied.",
        {"whole": True}),
    ("copied at once", "you copy the pages when they are shared. Wait: a page is copied "
        "when one of its users writes.",
        {"eager": "all"}),
    ("last page copied at once", "you copy the last page when it is shared. Wait until one "
        "of its users writes; perhaps none does.",
        {"eager": "last"}),
    ("sharing not counted", "sharing must raise the count of each page. Otherwise it is "
        "written, or becomes free, while another text needs it.",
        {"counted": False}),
    ("one list for two texts", "both texts have the same list, so a page that one of them "
        "gets is in the other, too. Return a new list.",
        {"listed": False}),
    ("shared pages freed", "closing frees pages that another text still uses. A page is "
        "free when its count has fallen to 0.",
        {"freed": "all"}),
    ("never freed", "pages of closed texts do not come back: add them to the free ones.",
        {"freed": "none"}),
    ("counts not lowered", "closing must lower the count of each page, and only then ask "
        "whether it is 0.",
        {"lowered": False}),
    ("first user not counted", "a page that is taken has one user. With a count of 0, it "
        "looks unshared after it was shared once.",
        {"fresh": 0}),
    ("taken pages stay free", "a page that is taken must leave the free ones; the next text "
        "gets the same page.",
        {"taken": False}),
    ("a page too early", "you take the next page when a page becomes full. Take it when "
        "there is a token for it.",
        {"early": True}),
)  # fmt: skip


def _pool(**changes: Any) -> Callable[..., Any]:
    return measured(lambda count, size: Pages(count, size, **changes))


PAGE_MISTAKES = tuple(
    Mistake(name, hint, _pool(**changes, oldest=oldest))
    for name, hint, changes in _MISTAKES
    for oldest in (False, True)
)
