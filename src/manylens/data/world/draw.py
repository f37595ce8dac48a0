"""Drawing queries, and products for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from random import Random
from typing import Any

from manylens.data.world.catalogue import (
    BRANDS,
    COLOURS,
    FAMILIES,
    FAMILY_OF,
    MATERIALS,
    NOISE,
    PRICE_LIMITS,
    PRICES,
)
from manylens.data.world.facts import Ask, Field, Product, Query, Relation, compare, holds, label_of

#: How often a product is drawn for each label.
LABEL_SHARES = {"exact": 0.3, "substitute": 0.3, "complement": 0.15, "irrelevant": 0.25}
#: The ways to be irrelevant, each as often as it stands here.
_WAYS = ("unrelated", "unrelated", "same", "same", "alternative", "accessory")
#: How often a query asks for one, two or three things besides the kind.
_ASK_SHARES = (0.1, 0.4, 0.5)
_FIELDS: tuple[Field, ...] = ("brand", "colour", "material", "price", "size")
#: What it asks about; for two fields, about one of them.
_TOPICS: tuple[tuple[Field, ...], ...] = (("brand",), ("colour",), ("material",), ("price", "size"))
_CHOICES: dict[str, Sequence[str | int]] = {
    "brand": BRANDS,
    "colour": COLOURS,
    "material": MATERIALS,
    "price": PRICES,
}
#: Share of colours and materials that are ruled out instead of asked for.
_NEGATED = 0.3
#: Share of the substitutes that are of another kind and else what is asked for.
_ALTERNATIVE = 0.3
#: Share of accessories that fit the products of one brand alone.
_OWN_BRAND = 0.5


def draw_queries(seed: str, count: int, taken: Collection[Query] = ()) -> Iterator[Query]:
    """Yield queries; the first of them do not depend on `count`.

    Args:
        seed: Seed of this row of queries.
        count: How many.
        taken: Queries that must not come; it may grow in between.
    """
    generator = Random(seed)
    for _ in range(count):
        query = _draw_query(generator)
        while query in taken:
            query = _draw_query(generator)
        yield query


def draw_product(query: Query, label: str, generator: Random) -> Product:
    """Return a product that deserves `label` for `query`.

    Where the query asks too little to miss it in the drawn way, it is missed in another.
    """
    while True:
        product = _draw_product(query, label, generator)
        if label_of(compare(query, product)) == label:
            return product


def draw_label(generator: Random, without: str | None = None) -> str:
    """Return a label by `LABEL_SHARES`, any but one."""
    labels = [label for label in LABEL_SHARES if label != without]
    return generator.choices(labels, [LABEL_SHARES[label] for label in labels])[0]


def _draw_query(generator: Random) -> Query:
    family = generator.choice(FAMILIES)
    count = generator.choices((1, 2, 3), _ASK_SHARES)[0]
    topics = set(generator.sample(_TOPICS, count))
    asks = tuple(_draw_ask(generator.choice(topic), family.sizes, generator) for topic in _TOPICS if topic in topics)
    return Query(generator.choice(family.kinds), asks)


def _draw_ask(field: Field, sizes: Sequence[int], generator: Random) -> Ask:
    if field == "price":
        return Ask(field, "under", generator.choice(PRICE_LIMITS))
    if field == "size":
        return Ask(field, "least", generator.choice(sizes[1:]))  # Any product has the smallest.
    if field == "brand":
        return Ask(field, "is", generator.choice(BRANDS))
    relation: Relation = "not" if generator.random() < _NEGATED else "is"
    return Ask(field, relation, generator.choice(COLOURS if field == "colour" else MATERIALS))


def _draw_product(query: Query, label: str, generator: Random) -> Product:
    family = FAMILY_OF[query.kind]
    other_kind = next(kind for kind in family.kinds if kind != query.kind)
    if label == "exact":
        return _product(query, query.kind, (), generator)
    if label == "substitute":
        if generator.random() < _ALTERNATIVE:
            return _product(query, other_kind, (), generator)
        return _product(query, query.kind, generator.sample(query.asks, 1), generator)
    if label == "complement":
        return _accessory(query, query.kind, generator)
    way = generator.choice(_WAYS)
    if way == "unrelated":
        stranger = generator.choice([each for each in FAMILIES if each is not family])
        if generator.random() < 0.5:
            return _accessory(query, generator.choice(stranger.kinds), generator)
        return _product(query, generator.choice(stranger.kinds), (), generator)
    if way == "accessory":
        return _accessory(query, generator.choice(family.kinds), generator)
    missed = generator.sample(query.asks, generator.randint(1, len(query.asks)))
    return _product(query, query.kind if way == "same" else other_kind, missed, generator)


def _product(query: Query, kind: str, missed: Sequence[Ask], generator: Random) -> Product:
    """Draw a product that satisfies what the query asks, but for some of it; the rest is left to chance."""
    values = _values(kind, generator)
    own_measure = FAMILY_OF[kind] is FAMILY_OF[query.kind]
    for ask in query.asks:
        if ask.field == "size" and not own_measure:
            continue
        fitting = [value for value in _choices(ask.field, kind) if holds(ask, value) == (ask not in missed)]
        values[ask.field] = generator.choice(fitting)
    return Product(kind=kind, **values)


def _accessory(query: Query, fits: str, generator: Random) -> Product:
    """Draw an accessory of a kind; where it is of one brand, often the brand that is asked for."""
    asked = [str(ask.value) for ask in query.asks if ask.field == "brand"]
    brand = generator.choice((*asked, generator.choice(BRANDS))) if generator.random() < _OWN_BRAND else ""
    kind = generator.choice(FAMILY_OF[fits].accessories)
    return Product(kind=kind, fits=fits, fits_brand=brand, **_values(kind, generator))


def _values(kind: str, generator: Random) -> dict[str, Any]:
    values: dict[str, Any] = {field: generator.choice(_choices(field, kind)) for field in _FIELDS}
    return {**values, "words": tuple(generator.sample(NOISE, 2))}


def _choices(field: Field, kind: str) -> Sequence[str | int]:
    return FAMILY_OF[kind].sizes if field == "size" else _CHOICES[field]
