"""Conversions between units, and areas."""

import math
from collections.abc import Callable

from qwenkit.programs.family import Family, family

# name, from, to, formula over $x, the same in Python, what is converted, other names
TABLE: list[tuple[str, str, str, str, Callable[[float], float], str]] = [
    ("celsius_to_fahrenheit", "Celsius", "Fahrenheit", "$value * 9 / 5 + 32",
     lambda x: x * 9 / 5 + 32, "c_to_f"),
    ("fahrenheit_to_celsius", "Fahrenheit", "Celsius", "($value - 32) * 5 / 9",
     lambda x: (x - 32) * 5 / 9, "f_to_c"),
    ("celsius_to_kelvin", "Celsius", "Kelvin", "$value + 273.15", lambda x: x + 273.15, "c_to_k"),
    ("kelvin_to_celsius", "Kelvin", "Celsius", "$value - 273.15", lambda x: x - 273.15, "k_to_c"),
    ("km_to_miles", "kilometers", "miles", "$value / 1.609344", lambda x: x / 1.609344,
     "kilometers_to_miles"),
    ("miles_to_km", "miles", "kilometers", "$value * 1.609344", lambda x: x * 1.609344,
     "miles_to_kilometers"),
    ("minutes_to_seconds", "minutes", "seconds", "$value * 60", lambda x: x * 60, "min_to_sec"),
    ("hours_to_minutes", "hours", "minutes", "$value * 60", lambda x: x * 60, "hours_to_min"),
    ("hours_to_seconds", "hours", "seconds", "$value * 3600", lambda x: x * 3600, "hours_to_sec"),
    ("days_to_hours", "days", "hours", "$value * 24", lambda x: x * 24, "days_in_hours"),
    ("weeks_to_days", "weeks", "days", "$value * 7", lambda x: x * 7, "weeks_in_days"),
    ("meters_to_centimeters", "meters", "centimeters", "$value * 100", lambda x: x * 100,
     "m_to_cm"),
    ("km_to_meters", "kilometers", "meters", "$value * 1000", lambda x: x * 1000,
     "kilometers_to_meters"),
    ("kg_to_grams", "kilograms", "grams", "$value * 1000", lambda x: x * 1000,
     "kilograms_to_grams"),
    ("grams_to_kg", "grams", "kilograms", "$value / 1000", lambda x: x / 1000,
     "grams_to_kilograms"),
    ("inches_to_cm", "inches", "centimeters", "$value * 2.54", lambda x: x * 2.54,
     "inches_to_centimeters"),
    ("cm_to_inches", "centimeters", "inches", "$value / 2.54", lambda x: x / 2.54,
     "centimeters_to_inches"),
    ("feet_to_inches", "feet", "inches", "$value * 12", lambda x: x * 12, "ft_to_in"),
    ("degrees_to_radians", "degrees", "radians", "$value * math.pi / 180",
     lambda x: x * math.pi / 180, "deg_to_rad"),
]  # fmt: skip
TEMPERATURES = """
Convert [a temperature from |a temperature in |]{scale} to {goal}.
= the temperature in {goal} for a temperature in {scale}
Turn {scale} into {goal}.
Given a temperature in {scale}, return it in {goal}.
Change a temperature from {scale} to {goal}.
"""
AMOUNTS = """
Convert {scale} to {goal}.
# the number of {goal} in the given {scale}
Turn {scale} into {goal}.
Given a number of {scale}, return how many {goal} that is.
# how many {goal} there are in the given {scale}
"""


def conversion(
    name: str,
    before: str,
    after: str,
    formula: str,
    reference: Callable[[float], float],
    short: str,
) -> Family:
    """Return the family of a conversion."""
    scale = before if before[0].islower() else f"degrees {before}"
    goal = after if after[0].islower() else f"degrees {after}"
    imports = "import math\n" if "math" in formula else ""
    local = after.lower()
    return family(
        name,
        f"{name} convert_{name} {short} {before.lower()}_in_{after.lower()} to_{after.lower()}",
        f"{before.lower()}:value -> float",
        (TEMPERATURES if scale != before else AMOUNTS).format(scale=scale, goal=goal),
        f"{imports}return {formula}\n---\n{imports}{local} = {formula}\nreturn {local}\n".replace(
            "$value", f"${before.lower()}"
        ),
        reference,
        weight=0.6,
    )


