"""Pages: what is written is what is read, equal beginnings are shared, and counts add up."""

import pytest
import torch
from reference import VARIANTS, ids, tiny
from serving import consistent

from qwenkit.errors import CacheFullError, InputError
from qwenkit.model import KVCache, PageBatch
from qwenkit.serve import PagedCache

CONFIG = tiny().config
TEXT = list(range(100, 120))


def filled(cache, text, count=None):
    """Return a table to which a text was fed, in chunks of `count`; known pages are shared."""
    table = cache.open()
    cache.share(table, text)
    while table.length < len(text):
        more = min(count or len(text), len(text) - table.length)
        cache.extend(table, more)
        cache.advance(table, text[: table.length + more])
    consistent(cache)
    return table


# --- how the model reads them ---


def feed(model, cache, texts, counts):
    """Feed each table the next tokens of its text; return the last logits, (B, V)."""
    rows = []
    for (table, text), count in zip(texts, counts, strict=True):
        cache.extend(table, count)
        rows.append([0] * (max(counts) - count) + text[table.length : table.length + count])
    view = PageBatch(cache, [table for table, _ in texts], counts)
    logits = model(torch.tensor(rows), cache=view, attention_mask=view.mask, logits_to_keep=1)
    for (table, text), count in zip(texts, counts, strict=True):
        cache.advance(table, text[: table.length + count])
    return logits[:, -1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_from_pages_are_those_of_the_whole_text(variant):
    """Texts of different lengths, each fed in chunks of different lengths."""
    model = tiny(**VARIANTS[variant], dtype=torch.float64)
    lengths = (13, 4, 22, 1)
    cache = PagedCache(model.config, num_pages=40, page_size=3)
    texts = [(cache.open(), ids(1, n + 4, seed=n)[0].tolist()) for n in lengths]
    for counts in ([5, 2, 9, 1], [8, 2, 13, 1], [1, 1, 1, 1], [3, 1, 1, 2]):
        logits = feed(model, cache, texts, counts)
        consistent(cache)
        for row, (table, text) in zip(logits, texts, strict=True):
            want = model(torch.tensor([text[: table.length]]))[0, -1]
            torch.testing.assert_close(row, want, rtol=1e-5, atol=1e-6)
    assert [table.length for table, _ in texts] == [17, 6, 24, 5]


def test_each_row_is_its_text_padded_with_zeros_on_the_left():
    """Against a `KVCache` per text, on keys and values without meaning."""
    cache, shape = PagedCache(CONFIG, num_pages=9, page_size=4), (2, 8)  # KV and D of CONFIG
    alone = [KVCache(CONFIG, 1, 20), KVCache(CONFIG, 1, 20)]
    tables = [cache.open(), cache.open()]
    for counts in ([7, 2], [1, 5], [1, 1]):
        for table, count in zip(tables, counts, strict=True):
            cache.extend(table, count)
        view, most = PageBatch(cache, tables, counts), max(counts)
        ends = [table.length + count for table, count in zip(tables, counts, strict=True)]
        for layer in range(CONFIG.num_hidden_layers):
            new = [torch.randn(2, shape[0], most, shape[1]) for _ in "kv"]
            found = view.update(layer, *new)
            for row, count in enumerate(counts):
                want = alone[row].update(layer, *(x[row : row + 1, :, most - count :] for x in new))
                for got, right in zip(found, want, strict=True):
                    padding, text = got[row].split([max(ends) - ends[row], ends[row]], dim=1)
                    assert torch.equal(text, right[0])
                    assert not padding.any()
        for row, end in enumerate(ends):
            alone[row].advance(counts[row])
            cache.advance(tables[row], [10 * row] * end)
            assert view.mask[row].tolist() == [False] * (max(ends) - end) + [True] * end
    consistent(cache)


# --- shared beginnings ---


def test_a_known_beginning_is_shared_in_full_pages():
    cache = PagedCache(CONFIG, num_pages=20, page_size=4)
    first = filled(cache, TEXT[:14])
    assert first.pages == [0, 1, 2, 3]
    other = cache.open()
    assert cache.share(other, [*TEXT[:10], 7, 7, 7]) == 8  # the third page has other ids
    assert other.pages == first.pages[:2]
    assert cache.used == 4
    assert cache.references == {0: 2, 1: 2, 2: 1, 3: 1}
    # the same ids elsewhere in a text are not the same page
    moved = cache.open()
    assert cache.share(moved, [*TEXT[4:12], 1]) == 0
    consistent(cache)


def test_pages_are_found_after_their_text_is_closed_until_the_room_is_needed():
    cache = PagedCache(CONFIG, num_pages=5, page_size=4)
    cache.close(filled(cache, TEXT[:14]))
    assert (cache.used, cache.kept, cache.room) == (0, 3, 5)
    again = filled(cache, TEXT[:9])
    assert again.pages[:2] == [0, 1]
    cache.close(again)
    other = filled(cache, [1, 2, 3, 4] * 3)
    assert cache.kept == 2
    table = cache.open()
    assert cache.share(table, TEXT) == 8
    cache.close(table)
    cache.extend(other, 8)
    consistent(cache)
    assert cache.kept == 0
    assert cache.share(cache.open(), TEXT) == 0


def test_the_last_pages_of_a_text_are_forgotten_first():
    """A page is useless without those before it."""
    cache = PagedCache(CONFIG, num_pages=4, page_size=2)
    cache.close(filled(cache, TEXT[:8]))
    for left in (6, 4, 2, 0):
        cache.extend(cache.open(), 1)
        consistent(cache)
        table = cache.open()
        assert cache.share(table, TEXT) == left
        cache.close(table)


def test_what_was_used_longest_ago_is_forgotten_first():
    cache = PagedCache(CONFIG, num_pages=3, page_size=2)
    for token in (1, 2, 3):
        cache.close(filled(cache, [token, token]))
    touched = cache.open()
    assert cache.share(touched, [1, 1, 0]) == 2
    cache.close(touched)
    cache.close(filled(cache, [4, 4]))  # takes the room of 2
    found = {token: cache.share(cache.open(), [token, token, 0]) for token in (1, 2, 3, 4)}
    assert found == {1: 2, 2: 0, 3: 2, 4: 2}


def test_texts_whose_hashes_collide_share_nothing():
    one, other = (-1, -1), (-2, -2)
    assert hash(one) == hash(other)
    assert hash((-1, one)) == hash((-1, other))
    cache = PagedCache(CONFIG, num_pages=4, page_size=2)
    filled(cache, [*one])
    assert cache.share(cache.open(), [*other, 0]) == 0
    assert cache.share(cache.open(), [*one, 0]) == 2


def test_the_last_token_is_left_to_be_fed():
    cache = PagedCache(CONFIG, num_pages=20, page_size=4)
    filled(cache, TEXT[:8])
    table = cache.open()
    assert cache.share(table, TEXT[:8]) == 7
    assert table.length == 7
    assert cache.share(cache.open(), TEXT[:4]) == 3
    assert cache.share(cache.open(), TEXT[:3]) == 0
    assert cache.share(cache.open(), TEXT[:1]) == 0


def test_equal_texts_that_were_filled_at_the_same_time_become_one():
    cache = PagedCache(CONFIG, num_pages=20, page_size=4)
    tables = [cache.open() for _ in range(3)]
    for table in tables:
        cache.extend(table, 10)
    assert cache.used == 9
    for table in tables:
        cache.advance(table, TEXT[:10])
        consistent(cache)
    assert [table.pages[:2] for table in tables] == [tables[0].pages[:2]] * 3
    assert len({table.pages[2] for table in tables}) == 3
    assert cache.used == 5


def test_forgotten_pages_are_not_found_and_others_go_on():
    cache = PagedCache(CONFIG, num_pages=20, page_size=4)
    cache.close(filled(cache, [9] * 8))
    running = filled(cache, TEXT[:6])
    cache.forget()
    consistent(cache)
    assert cache.kept == 0
    assert cache.share(cache.open(), TEXT) == 0
    assert cache.share(cache.open(), [9] * 9) == 0
    cache.extend(running, 6)
    cache.advance(running, TEXT[:12])
    consistent(cache)
    assert cache.share(cache.open(), TEXT) == 0  # its first page is one of those forgotten
    fresh, other = filled(cache, TEXT[:12]), cache.open()
    assert not set(fresh.pages) & set(running.pages)
    assert cache.share(other, TEXT[:12]) == 11
    cache.forget()
    cache.extend(other, 1)  # nobody finds the page, and yet another table uses it
    assert other.pages[:2] == fresh.pages[:2]
    assert other.pages[2] != fresh.pages[2]
    cache.close(running)
    consistent(cache)


# --- copy-on-write ---


def written(cache, table, value, text):
    """Write a value as keys and values of a table's tokens that are not yet there."""
    count = len(text) - table.length
    cache.extend(table, count)
    view = PageBatch(cache, [table], [count])
    new = torch.full((1, 2, count, 8), float(value))
    held = [view.update(layer, new, -new) for layer in range(CONFIG.num_hidden_layers)]
    cache.advance(table, text)
    return held


@pytest.mark.parametrize("closed", [False, True])
def test_a_shared_page_is_copied_before_it_is_written(closed):
    """Whether it is in use by another text, or kept for one."""
    cache = PagedCache(CONFIG, num_pages=4, page_size=4)
    first = cache.open()
    written(cache, first, 1, TEXT[:8])
    pages = [*first.pages]
    before = [pool[pages].clone() for pool in (*cache.keys, *cache.values)]
    if closed:
        cache.close(first)
    second = cache.open()
    cache.share(second, TEXT[:8])
    assert second.pages == pages
    cache.extend(second, 1)
    assert second.pages[0] == pages[0]
    assert second.pages[1] != pages[1]
    assert cache.used == (2 if closed else 3)
    for keys, values in written(cache, second, 2, TEXT[:8]):
        want = torch.tensor([1.0] * 7 + [2.0])[:, None].expand(1, 2, 8, 8)
        assert torch.equal(keys, want)
        assert torch.equal(values, -want)
    for pool, old in zip((*cache.keys, *cache.values), before, strict=True):
        assert torch.equal(pool[pages], old)
    # full again, it is the page that is known already
    assert second.pages == pages
    assert cache.used == 2
    consistent(cache)


def test_in_a_full_pool_the_last_page_is_its_own_copy():
    cache = PagedCache(CONFIG, num_pages=2, page_size=4)
    first = cache.open()
    written(cache, first, 1, TEXT[:8])
    cache.close(first)
    second = cache.open()
    assert cache.share(second, TEXT[:8]) == 7
    ((keys, _), *_) = written(cache, second, 2, TEXT[:8])
    assert keys[0, 0, :, 0].tolist() == [1.0] * 7 + [2.0]
    consistent(cache)
    # as long as another uses the page there is no room for a copy, and nothing changes
    third = cache.open()
    cache.share(third, TEXT[:8])
    with pytest.raises(CacheFullError, match="1 pages are needed and 0 of 2"):
        cache.extend(third, 1)
    consistent(cache)
    assert third.pages == second.pages


# --- counts, waste, and wrong input ---


def test_waste_is_what_is_allocated_and_holds_nothing():
    cache = PagedCache(CONFIG, num_pages=20, page_size=4)
    assert cache.waste == 0
    table = filled(cache, TEXT[:9])
    assert cache.waste == 3 / 12
    filled(cache, TEXT[:13])  # shares two of its four pages
    assert (cache.used, cache.waste) == (5, (3 + 3) / 20)
    cache.extend(table, 10)
    assert cache.waste == (11 + 3) / 28
    cache.close(table)
    assert cache.waste == 3 / 16


def test_what_does_not_fit_changes_nothing():
    cache = PagedCache(CONFIG, num_pages=3, page_size=4)
    table, other = filled(cache, TEXT[:5]), cache.open()
    with pytest.raises(CacheFullError, match="2 pages are needed and 1 of 3 can be taken"):
        cache.extend(other, 5)
    assert (other.pages, cache.used) == ([], 2)
    consistent(cache)
    cache.extend(other, 4)
    with pytest.raises(CacheFullError, match="1 pages are needed and 0 of 3"):
        cache.extend(table, 4)
    cache.close(other)
    cache.extend(table, 4)
    assert cache.room == 0


def test_the_pool_is_made_once_in_the_dtype_of_the_model():
    model = tiny(dtype=torch.bfloat16)
    cache = PagedCache(model.config, num_pages=3, page_size=4)
    assert (cache.keys, cache.nbytes) == ([], 0)
    feed(model, cache, [(cache.open(), [1, 2, 3])], [3])
    assert cache.keys[0].shape == (4, 2, 4, 8)  # with the page that stays zero
    assert cache.keys[0].dtype == torch.bfloat16
    assert cache.nbytes == 3 * 2 * 4 * 2 * 4 * 8 * 2
    assert not any(pool[-1].any() for pool in (*cache.keys, *cache.values))
    with pytest.raises(InputError, match="make a new cache for this model"):
        feed(tiny(), cache, [(cache.open(), [1, 2, 3])], [3])


@pytest.mark.parametrize(("settings", "words"), [
    ({"num_pages": 0}, "num_pages is 0"), ({"num_pages": 2.0}, r"num_pages is 2\.0"),
    ({"page_size": -1}, "page_size is -1"), ({"page_size": True}, "page_size is True"),
    ({"config": None}, "config is a NoneType"),
])  # fmt: skip
def test_bad_sizes_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        PagedCache(**{"config": CONFIG, **settings})


@pytest.mark.parametrize(("call", "words"), [
    (lambda cache, table: cache.close(None), "None is not a table"),
    (lambda cache, table: cache.close(PagedCache(CONFIG).open()), "is not a table that this cache"),
    (lambda cache, table: (cache.close(table), cache.close(table)), "is not a table that this"),
    (lambda cache, table: cache.extend("x", 1), "'x' is not a table"),
    (lambda cache, table: cache.extend(table, 0), "count is 0"),
    (lambda cache, table: cache.extend(table, 1.0), r"count is 1\.0"),
    (lambda cache, table: cache.share(None, [1]), "None is not a table"),
    (lambda cache, table: cache.advance(None, [1]), "None is not a table"),
    (lambda cache, table: cache.advance(table, TEXT[:9]), "ids holds 9 tokens; the table holds 5"),
    (lambda cache, table: cache.advance(table, TEXT[:4]), "ids holds 4 tokens; the table holds 5"),
])  # fmt: skip
def test_wrong_calls_are_refused(call, words):
    cache = PagedCache(CONFIG, num_pages=20, page_size=4)
    table = filled(cache, TEXT[:5])
    with pytest.raises(InputError, match=words):
        call(cache, table)
    consistent(cache)
