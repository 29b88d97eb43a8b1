"""Small classes that hold a few values: points, shapes, temperatures, people."""

import math
from typing import Any

from qwenkit.programs.family import family


class Rectangle:
    """The reference of a rectangle."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height

    def area(self) -> int:
        """Return the area."""
        return self.width * self.height

    def perimeter(self) -> int:
        """Return the perimeter."""
        return 2 * (self.width + self.height)

    def is_square(self) -> bool:
        """Tell whether the sides are equal."""
        return self.width == self.height


class Circle:
    """The reference of a circle."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def area(self) -> float:
        """Return the area."""
        return math.pi * self.radius**2

    def circumference(self) -> float:
        """Return the circumference."""
        return 2 * math.pi * self.radius


class Point:
    """The reference of a point."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def move(self, dx: int, dy: int) -> None:
        """Shift the point."""
        self.x, self.y = self.x + dx, self.y + dy

    def distance(self) -> float:
        """Return the distance from the origin."""
        return math.hypot(self.x, self.y)

    def __str__(self) -> str:
        return f"({self.x}, {self.y})"


class Temperature:
    """The reference of a temperature."""

    def __init__(self, celsius: float) -> None:
        self.celsius = celsius

    def to_fahrenheit(self) -> float:
        """Convert to Fahrenheit."""
        return self.celsius * 9 / 5 + 32

    def to_kelvin(self) -> float:
        """Convert to Kelvin."""
        return self.celsius + 273.15


class Person:
    """The reference of a person, and of an animal."""

    def __init__(self, name: str, age: int = 0) -> None:
        self.name, self.age = name, age

    def birthday(self) -> None:
        """Become a year older."""
        self.age += 1

    def __str__(self) -> str:
        return f"{self.name} ({self.age})"


class Speaker:
    """The reference of an animal that speaks."""

    def __init__(self, name: str, sound: str) -> None:
        self.name, self.sound = name, sound

    def speak(self) -> str:
        """Return name and sound."""
        return f"{self.name} says {self.sound}"


class Vector:
    """The reference of a vector."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def dot(self, other: Any) -> int:
        """Return the dot product with a pair."""
        return int(self.x * other[0] + self.y * other[1])

    def length(self) -> float:
        """Return the length."""
        return math.hypot(self.x, self.y)


