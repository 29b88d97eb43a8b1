"""What tests of serving share: what must hold of a cache at any time, and a request alone."""

import copy
from collections import Counter
from itertools import pairwise

from speaking import tokens

from qwenkit.serve import PagedCache


def consistent(cache: PagedCache) -> None:
    """Assert that every page is in one place, and known by what it holds."""
    size = cache.page_size
    assert cache.references == Counter(page for table in cache.tables for page in table.pages)
    free, kept = [*cache._free, *copy.copy(cache._fresh)], [*cache._kept]
    assert sorted(free + kept + [*cache.references]) == [*range(cache.num_pages)]
    assert cache.room == len(free) + len(kept)
    assert (cache.used, cache.kept) == (len(cache.references), len(kept))
    # what can be found: each full page by the one before it, which can be found itself
    assert {page: prefix for prefix, page in cache._found.items()} == cache._prefix
    assert set(kept) <= set(cache._prefix)
    assert not set(free) & set(cache._prefix)
    for before, ids in cache._found:
        assert before == -1 or before in cache._prefix
        assert len(ids) == size
    for table in cache.tables:
        assert len(set(table.pages)) == len(table.pages)
        assert 0 <= table.length <= len(table.pages) * size
        full = table.pages[: table.length // size]
        for before, page in pairwise([-1, *full]):
            assert page not in cache._prefix or cache._prefix[page][0] == before
    assert 0 <= cache.waste <= 1


def finish(scheduler):
    """Step until every request is done; check the cache after each step; return the steps."""
    steps = 0
    while scheduler.running or scheduler.waiting:
        scheduler.step()
        consistent(scheduler.cache)
        steps += 1
        assert steps < 10_000
    assert scheduler.cache.used == 0
    assert scheduler.cache.waste == 0
    return steps


def alone(model, request):
    """Return the tokens that `generate` gives for a request by itself."""
    return tokens(model, request.prompt, **vars(request.config))
