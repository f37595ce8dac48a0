"""The invented catalogue: families of products, and the values that their attributes take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Products that belong together.

    Attributes:
        kinds: Two kinds of product that can stand in for each other.
        accessories: Kinds that are of use with one of `kinds` only.
        measure: Name of the family's number, such as ``Capacity``.
        unit: Its unit.
        sizes: The values that it takes, ascending.
    """

    kinds: tuple[str, str]
    accessories: tuple[str, str]
    measure: str
    unit: str
    sizes: tuple[int, ...]


FAMILIES = (
    Family(("kettle", "teapot"), ("trivet", "tea strainer"), "Capacity", "litres", (1, 2, 3, 4, 5, 6)),
    Family(("tent", "tarp"), ("groundsheet", "guy rope"), "Sleeps", "people", (1, 2, 3, 4, 6, 8)),
    Family(("backpack", "suitcase"), ("luggage tag", "rain cover"), "Volume", "litres", (20, 30, 40, 50, 60, 70)),
    Family(("lamp", "lantern"), ("bulb", "shade"), "Power", "watts", (5, 10, 20, 40, 60, 80)),
    Family(("sofa", "armchair"), ("cushion", "slip cover"), "Width", "inches", (30, 40, 50, 60, 70, 80)),
    Family(("knife", "cleaver"), ("sharpener", "sheath"), "Blade", "inches", (3, 4, 5, 6, 7, 8)),
    Family(("bicycle", "scooter"), ("pump", "bell"), "Wheel", "inches", (12, 14, 16, 20, 24, 28)),
    Family(("phone", "tablet"), ("charger", "screen protector"), "Screen", "inches", (5, 6, 7, 8, 10, 12)),
)
COLOURS = ("red", "blue", "green", "black", "white", "grey")
MATERIALS = ("steel", "wood", "plastic", "glass", "leather", "cotton")
BRANDS = ("Vorna", "Kelto", "Marlow", "Tibex", "Ostra", "Fennel", "Quill", "Hadley", "Zumi", "Corvo", "Ruston", "Pella")
#: Prices that products have, and those that queries ask to stay under.
PRICES = range(10, 100)
PRICE_LIMITS = range(20, 100, 10)
#: Words of a title that say nothing.
NOISE = ("classic", "compact", "daily", "premium", "simple", "modern", "original", "handy", "new", "home", "pro", "eco")

#: The family of every kind and of every accessory.
FAMILY_OF = {kind: family for family in FAMILIES for kind in (*family.kinds, *family.accessories)}
