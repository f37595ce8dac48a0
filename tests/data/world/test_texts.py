from __future__ import annotations

from manylens.data.world.draw import draw_queries
from manylens.data.world.facts import Ask, Product, Query
from manylens.data.world.texts import attributes_of, brand_of, query_text, title_of

KETTLE = Product(
    kind="kettle", brand="Vorna", colour="red", material="steel", price=39, size=3, words=("new", "compact")
)
TRIVET = Product(
    kind="trivet", brand="Tarn", colour="red", material="wood", price=12, size=3, fits="kettle", fits_brand="Vorna"
)


def test_a_query_says_all_that_it_asks() -> None:
    asks = (Ask("brand", "is", "Vorna"), Ask("colour", "not", "red"), Ask("material", "is", "steel"))
    assert query_text(Query("kettle", asks)) == "vorna steel kettle not red"
    asks = (Ask("price", "under", 40), Ask("size", "least", 3))
    assert query_text(Query("kettle", asks)) == "kettle under 40 at least 3 litres"


def test_no_two_queries_are_typed_alike() -> None:
    queries = set(draw_queries("texts", 5000))
    texts = {query_text(query) for query in queries}
    assert len(texts) == len(queries)
    assert max(len(text.split()) for text in texts) <= 12


def test_what_the_student_reads_of_a_product() -> None:
    assert title_of(KETTLE) == "New compact kettle"
    assert attributes_of(KETTLE) == {"Colour": "red", "Material": "steel", "Capacity": "3 litres", "Price": "39"}
    assert attributes_of(TRIVET) == {"Fits": "Vorna kettle", "Colour": "red", "Material": "wood", "Price": "12"}


def test_a_hidden_field_is_nowhere() -> None:
    assert brand_of(KETTLE, "brand") == ""
    assert brand_of(KETTLE, "size") == "Vorna"
    assert "Capacity" not in attributes_of(KETTLE, "size")
    assert "Fits" not in attributes_of(TRIVET, "fits")
