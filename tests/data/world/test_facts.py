from __future__ import annotations

import pytest

from manylens.data.world.facts import Ask, Comparison, Product, Query, compare, holds, label_of

#: "Vorna red kettle not plastic under 40 at least 3 litres", though a drawn query asks for three things at most.
KETTLE = Query(
    "kettle",
    (
        Ask("brand", "is", "Vorna"),
        Ask("colour", "is", "red"),
        Ask("material", "not", "plastic"),
        Ask("price", "under", 40),
        Ask("size", "least", 3),
    ),
)


def product(kind: str = "kettle", **fields: object) -> Product:
    values = {"brand": "Vorna", "colour": "red", "material": "steel", "price": 39, "size": 3, **fields}
    return Product(kind=kind, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offered", "findings", "label"),
    [
        (product(), "same holds holds holds holds holds", "exact"),
        (product(price=40), "same holds holds holds misses holds", "substitute"),
        (product(size=2), "same holds holds holds holds misses", "substitute"),
        (product(brand="Kelto"), "same misses holds holds holds holds", "substitute"),
        (product("teapot"), "alternative holds holds holds holds holds", "substitute"),
        (product(brand="Kelto", colour="blue"), "same misses misses holds holds holds", "irrelevant"),
        (product(material="plastic"), "same holds holds excluded holds holds", "irrelevant"),
        (product("teapot", colour="blue"), "alternative holds misses holds holds holds", "irrelevant"),
        (product("trivet", colour="blue", fits="kettle"), "accessory holds", "complement"),
        (product("trivet", fits="kettle", fits_brand="Vorna", material="plastic"), "accessory holds", "complement"),
        (product("trivet", fits="kettle", fits_brand="Kelto"), "accessory misses", "irrelevant"),
        (product("trivet", fits="teapot"), "accessory misses", "irrelevant"),
        (product("tent"), "unrelated", "irrelevant"),
        (product("groundsheet", fits="tent"), "unrelated", "irrelevant"),
    ],
)
def test_the_label_follows_from_the_comparisons(offered: Product, findings: str, label: str) -> None:
    comparisons = compare(KETTLE, offered)
    assert " ".join(comparison.finding for comparison in comparisons) == findings
    assert label_of(comparisons) == label


def test_an_accessory_of_one_brand_fits_where_no_brand_is_asked_for() -> None:
    trivet = product("trivet", fits="kettle", fits_brand="Kelto")
    assert compare(Query("kettle", (Ask("colour", "is", "red"),)), trivet)[1:] == (
        Comparison("fits", "is", "kettle", "Kelto kettle", "holds"),
    )
    assert compare(Query("kettle", (Ask("brand", "is", "Vorna"),)), trivet)[1:] == (
        Comparison("fits", "is", "Vorna kettle", "Kelto kettle", "misses"),
    )


@pytest.mark.parametrize(
    ("ask", "yes", "no"),
    [
        (Ask("colour", "is", "red"), "red", "blue"),
        (Ask("colour", "not", "red"), "blue", "red"),
        (Ask("price", "under", 40), 39, 40),
        (Ask("size", "least", 3), 3, 2),
    ],
)
def test_asks(ask: Ask, yes: str | int, no: str | int) -> None:
    assert holds(ask, yes)
    assert not holds(ask, no)
