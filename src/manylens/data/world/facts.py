"""What a query asks, what a product is, how the two compare, and the label that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from manylens.data.world.catalogue import FAMILY_OF

#: What a query can ask something about.
Field = Literal["brand", "colour", "material", "price", "size"]
#: How the asked value is meant: that one, any but that one, less than it, it or more.
Relation = Literal["is", "not", "under", "least"]
#: How the product's kind stands to the one asked for, and how any other comparison comes out.
Finding = Literal["same", "alternative", "accessory", "unrelated", "holds", "misses", "excluded"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing that a query asks of a product besides its kind."""

    field: Field
    relation: Relation
    value: str | int


@dataclass(frozen=True, slots=True)
class Query:
    """A kind of product, and what it should be like; `asks` are about different fields."""

    kind: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """A product, as the world knows it.

    Attributes:
        kind: A kind or an accessory of a family.
        brand: The brand.
        colour: The colour.
        material: The material.
        price: The price.
        size: The family's measure; of an accessory it says nothing.
        fits: The kind that an accessory is made for; empty for anything else.
        fits_brand: The one brand whose products it fits; empty where it fits all.
        words: Words of the title that say nothing.
    """

    kind: str
    brand: str
    colour: str
    material: str
    price: int
    size: int
    fits: str = ""
    fits_brand: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was asked against what is there.

    Attributes:
        subject: A `Field`, ``kind``, or ``fits``.
        relation: That of the `Ask`; ``is`` for kind and fit.
        asked: What the query says.
        found: What the product says.
        finding: How they compare.
    """

    subject: Field | Literal["kind", "fits"]
    relation: Relation
    asked: str | int
    found: str | int
    finding: Finding


def holds(ask: Ask, value: str | int) -> bool:
    """Return whether a product with `value` in the field satisfies `ask`."""
    if ask.relation == "is":
        return value == ask.value
    if ask.relation == "not":
        return value != ask.value
    number, limit = int(value), int(ask.value)
    return number < limit if ask.relation == "under" else number >= limit


def compare(query: Query, product: Product) -> tuple[Comparison, ...]:
    """Return the comparisons that decide the label, that of the kinds first.

    An accessory is asked whether it fits, a product of an unrelated kind nothing more.
    """
    kind = _compare_kinds(query.kind, product.kind)
    comparisons = [Comparison("kind", "is", query.kind, product.kind, kind)]
    if kind == "accessory":
        comparisons.append(_compare_fit(query, product))
    elif kind != "unrelated":
        comparisons.extend(_compare_ask(ask, product) for ask in query.asks)
    return tuple(comparisons)


def label_of(comparisons: tuple[Comparison, ...]) -> str:
    """Return the label on the scale ``esci`` that follows from the comparisons.

    Another kind of product that can stand in for the one asked for counts as one thing missed. Then nothing missed
    is exact, one thing is a substitute, more are irrelevant; so is whatever the query rules out. An accessory that fits
    is a complement.
    """
    kind, *others = (comparison.finding for comparison in comparisons)
    if kind == "unrelated" or "excluded" in others:
        return "irrelevant"
    missed = others.count("misses")
    if kind == "accessory":
        return "irrelevant" if missed else "complement"
    missed += kind == "alternative"
    return ("exact", "substitute")[missed] if missed < 2 else "irrelevant"


def _compare_kinds(asked: str, found: str) -> Finding:
    family = FAMILY_OF[asked]
    if found == asked:
        return "same"
    if found in family.kinds:
        return "alternative"
    return "accessory" if found in family.accessories else "unrelated"


def _compare_fit(query: Query, product: Product) -> Comparison:
    """Compare the product that an accessory is made for with the one asked for, which may be of any brand."""
    brand = next((str(ask.value) for ask in query.asks if ask.field == "brand"), "")
    fits = product.fits == query.kind and (not product.fits_brand or brand in ("", product.fits_brand))
    asked = f"{brand} {query.kind}".strip()
    return Comparison("fits", "is", asked, fitting(product), "holds" if fits else "misses")


def fitting(product: Product) -> str:
    """Return what an accessory fits, such as ``"any kettle"`` or ``"Vorna kettle"``."""
    return f"{product.fits_brand or 'any'} {product.fits}"


def _compare_ask(ask: Ask, product: Product) -> Comparison:
    found: str | int = getattr(product, ask.field)
    failed: Finding = "excluded" if ask.relation == "not" else "misses"
    return Comparison(ask.field, ask.relation, ask.value, found, "holds" if holds(ask, found) else failed)
