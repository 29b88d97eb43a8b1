"""Answers to the exercises of notebooks 18 and 18b."""

import math
import random
from collections import deque

import torch

# --- 18.1 ---


def _in_steps(lengths, slots):
    """Walk through the steps, and fill what is free."""
    left, plan, waiting, step = [0] * slots, [], deque(lengths), 0
    while waiting:
        for slot in range(slots):
            if left[slot] == 0 and waiting:
                left[slot] = waiting.popleft()
                plan.append((slot, step))
        left = [max(n - 1, 0) for n in left]
        step += 1
    return plan


def _by_ends(lengths, slots):
    ends, plan = [0] * slots, []
    for length in lengths:
        start = min(ends)
        slot = ends.index(start)
        plan.append((slot, start))
        ends[slot] = start + length
    return plan


def _with_a_heap(lengths, slots):
    import heapq

    free = [(0, slot) for slot in range(slots)]
    plan = []
    for length in lengths:
        step, slot = heapq.heappop(free)
        plan.append((slot, step))
        heapq.heappush(free, (step + length, slot))
    return plan


def _groups(lengths, slots):
    plan, start = [], 0
    while len(plan) < len(lengths):
        group = lengths[len(plan) : len(plan) + slots]
        plan += [(slot, start) for slot in range(len(group))]
        start += max(group)
    return plan


def _in_turn(lengths, slots):
    ends, plan = [0] * slots, []
    for i, length in enumerate(lengths):
        plan.append((i % slots, ends[i % slots]))
        ends[i % slots] += length
    return plan


def _ends(pick=lambda ends: ends.index(min(ends)), more=0, start=0, order=None):
    def plan(lengths, slots):
        ends, found = [start] * slots, {}
        for i in range(len(lengths)) if order is None else order(lengths):
            slot = pick(ends)
            found[i] = (slot, ends[slot])
            ends[slot] += lengths[i] + more
        return [found[i] for i in range(len(lengths))]

    return plan


def _after(change):
    return lambda lengths, slots: [
        change(*one, length) for one, length in zip(_by_ends(lengths, slots), lengths, strict=True)
    ]


def _sorted_by(key):
    return lambda lengths: sorted(range(len(lengths)), key=lambda i: key(lengths[i]))


# --- 18.2 ---


def _rows_of(table, size, length):
    found = []
    for page in table:
        for offset in range(size):
            if len(found) < length:
                found.append(page * size + offset)
    return found


# --- 18.3 ---


