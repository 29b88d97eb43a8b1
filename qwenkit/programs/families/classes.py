"""Small classes: containers and counters. An input is the constructor's arguments and the calls."""

from random import Random
from typing import Any

from qwenkit.programs.family import family
from qwenkit.programs.slots import WORDS

Calls = tuple[tuple[Any, ...], list[tuple[Any, ...]]]


def calls(
    rng: Random,
    first: tuple[Any, ...],
    *steps: tuple[Any, ...],
    last: tuple[Any, ...],
    most: int = 5,
) -> Calls:
    """Return some of the steps at random, and the last one."""
    return first, [*(rng.choice(steps) for _ in range(rng.randint(1, most))), last]


class Counter:
    """The reference of a counter."""

    def __init__(self, start: int = 0, step: int = 1) -> None:
        self.value, self.first, self.step = start, start, step

    def increment(self) -> None:
        """Count up."""
        self.value += self.step

    def decrement(self) -> None:
        """Count down."""
        self.value -= self.step

    def reset(self) -> None:
        """Start again."""
        self.value = self.first


class Stack:
    """The reference of a stack, and of a queue."""

    place = -1

    def __init__(self) -> None:
        self.items: list[Any] = []

    def push(self, item: Any) -> None:
        """Add an item."""
        self.items.append(item)

    def pop(self) -> Any:
        """Remove an item."""
        return self.items.pop(self.place)

    def peek(self) -> Any:
        """Show the next item."""
        return self.items[self.place]

    def is_empty(self) -> bool:
        """Tell whether there are no items."""
        return not self.items

    def size(self) -> int:
        """Count the items."""
        return len(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Queue(Stack):
    """The reference of a queue."""

    place = 0


def stack_calls(rng: Random, *more: str) -> Calls:
    """Return calls of a stack or queue that never take from an empty one."""
    steps: list[tuple[Any, ...]] = []
    size = 0
    for _ in range(rng.randint(2, 7)):
        if size and rng.random() < 0.5:
            name = rng.choice(("pop", *more))
            size -= name == "pop"
            steps.append((name,))
        else:
            steps.append(("push", rng.randint(0, 9)))
            size += 1
    return (), steps


class Account:
    """The reference of a bank account."""

    def __init__(self, balance: int = 0) -> None:
        self.balance = balance

    def deposit(self, amount: int) -> None:
        """Add money."""
        self.balance += amount

    def withdraw(self, amount: int) -> None:
        """Take money."""
        if amount > self.balance:
            raise ValueError
        self.balance -= amount


class Cart:
    """The reference of a shopping cart."""

    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    def add(self, name: str, price: int) -> None:
        """Put an item into the cart."""
        self.items[name] = price

    def remove(self, name: str) -> None:
        """Take an item out."""
        self.items.pop(name, None)

    def total(self) -> int:
        """Add up the prices."""
        return sum(self.items.values())

    def __len__(self) -> int:
        return len(self.items)


class Scores:
    """The reference of a student with scores."""

    def __init__(self, name: str) -> None:
        self.name, self.scores = name, list[int]()

    def add(self, score: int) -> None:
        """Add a score."""
        self.scores.append(score)

    def average(self) -> float:
        """Return the mean."""
        return sum(self.scores) / len(self.scores) if self.scores else 0

    def best(self) -> int:
        """Return the largest score."""
        return max(self.scores)


class Switch:
    """The reference of a light switch."""

    def __init__(self) -> None:
        self.on = False

    def toggle(self) -> None:
        """Switch on or off."""
        self.on = not self.on

    def turn_off(self) -> None:
        """Switch off."""
        self.on = False


class Words:
    """The reference of a dictionary of counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, word: str) -> None:
        """Count a word."""
        self.counts[word] = self.count(word) + 1

    def count(self, word: str) -> int:
        """Tell how often a word was added."""
        return self.counts.get(word, 0)


FAMILIES = [
    family(
        "counter_class",
        "Counter SimpleCounter ClickCounter Tally",
        "",
        """
        A counter that starts at 0, with increment, $down and the attribute value.
        Counts up with increment and down with $down; value is the current count.
        A counter with a value of 0 at first; increment adds 1 and $down takes 1 away.
        Keep a count in value: increment() raises it by 1, $down() lowers it by 1.
        A simple counter: value begins at 0, increment and $down change it by 1.
        """,
        """
        def __init__(self):
            self.value = 0

        def increment(self):
            self.value += 1

        def $down(self):
            self.value -= 1
        ---
        value = 0

        def increment(self):
            self.value += 1

        def $down(self):
            self.value -= 1
        """,
        lambda: _renamed(Counter(), decrement="down"),
        lambda rng: calls(rng, (), ("increment",), ("down",), last=("value",)),
        choices={"down": ("decrement", "decrease", "count_down")},
        kind="class",
    ),
    family(
        "step_counter_class",
        "Counter StepCounter Odometer CountBy",
        "",
        """
        A counter from $start in steps of $step, with increment, reset and value.
        Counts from $start on: increment adds $step to value, reset goes back to $start.
        A counter whose value starts at $start; increment adds $step and reset restarts.
        Keep a value that is $start at first; increment() adds $step, reset() sets it back.
        """,
        """
        def __init__(self):
            self.value = $start

        def increment(self):
            self.value += $step

        def reset(self):
            self.value = $start
        ---
        def __init__(self):
            self.reset()

        def increment(self):
            self.value += $step

        def reset(self):
            self.value = $start
        """,
        lambda start, step: Counter(start, step),
        lambda rng: calls(rng, (), ("increment",), ("increment",), ("reset",), last=("value",)),
        choices={"start": (0, 1, 5, 10, 100), "step": (1, 2, 3, 5, 10)},
        kind="class",
    ),
    family(
        "stack_class",
        "Stack SimpleStack Pile LastInFirstOut",
        "",
        """
        A stack with push, pop, peek and is_empty.
        A last-in, first-out stack: push, pop, peek (the top item) and is_empty.
        A pile of items: push adds one on top, pop removes it, peek shows it; is_empty.
        Store items so that pop returns the last one pushed; also peek and is_empty.
        A stack of items with the methods push, pop, peek and is_empty.
        """,
        """
        def __init__(self):
            self.items = []

        def push(self, item):
            self.items.append(item)

        def pop(self):
            return self.items.pop()

        def peek(self):
            return self.items[-1]

        def is_empty(self):
            return not self.items
        ---
        def __init__(self):
            self.items = []

        def push(self, item):
            self.items.append(item)

        def pop(self):
            return self.items.pop()

        def peek(self):
            return self.items[-1]

        def is_empty(self):
            return len(self.items) == 0
        """,
        Stack,
        lambda rng: stack_calls(rng, "peek", "is_empty"),
        kind="class",
    ),
    family(
        "sized_stack_class",
        "Stack CountedStack SizedStack ItemStack",
        "",
        """
        A stack with push, pop and size.
        A last-in, first-out stack with push, pop and size (how many items it has).
        Store items so that pop returns the last one pushed; size counts them.
        A stack of items with the methods push, pop and size.
        """,
        """
        def __init__(self):
            self.items = []

        def push(self, item):
            self.items.append(item)

        def pop(self):
            return self.items.pop()

        def size(self):
            return len(self.items)
        ---
        def __init__(self):
            self.items = []
            self.count = 0

        def push(self, item):
            self.items.append(item)
            self.count += 1

        def pop(self):
            self.count -= 1
            return self.items.pop()

        def size(self):
            return self.count
        """,
        Stack,
        lambda rng: stack_calls(rng, "size"),
        kind="class",
    ),
    family(
        "queue_class",
        "Queue SimpleQueue WaitingLine FirstInFirstOut",
        "",
        """
        A queue with $push, $pop and is_empty.
        A first-in, first-out queue: $push adds an item, $pop removes the oldest; is_empty.
        Store items so that $pop returns the one that was first added by $push; is_empty.
        A waiting line with the methods $push, $pop and is_empty.
        """,
        """
        def __init__(self):
            self.items = []

        def $push(self, item):
            self.items.append(item)

        def $pop(self):
            return self.items.pop(0)

        def is_empty(self):
            return not self.items
        ---
        def __init__(self):
            self.items = []

        def $push(self, item):
            self.items.append(item)

        def $pop(self):
            return self.items.pop(0)

        def is_empty(self):
            return len(self.items) == 0
        """,
        Queue,
        lambda rng: stack_calls(rng, "is_empty"),
        choices={"push": ("enqueue", "add", "put"), "pop": ("dequeue", "remove", "get")},
        kind="class",
    ),
    family(
        "account_class",
        "BankAccount Account SavingsAccount Wallet",
        "",
        """
        A bank account with balance, deposit and withdraw (ValueError if too little is left).
        An account: deposit adds to balance, withdraw takes from it or raises ValueError.
        Keep a balance (0 at first); withdraw raises ValueError if it is too low. Also deposit.
        A balance with the methods deposit and withdraw, which refuses with ValueError.
        """,
        """
        def __init__(self, balance=0):
            self.balance = balance

        def deposit(self, amount):
            self.balance += amount

        def withdraw(self, amount):
            if amount > self.balance:
                raise ValueError("not enough money")
            self.balance -= amount
        ---
        def __init__(self, balance=0):
            self.balance = balance

        def deposit(self, amount):
            self.balance = self.balance + amount

        def withdraw(self, amount):
            if self.balance < amount:
                raise ValueError("insufficient funds")
            self.balance = self.balance - amount
        """,
        Account,
        lambda rng: calls(
            rng,
            (),
            ("deposit", rng.randint(1, 50)),
            ("deposit", 20),
            ("withdraw", 15),
            last=("balance",),
        ),
        kind="class",
        raises=(ValueError,),
    ),
    family(
        "cart_class",
        "ShoppingCart Cart Basket Order",
        "",
        """
        A shopping cart with add(name, price), remove(name) and total().
        Items by name with their prices: add(name, price), remove(name) and total().
        A cart: add puts an item with a price in, remove takes it out, total adds up.
        Keep the prices of named items, with the methods add, remove and total.
        """,
        """
        def __init__(self):
            self.items = {}

        def add(self, name, price):
            self.items[name] = price

        def remove(self, name):
            self.items.pop(name, None)

        def total(self):
            return sum(self.items.values())
        ---
        def __init__(self):
            self.prices = {}

        def add(self, name, price):
            self.prices[name] = price

        def remove(self, name):
            if name in self.prices:
                del self.prices[name]

        def total(self):
            return sum(self.prices.values())
        """,
        Cart,
        lambda rng: calls(
            rng,
            (),
            ("add", "tea", rng.randint(1, 9)),
            ("add", "milk", 2),
            ("remove", "tea"),
            ("add", rng.choice(WORDS), 4),
            last=("total",),
        ),
        kind="class",
    ),
    family(
        "student_class",
        "Student Player Pupil Athlete",
        "",
        """
        Somebody with a name and scores: add(score), average() (0 if none) and best().
        A name and a list of scores, with add(score), average() or 0, and best().
        Keep scores: add one, average them (0 without any), and return the best.
        Has a name and collects scores with add; average (0 if none) and best use them.
        """,
        """
        def __init__(self, name):
            self.name = name
            self.scores = []

        def add(self, score):
            self.scores.append(score)

        def average(self):
            if not self.scores:
                return 0
            return sum(self.scores) / len(self.scores)

        def best(self):
            return max(self.scores)
        ---
        def __init__(self, name):
            self.name = name
            self.scores = []

        def add(self, score):
            self.scores.append(score)

        def average(self):
            return sum(self.scores) / len(self.scores) if self.scores else 0

        def best(self):
            return sorted(self.scores)[-1]
        """,
        Scores,
        lambda rng: (
            ("Anna",),
            [
                ("name",),
                ("average",),
                *[("add", rng.randint(0, 9)) for _ in range(rng.randint(1, 4))],
                ("average",),
                ("best",),
            ],
        ),
        kind="class",
    ),
    family(
        "switch_class",
        "Switch LightSwitch Lamp Light",
        "",
        """
        A switch that is off at first, with $toggle, turn_off and the attribute on.
        Has an attribute on, False at first; $toggle() changes it, turn_off() clears it.
        A light: on says whether it is lit; $toggle switches it and turn_off darkens it.
        Keep in on whether it is switched on; the methods are $toggle and turn_off.
        """,
        """
        def __init__(self):
            self.on = False

        def $toggle(self):
            self.on = not self.on

        def turn_off(self):
            self.on = False
        ---
        def __init__(self):
            self.on = False

        def $toggle(self):
            if self.on:
                self.on = False
            else:
                self.on = True

        def turn_off(self):
            self.on = False
        """,
        Switch,
        lambda rng: calls(rng, (), ("toggle",), ("toggle",), ("turn_off",), last=("on",)),
        choices={"toggle": ("toggle", "press", "flip")},
        kind="class",
    ),
    family(
        "word_counter_class",
        "WordCounter Tally Votes Frequency",
        "",
        """
        Counts words: add(word) counts one more, count(word) returns its number.
        A tally with add(word) and count(word), which is 0 for an unknown word.
        Remember how often each word was added; count(word) tells it, 0 if never.
        Keep counts of words with the methods add and count.
        """,
        """
        def __init__(self):
            self.counts = {}

        def add(self, word):
            self.counts[word] = self.counts.get(word, 0) + 1

        def count(self, word):
            return self.counts.get(word, 0)
        ---
        def __init__(self):
            self.words = []

        def add(self, word):
            self.words.append(word)

        def count(self, word):
            return self.words.count(word)
        """,
        Words,
        lambda rng: calls(rng, (), ("add", "a"), ("add", "b"), ("count", "a"), last=("count", "b")),
        kind="class",
    ),
]


def _renamed(thing: Any, **names: str) -> Any:
    """Give methods of an object the names of slots."""
    for old, new in names.items():
        setattr(thing, new, getattr(thing, old))
    return thing
