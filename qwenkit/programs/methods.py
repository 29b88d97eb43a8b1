"""Docstrings of the methods of generated classes."""

import re
from random import Random

# A method's name -> what its docstring may say.
SAID = {
    "add": ("Add an item.", "Add it to the others."),
    "area": ("Return the area.", "Calculate the area."),
    "average": ("Return the average.", "Calculate the average."),
    "bark": ("Return what the dog says.", "Bark."),
    "best": ("Return the best one.",),
    "birthday": ("Add one year to the age.", "Grow one year older."),
    "borrow": ("Lend it.", "Mark it as lent."),
    "circumference": ("Return the circumference.", "Calculate the circumference."),
    "count": ("Return how many there are.", "Count the items."),
    "decrement": ("Count down.", "Decrease the value."),
    "deposit": ("Add amount to the balance.", "Put money into the account."),
    "dequeue": ("Remove and return the first item.", "Take the oldest item out and return it."),
    "distance": ("Return the distance.", "Calculate the distance."),
    "distance_to": ("Return the distance to a point.", "Calculate the distance to it."),
    "drive": ("Drive some distance.", "Add to the kilometers driven."),
    "enqueue": ("Add an item at the end.", "Put an item at the end of the queue."),
    "get_value": ("Return the value.", "Get the current value."),
    "give_back": ("Return it.", "Mark it as available again."),
    "increment": ("Count up.", "Increase the value."),
    "is_done": ("Return whether it is done.", "Check if it is done."),
    "is_empty": ("Return True if there are no items.", "Check whether it is empty."),
    "is_square": ("Return whether all sides are equal.", "Check if it is a square."),
    "length": ("Return the length.", "Calculate the length."),
    "move": ("Move it.", "Move by the given distances."),
    "peek": ("Return the next item without removing it.", "Show the next item."),
    "perimeter": ("Return the perimeter.", "Calculate the perimeter."),
    "pop": ("Remove and return the top item.", "Take an item off and return it."),
    "push": ("Add an item on top.", "Push an item onto the stack."),
    "remove": ("Remove an item.", "Take an item out."),
    "reset": ("Start again.", "Set it back."),
    "size": ("Return the number of items.", "Return how many items there are."),
    "speak": ("Return what the animal says.", "Make the animal speak."),
    "tick": ("Advance by one.", "Let a second pass."),
    "to_fahrenheit": ("Return the temperature in Fahrenheit.", "Convert to Fahrenheit."),
    "to_kelvin": ("Return the temperature in Kelvin.", "Convert to Kelvin."),
    "toggle": ("Switch it on or off.", "Flip the switch."),
    "total": ("Return the total.", "Add everything up."),
    "turn_off": ("Switch it off.", "Turn it off."),
    "withdraw": ("Take amount from the balance.", "Take money out of the account."),
}
_METHOD = re.compile(r"^def (\w+)\(self[^)]*\).*:\n", re.MULTILINE)


def with_docstrings(rng: Random, source: str) -> str:
    """Return the body of a class, not indented, with a docstring for each method in `SAID`."""

    def said(found: re.Match[str]) -> str:
        texts = SAID.get(found[1])
        return found[0] + (f'    """{rng.choice(texts)}"""\n' if texts else "")

    return _METHOD.sub(said, source)