class _Pool:
    """Pages with reference counts."""

    def __init__(self, count, size):
        self.size = size
        self.memory = [[None] * size for _ in range(count)]
        self.free = list(range(count))
        self.uses = [0] * count

    def take(self):
        page = self.free.pop(0)
        self.uses[page] = 1
        return page

    def append(self, table, length, token):
        if length == len(table) * self.size:
            table.append(self.take())
        page = table[length // self.size]
        if self.uses[page] > 1:
            self.uses[page] -= 1
            table[length // self.size] = self.take()
            self.memory[table[length // self.size]][:] = self.memory[page]
        self.memory[table[length // self.size]][length % self.size] = token

    def share(self, table):
        for page in table:
            self.uses[page] += 1
        return list(table)

    def close(self, table):
        for page in table:
            self.uses[page] -= 1
            if not self.uses[page]:
                self.free.append(page)


class _Recounted(_Pool):
    """Without counts: it looks into all tables that are open; free pages are a set."""

    def __init__(self, count, size):
        super().__init__(count, size)
        self.free, self.tables = set(self.free), []

    def users(self, page):
        return sum(page in table for table in self.tables)

    def take(self):
        return self.free.pop()

    def append(self, table, length, token):
        if not any(one is table for one in self.tables):
            self.tables.append(table)
        if length % self.size == 0:
            table.append(self.take())
        elif self.users(table[-1]) > 1:
            new = self.take()
            self.memory[new] = self.memory[table[-1]].copy()
            table[-1] = new
        self.memory[table[-1]][length % self.size] = token

    def share(self, table):
        self.tables.append(table.copy())
        return self.tables[-1]

    def close(self, table):
        self.tables = [one for one in self.tables if one is not table]
        self.free |= {page for page in table if not self.users(page)}


def _pool(**methods):
    """Return a pool with other methods."""
    return type("Changed", (_Pool,), methods)


def _blindly(self, table, length, token):
    if length % self.size == 0:
        table.append(self.take())
    self.memory[table[-1]][length % self.size] = token


def _append(fill=True, lower=True, limit=1, every=False):
    def append(self, table, length, token):
        index, offset = divmod(length, self.size)
        if index == len(table):
            table.append(self.take())
        elif self.uses[table[index]] > limit:
            for i in range(len(table)) if every else [index]:
                old, table[i] = table[i], self.take()
                if fill:
                    self.memory[table[i]] = self.memory[old].copy()
                if lower:
                    self.uses[old] -= 1
                    if self.uses[old] == 0:
                        self.free.append(old)
        self.memory[table[index]][offset] = token

    return append


def _early(self, table, length, token):
    _Pool.append(self, table, length, token)
    if (length + 1) % self.size == 0:
        table.append(self.take())


def _copies(which):
    def share(self, table):
        other = _Pool.share(self, table)
        for i in which(range(len(table))):
            new = self.take()
            self.memory[new] = self.memory[table[i]].copy()
            self.uses[table[i]] -= 1
            other[i] = new
        return other

    return share


def _same_list(self, table):
    _Pool.share(self, table)
    return table


def _uncounted(self, table):
    return [*table]


def _all_freed(self, table):
    for page in table:
        self.uses[page] -= 1
        self.free.append(page)


def _none_freed(self, table):
    for page in table:
        self.uses[page] -= 1


def _not_lowered(self, table):
    for page in table:
        if self.uses[page] == 0:
            self.free.append(page)


def _no_user(self):
    return self.free.pop()


def _stays(self):
    self.uses[self.free[0]] = 1
    return self.free[0]


# --- 18b.1 ---


def _sum(alpha, k):
    return sum(alpha**i for i in range(k + 1))


def _closed(alpha, k, cost):
    tokens = k + 1 if alpha == 1 else (1 - alpha ** (k + 1)) / (1 - alpha)
    return tokens / (k * cost + 1)


def _by_chances(alpha, k, cost):
    """Take the mean over how many guesses are right before the first wrong one."""
    chances = [alpha**n * (1 - alpha) for n in range(k)] + [alpha**k]
    return sum((n + 1) * chance for n, chance in enumerate(chances)) / (1 + k * cost)


# --- 18b.2 ---


def _verify(p, q, token):
    if torch.rand(()) < p[token] / q[token]:
        return token
    return torch.multinomial((p - q).clamp(min=0), 1).item()


def _without_division(p, q, token):
    if random.random() * q[token] < p[token]:
        return token
    rest = torch.maximum(p - q, torch.zeros(len(p)))
    return torch.multinomial(rest / rest.sum(), 1)


def _with_lists(p, q, token):
    if random.random() < min(1, (p[token] / q[token]).item()):
        return token
    rest = [max(a - b, 0) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
    return random.choices(range(len(rest)), weights=rest)[0]


def _rule(chance=lambda p, q, x: p[x] / q[x], rest=lambda p, q, x: (p - q).clamp(min=0)):
    def verify(p, q, token):
        if torch.rand(()) < chance(p, q, token):
            return token
        return torch.multinomial(rest(p, q, token), 1).item()

    return verify


def _refused(p, x):
    p[x] = 0
    return p


RIGHT = {
    "schedule": [_in_steps, _by_ends, _with_a_heap],
    "rows": [
        lambda table, size, length: [table[i // size] * size + i % size for i in range(length)],
        _rows_of,
    ],
    "pages": [_Pool, _Recounted],
    "speed_up": [lambda a, k, c: _sum(a, k) / (1 + c * k), _closed, _by_chances],
    "verify": [_verify, _without_division, _with_lists],
}
WRONG = {
    "schedule": [
        ("static batches", _groups),
        ("slots in turn", _in_turn),
        ("the highest slot", _ends(lambda ends: max(
            range(len(ends)), key=lambda s: (-ends[s], s)))),
        ("one slot", _ends(lambda ends: 0)),
        ("shortest first", _ends(order=_sorted_by(lambda n: n))),
        ("longest first", _ends(order=_sorted_by(lambda n: -n))),
        ("last come first", _ends(order=lambda lengths: reversed(range(len(lengths))))),
        ("a step too late", _ends(more=1)),
        ("a step too early", _ends(more=-1)),
        ("from step 1", _ends(start=1)),
        ("the last step", _after(lambda slot, step, n: (slot, step + n - 1))),
        ("the step after the last", _after(lambda slot, step, n: (slot, step + n))),
        ("step before slot", _after(lambda slot, step, n: (step, slot))),
        ("only the steps", _after(lambda slot, step, n: step)),
        ("only the slots", _after(lambda slot, step, n: slot)),
        ("only the total", lambda lengths, slots: max(
            step + n for (_, step), n in zip(_by_ends(lengths, slots), lengths, strict=True))),
        ("values", _after(lambda slot, step, n: (slot + 1, step))),
    ],
    "rows": [
        ("no table", lambda table, size, length: [*range(length)]),
        ("from the first page on", lambda t, size, length: [
            *range(t[0] * size, t[0] * size + length)]),
        ("no offset", lambda t, size, length: [t[i // size] * size for i in range(length)]),
        ("pages alone", lambda t, size, length: [t[i // size] for i in range(length)]),
        ("not times the page size", lambda t, size, length: [
            t[i // size] + i % size for i in range(length)]),
        ("the whole position added", lambda t, size, length: [
            t[i // size] * size + i for i in range(length)]),
        ("quotient and remainder swapped", lambda t, size, length: [
            t[i % size] * size + i // size for i in range(length)]),
        ("offset times the page size", lambda t, size, length: [
            (i % size) * size + t[i // size] for i in range(length)]),
        ("the whole pages", lambda t, size, length: [
            page * size + i for page in t for i in range(size)]),
        ("the last page full", lambda t, size, length: [
            page * size + i for page in t[: math.ceil(length / size)] for i in range(size)]),
        ("full pages only", lambda t, size, length: _rows_of(t, size, length // size * size)),
        ("counted from 1", lambda t, size, length: [
            t[(i - 1) // size] * size + i % size for i in range(1, length + 1)]),
        ("pages sorted", lambda t, size, length: _rows_of(sorted(t), size, length)),
        ("pairs", lambda t, size, length: [
            (t[i // size], i % size) for i in range(length)]),
        ("values", lambda t, size, length: [one + 1 for one in _rows_of(t, size, length)]),
        ("kind", lambda t, size, length: torch.tensor(_rows_of(t, size, length))),
    ],
    "pages": [
        ("no copy on write", _pool(append=_blindly)),
        ("an empty copy", _pool(append=_append(fill=False))),
        ("old page still counted", _pool(append=_append(lower=False))),
        ("copied without need", _pool(append=_append(limit=0))),
        ("all pages copied", _pool(append=_append(every=True))),
        ("copied at once", _pool(share=_copies(list))),
        ("last page copied at once", _pool(share=_copies(lambda pages: pages[-1:]))),
        ("sharing not counted", _pool(share=_uncounted)),
        ("one list for two texts", _pool(share=_same_list)),
        ("shared pages freed", _pool(close=_all_freed)),
        ("never freed", _pool(close=_none_freed)),
        ("counts not lowered", _pool(close=_not_lowered)),
        ("first user not counted", _pool(take=_no_user)),
        ("taken pages stay free", _pool(take=_stays, append=_append())),
        ("a page too early", _pool(append=_early)),
    ],
    "speed_up": [
        ("the model's own token missing", lambda a, k, c: (_sum(a, k) - 1) / (1 + c * k)),
        ("a power too few", lambda a, k, c: sum(a**i for i in range(k)) / (1 + c * k)),
        ("a power too many", lambda a, k, c: sum(a**i for i in range(k + 2)) / (1 + c * k)),
        ("guesses on their own", lambda a, k, c: (1 + a * k) / (1 + c * k)),
        ("guesses on their own", lambda a, k, c: a * k / (1 + c * k)),
        ("all or nothing", lambda a, k, c: (1 + k * a**k) / (1 + c * k)),
        ("cost ignored", lambda a, k, c: _sum(a, k)),
        ("the model's time missing", lambda a, k, c: _sum(a, k) / (c * k)),
        ("one guess paid", lambda a, k, c: _sum(a, k) / (1 + c)),
        ("a guess too many paid", lambda a, k, c: _sum(a, k) / (1 + c * (k + 1))),
        ("every guess a forward pass", lambda a, k, c: _sum(a, k) / (k + c * k)),
        ("upside down", lambda a, k, c: (1 + c * k) / _sum(a, k)),
        ("α of 1", lambda a, k, c: (1 - a ** (k + 1)) / (1 - a) / (1 + c * k)),
        ("without end", lambda a, k, c: 1 / (1 - a) / (1 + c * k)),
        ("values", lambda a, k, c: _sum(a, k) - c * k),
    ],
    "verify": [
        ("resampled from p", _rule(rest=lambda p, q, x: p)),
        ("p above q", _rule(chance=lambda p, q, x: float(p[x] >= q[x]))),
        ("p above q, resampled from p", _rule(
            chance=lambda p, q, x: float(p[x] >= q[x]), rest=lambda p, q, x: p)),
        ("all accepted", lambda p, q, x: x),
        ("draft ignored", lambda p, q, x: torch.multinomial(p, 1).item()),
        ("never accepted", _rule(chance=lambda p, q, x: 0)),
        ("the ratio upside down", _rule(chance=lambda p, q, x: q[x] / p[x])),
        ("accepted by p", _rule(chance=lambda p, q, x: p[x])),
        ("accepted by p, resampled from p", _rule(
            chance=lambda p, q, x: p[x], rest=lambda p, q, x: p)),
        ("a threshold", _rule(chance=lambda p, q, x: float(p[x] / q[x] > 0.5))),
        ("the difference not clamped", _rule(rest=lambda p, q, x: abs(p - q))),
        ("the difference upside down", _rule(rest=lambda p, q, x: (q - p).clamp(min=0))),
        ("sampled from the draft", _rule(rest=lambda p, q, x: q)),
        ("p without the token", _rule(rest=lambda p, q, x: _refused(p, x))),
        ("most likely token", lambda p, q, x: (
            x if torch.rand(()) < p[x] / q[x] else p.argmax())),
        ("most likely of the rest", lambda p, q, x: (
            x if torch.rand(()) < p[x] / q[x] else (p - q).argmax().item())),
        ("any token", lambda p, q, x: (
            x if torch.rand(()) < p[x] / q[x] else random.randrange(len(p)))),
        ("only the decision", lambda p, q, x: bool(torch.rand(()) < p[x] / q[x])),
        ("error", _rule(rest=lambda p, q, x: p - q)),
    ],
}  # fmt: skip