class Timer:
    """The reference of a timer."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def tick(self) -> None:
        """Let a second pass."""
        self.seconds = max(0, self.seconds - 1)

    def is_done(self) -> bool:
        """Tell whether no time is left."""
        return self.seconds == 0


def pair(rng: Any) -> tuple[int, int]:
    """Return two small numbers, which are sometimes equal."""
    width = rng.randint(1, 9)
    return width, rng.choice((width, rng.randint(1, 9)))


FAMILIES = [
    family(
        "rectangle_class",
        "Rectangle Rect Box Field",
        "",
        """
        A rectangle with width and height, and the methods area, perimeter and is_square.
        Has a width and a height; area(), perimeter() and is_square() tell about it.
        A rectangle made from width and height, with area, perimeter and is_square.
        Store width and height and compute area(), perimeter() and is_square().
        """,
        """
        def __init__(self, width, height):
            self.width = width
            self.height = height

        def area(self):
            return self.width * self.height

        def perimeter(self):
            return 2 * (self.width + self.height)

        def is_square(self):
            return self.width == self.height
        ---
        def __init__(self, width, height):
            self.width = width
            self.height = height

        def area(self):
            return self.width * self.height

        def perimeter(self):
            return 2 * self.width + 2 * self.height

        def is_square(self):
            return self.width == self.height
        """,
        Rectangle,
        lambda rng: (pair(rng), [("area",), ("perimeter",), ("is_square",), ("width",)]),
        kind="class",
    ),
    family(
        "rectangle_area_class",
        "Rectangle Garden Room Screen",
        "",
        """
        A rectangle with $width and $height, and a method area.
        Has a $width and a $height; area() returns their product.
        A rectangle made from $width and $height that knows its area().
        Store $width and $height and compute area().
        """,
        """
        def __init__(self, $width, $height):
            self.$width = $width
            self.$height = $height

        def area(self):
            return self.$width * self.$height
        ---
        def __init__(self, $width, $height):
            self.$width, self.$height = $width, $height

        def area(self):
            return self.$width * self.$height
        """,
        Rectangle,
        lambda rng: (pair(rng), [("width",), ("height",), ("area",)]),
        choices={"width": ("width", "w"), "height": ("height", "length", "h")},
        kind="class",
    ),
    family(
        "circle_class",
        "Circle Disk Wheel Ring",
        "",
        """
        A circle with a radius, and the methods area and circumference.
        Has a radius; area() and circumference() are computed from it.
        A circle made from its radius, with area and circumference.
        Store a radius and compute area() and circumference() with pi.
        """,
        """
        import math
        def __init__(self, radius):
            self.radius = radius

        def area(self):
            return math.pi * self.radius ** 2

        def circumference(self):
            return 2 * math.pi * self.radius
        ---
        from math import pi
        def __init__(self, radius):
            self.radius = radius

        def area(self):
            return pi * self.radius * self.radius

        def circumference(self):
            return 2 * pi * self.radius
        """,
        Circle,
        lambda rng: ((rng.randint(1, 20) / 2,), [("area",), ("circumference",), ("radius",)]),
        kind="class",
    ),
    family(
        "point_class",
        "Point Position Location Marker",
        "",
        """
        A point with x and y, and $move(dx, dy), which adds to them.
        Has coordinates x and y; $move(dx, dy) shifts them.
        A point in the plane that $move(dx, dy) moves by dx and dy. Attributes x and y.
        Store x and y, and change them by dx and dy in $move.
        """,
        """
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def $move(self, dx, dy):
            self.x += dx
            self.y += dy
        ---
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def $move(self, dx, dy):
            self.x = self.x + dx
            self.y = self.y + dy
        """,
        Point,
        lambda rng: (
            (rng.randint(-5, 9), rng.randint(-5, 9)),
            [("move", rng.randint(-3, 5), rng.randint(-3, 5)), ("x",), ("y",)],
        ),
        choices={"move": ("move", "shift", "move_by")},
        kind="class",
    ),
    family(
        "point_distance_class",
        "Point Place Spot Coordinate",
        "",
        """
        A point with x and y, distance() from the origin, and str() such as "(1, 2)".
        Has x and y; distance() is that to the origin, str() gives text like "(3, 4)".
        A point of the plane with its distance() to (0, 0); as text it is "(x, y)".
        Store x and y; distance() measures to the origin, and str() shows "(x, y)".
        """,
        """
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def distance(self):
            return (self.x ** 2 + self.y ** 2) ** 0.5

        def __str__(self):
            return f"({self.x}, {self.y})"
        ---
        import math
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def distance(self):
            return math.hypot(self.x, self.y)

        def __str__(self):
            return f"({self.x}, {self.y})"
        """,
        Point,
        lambda rng: ((rng.randint(-5, 9), rng.randint(-5, 9)), [("distance",), ("str",)]),
        kind="class",
    ),
    family(
        "temperature_class",
        "Temperature Thermometer Celsius Reading",
        "",
        """
        A temperature in Celsius with the methods to_fahrenheit and to_kelvin.
        Holds degrees in celsius; to_fahrenheit() and to_kelvin() convert them.
        A temperature made from celsius that converts by to_fahrenheit and to_kelvin.
        Store celsius and return it in other scales by to_fahrenheit() and to_kelvin().
        """,
        """
        def __init__(self, celsius):
            self.celsius = celsius

        def to_fahrenheit(self):
            return self.celsius * 9 / 5 + 32

        def to_kelvin(self):
            return self.celsius + 273.15
        ---
        def __init__(self, celsius):
            self.celsius = celsius

        def to_fahrenheit(self):
            return 1.8 * self.celsius + 32

        def to_kelvin(self):
            return self.celsius + 273.15
        """,
        Temperature,
        lambda rng: (
            (rng.choice((-40, 0, 20, 37, 100, rng.randint(-30, 60))),),
            [("celsius",), ("to_fahrenheit",), ("to_kelvin",)],
        ),
        kind="class",
    ),
    family(
        "person_class",
        "Person Human Friend Member",
        "",
        """
        A person with name and age; birthday() adds a year, str() gives "Anna (30)".
        Has a name and an age; birthday raises the age by 1, as text it is "Bob (8)".
        Store name and age; birthday() makes it one year older; str() is "name (age)".
        Somebody with a name and an age, a method birthday, and text like "Eve (41)".
        """,
        """
        def __init__(self, name, age):
            self.name = name
            self.age = age

        def birthday(self):
            self.age += 1

        def __str__(self):
            return f"{self.name} ({self.age})"
        ---
        def __init__(self, name, age):
            self.name = name
            self.age = age

        def birthday(self):
            self.age = self.age + 1

        def __str__(self):
            return self.name + " (" + str(self.age) + ")"
        """,
        Person,
        lambda rng: (
            (rng.choice(("Anna", "Bob", "Eve")), rng.randint(1, 60)),
            [("str",), *[("birthday",)] * rng.randint(1, 2), ("age",), ("str",)],
        ),
        kind="class",
    ),
    family(
        "speaker_class",
        "Dog Cat Animal Pet",
        "",
        """
        An animal with a name; speak() returns the text "NAME says $sound".
        Has a name; speak() returns it followed by " says $sound".
        Store a name and let speak() return, for Rex, "Rex says $sound".
        A pet made from its name, with a method speak that returns "NAME says $sound".
        """,
        """
        def __init__(self, name):
            self.name = name

        def speak(self):
            return f"{self.name} says $sound"
        ---
        def __init__(self, name):
            self.name = name

        def speak(self):
            return self.name + " says $sound"
        """,
        lambda name, sound: Speaker(name, sound),
        lambda rng: ((rng.choice(("Rex", "Tom", "Bella", "Max")),), [("name",), ("speak",)]),
        choices={"sound": ("woof", "meow", "moo", "hello", "quack")},
        kind="class",
    ),
    family(
        "vector_class",
        "Vector Vector2 Vec Arrow",
        "",
        """
        A vector with x and y, and a method length.
        Has x and y; length() is the square root of the sum of their squares.
        A vector of the plane made from x and y that knows its length().
        Store x and y and compute length().
        """,
        """
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def length(self):
            return (self.x ** 2 + self.y ** 2) ** 0.5
        ---
        import math
        def __init__(self, x, y):
            self.x = x
            self.y = y

        def length(self):
            return math.hypot(self.x, self.y)
        """,
        Vector,
        lambda rng: ((rng.randint(-6, 6), rng.randint(-8, 8)), [("x",), ("y",), ("length",)]),
        kind="class",
    ),
    family(
        "timer_class",
        "Timer Countdown EggTimer Clock",
        "",
        """
        A timer with seconds left; tick() takes one away, not below 0; is_done() at 0.
        Has seconds; tick lowers them by 1 down to 0, and is_done tells whether it is 0.
        Store seconds, lower them by tick() (never below 0), and tell the end by is_done().
        Counts seconds down to 0 with the methods tick and is_done.
        """,
        """
        def __init__(self, seconds):
            self.seconds = seconds

        def tick(self):
            if self.seconds > 0:
                self.seconds -= 1

        def is_done(self):
            return self.seconds == 0
        ---
        def __init__(self, seconds):
            self.seconds = seconds

        def tick(self):
            self.seconds = max(0, self.seconds - 1)

        def is_done(self):
            return self.seconds == 0
        """,
        Timer,
        lambda rng: (
            (rng.randint(0, 3),),
            [*[("tick",)] * rng.randint(0, 3), ("seconds",), ("is_done",)],
        ),
        kind="class",
    ),
]
