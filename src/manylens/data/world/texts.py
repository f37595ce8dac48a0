"""The texts of queries and products: what the student reads."""

from __future__ import annotations

from manylens.data.world.catalogue import FAMILY_OF
from manylens.data.world.facts import Ask, Product, Query, fitting


def query_text(query: Query) -> str:
    """Return the query as typed: no two queries are typed alike."""
    before = [str(ask.value).lower() for ask in query.asks if ask.relation == "is"]
    after = [_ask_text(ask, query.kind) for ask in query.asks if ask.relation != "is"]
    return " ".join((*before, query.kind, *after))


def _ask_text(ask: Ask, kind: str) -> str:
    if ask.relation == "not":
        return f"not {ask.value}"
    return f"under {ask.value}" if ask.relation == "under" else f"at least {ask.value} {FAMILY_OF[kind].unit}"


def title_of(product: Product) -> str:
    """Return the product's title: its kind, and words that say nothing."""
    return " ".join((*product.words, product.kind)).capitalize()


def attributes_of(product: Product, hidden: str | None = None) -> dict[str, str]:
    """Return the product's attributes by name.

    Args:
        product: The product.
        hidden: A field that is left out.
    """
    family = FAMILY_OF[product.kind]
    by_field = {
        "fits": ("Fits", fitting(product) if product.fits else ""),
        "colour": ("Colour", product.colour),
        "material": ("Material", product.material),
        "size": (family.measure, "" if product.fits else f"{product.size} {family.unit}"),
        "price": ("Price", str(product.price)),
    }
    return {name: value for field, (name, value) in by_field.items() if value and field != hidden}


def brand_of(product: Product, hidden: str | None = None) -> str:
    """Return the product's brand, empty where it is the hidden field."""
    return "" if hidden == "brand" else product.brand