FAMILIES = [conversion(*row) for row in TABLE] + [
    family(
        "rectangle_area",
        "~rectangle_area area_of_rectangle ~area ~area_rectangle",
        "width:size height:size -> float",
        """
        # the area of a rectangle
        # the area of a rectangle with the given $width and $height
        # the area of a rectangle from its two sides
        Given the $width and $height of a rectangle, return its area.
        Return how large the surface of a rectangle is.
        """,
        """
        return $width * $height
        ---
        area = $width * $height
        return area
        """,
        lambda width, height: width * height,
    ),
    family(
        "rectangle_perimeter",
        "~rectangle_perimeter perimeter_of_rectangle ~perimeter ~perimeter_rectangle",
        "width:size height:size -> float",
        """
        # the perimeter of a rectangle
        # the perimeter of a rectangle with the given $width and $height
        Given the $width and $height of a rectangle, return its perimeter.
        # the sum of the four sides of a rectangle
        """,
        """
        return 2 * ($width + $height)
        ---
        return 2 * $width + 2 * $height
        """,
        lambda width, height: 2 * (width + height),
    ),
    family(
        "circle_area",
        "~circle_area area_of_circle ~area ~area_circle",
        "radius:size -> float",
        """
        # the area of a circle with the given $radius
        # the area of a circle
        Given the radius of a circle, return its area.
        # the area of a circle of radius $radius
        """,
        """
        import math
        return math.pi * $radius ** 2
        ---
        import math
        return math.pi * $radius * $radius
        ---
        from math import pi
        return pi * $radius ** 2
        """,
        lambda radius: math.pi * radius * radius,
    ),
    family(
        "circumference",
        "~circumference ~circle_circumference ~circle_perimeter circumference_of_circle",
        "radius:size -> float",
        """
        # the circumference of a circle with the given $radius
        # the circumference of a circle
        Given the radius of a circle, return its circumference.
        # the distance around a circle of radius $radius
        """,
        """
        import math
        return 2 * math.pi * $radius
        ---
        import math
        diameter = 2 * $radius
        return math.pi * diameter
        """,
        lambda radius: 2 * math.pi * radius,
    ),
    family(
        "triangle_area",
        "~triangle_area area_of_triangle ~area ~area_triangle",
        "base:size height:size -> float",
        """
        # the area of a triangle from its $base and $height
        # the area of a triangle
        Given the base and the height of a triangle, return its area.
        Return half of the base times the height.
        """,
        """
        return $base * $height / 2
        ---
        return 0.5 * $base * $height
        """,
        lambda base, height: base * height / 2,
    ),
    family(
        "cube_volume",
        "~cube_volume volume_of_cube ~volume ~volume_cube",
        "side:size -> float",
        """
        # the volume of a cube with the given $side
        # the volume of a cube
        Given the length of a side of a cube, return its volume.
        # the volume of a cube whose edges have length $side
        """,
        """
        return $side ** 3
        ---
        return $side * $side * $side
        """,
        lambda side: side**3,
    ),
    family(
        "percent_of",
        "~percentage percent percent_of to_percent",
        "part:int whole:int -> float",
        """
        # how many percent of $whole $part is
        = $part as a percentage of $whole
        Express $part as a percentage of $whole.
        Given a part and a whole, return the percentage.
        """,
        """
        return $part * 100 / $whole
        ---
        return 100 * $part / $whole
        """,
        lambda part, whole: 100 * part / whole,
        lambda rng: (rng.randint(0, 40), rng.choice((10, 20, 25, 40, 50, 80, 100))),
    ),
    family(
        "discounted",
        "~discounted_price apply_discount ~price_after_discount discount",
        "price:size percent:int -> float",
        """
        # the price after a discount of $percent percent
        = $price reduced by $percent percent
        Apply a discount in percent to a price.
        Take $percent percent off $price.
        Lower the price by the given percentage and return it.
        """,
        """
        return $price * (100 - $percent) / 100
        ---
        return $price - $price * $percent / 100
        ---
        discount = $price * $percent / 100
        return $price - discount
        """,
        lambda price, percent: price * (100 - percent) / 100,
        lambda rng: (rng.choice((10.0, 20.0, 50.0, 80.0, 200.0)), rng.choice((0, 10, 25, 50))),
    ),
    family(
        "split_seconds",
        "to_hours_minutes split_minutes minutes_to_hours ~hours_and_minutes",
        "minutes:big -> tuple[int, int]",
        """
        = the hours and the minutes left over in $minutes as a tuple
        Split minutes into hours and minutes.
        Convert $minutes minutes to a tuple (hours, minutes).
        = a tuple of the full hours in $minutes and the remaining minutes
        """,
        """
        return $minutes // 60, $minutes % 60
        ---
        return divmod($minutes, 60)
        ---
        hours = $minutes // 60
        rest = $minutes % 60
        return hours, rest
        """,
        lambda minutes: divmod(minutes, 60),
    ),
    family(
        "seconds_to_clock",
        "to_clock format_time format_seconds clock",
        "seconds:big -> str",
        """
        Format seconds as minutes and seconds, as in "2:05".
        = $seconds written as minutes, a colon and two digits of seconds
        Turn a number of seconds into text such as "1:30".
        = the time of $seconds seconds in the form "m:ss"
        """,
        """
        return f"{$seconds // 60}:{$seconds % 60:02d}"
        ---
        minutes = $seconds // 60
        rest = $seconds % 60
        return f"{minutes}:{rest:02d}"
        ---
        minutes, rest = divmod($seconds, 60)
        return f"{minutes}:{rest:02d}"
        """,
        lambda seconds: f"{seconds // 60}:{seconds % 60:02d}",
        lambda rng: (rng.randint(0, 900),),
    ),
]
