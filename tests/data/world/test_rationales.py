from __future__ import annotations

from random import Random

import pytest

from manylens.data.world.draw import draw_label, draw_product, draw_queries
from manylens.data.world.facts import Ask, Product, Query
from manylens.data.world.rationales import ASIDES, CONCLUSIONS, LOOKS_AT, rationale
from manylens.data.world.texts import title_of
from manylens.records import ESCI
from manylens.teacher import PERSPECTIVES

QUERY = Query("kettle", (Ask("brand", "is", "Vorna"), Ask("colour", "not", "red"), Ask("size", "least", 3)))
RED = Product(kind="kettle", brand="Kelto", colour="red", material="steel", price=39, size=4, words=("new", "eco"))


def test_it_speaks_for_the_packaged_perspectives() -> None:
    assert tuple(LOOKS_AT) == tuple(PERSPECTIVES)


@pytest.mark.parametrize(
    ("perspective", "comparisons"),
    [
        (
            "user_intent",
            "The shopper wants a kettle, and this is one. They want anything but red, and red is just what they would "
            "get. ",
        ),
        (
            "structured_analysis",
            "Type: kettle asked, kettle offered, the same. Brand: Vorna asked, Kelto offered, not satisfied. Colour: "
            "anything but red asked, red offered, which is ruled out. Capacity: at least 3 litres asked, 4 litres "
            "offered, satisfied. ",
        ),
        (
            "business_rules",
            "The product belongs to the category searched for, kettle. The rule on Brand is broken: Vorna, but it is "
            "Kelto. The rule on Capacity is met: at least 3 litres, and it is 4 litres. ",
        ),
    ],
)
def test_each_perspective_states_what_it_looks_at_and_concludes_from_all(perspective: str, comparisons: str) -> None:
    text = rationale(QUERY, RED, perspective, 1.0, Random(0))
    assert text in {comparisons + conclusion for conclusion in CONCLUSIONS["irrelevant"]}


def drawn(count: int) -> list[tuple[Query, Product]]:
    generator = Random(5)
    queries = draw_queries("rationales", count)
    return [(query, draw_product(query, draw_label(generator), generator)) for query in queries]


@pytest.mark.parametrize("perspective", LOOKS_AT)
def test_an_uninformative_rationale_states_nothing(perspective: str) -> None:
    for number, (query, product) in enumerate(drawn(100)):
        asides = {aside.format(title=title_of(product)) for aside in ASIDES}
        text = rationale(query, product, perspective, 0.0, Random(number))
        full = rationale(query, product, perspective, 1.0, Random(number))
        sentences = {f"{sentence.removesuffix('.')}." for sentence in text.split(". ")}
        assert sentences <= asides
        assert len(sentences) == full.count(". ") + 1


def test_what_is_stated_at_a_smaller_chance_is_stated_at_a_larger_one() -> None:
    stated = []
    for chance in (0.25, 0.5, 0.75):
        found = set()
        for number, (query, product) in enumerate(drawn(200)):
            full = rationale(query, product, "structured_analysis", 1.0, Random(number)).split(". ")
            part = rationale(query, product, "structured_analysis", chance, Random(number)).split(". ")
            found |= {(number, place) for place, (a, b) in enumerate(zip(full, part, strict=True)) if a == b}
        stated.append(found)
    assert stated[0] < stated[1] < stated[2]
    whole = sum(len(rationale(*each, "structured_analysis", 1.0, Random(0)).split(". ")) for each in drawn(200))
    assert [len(found) / whole for found in stated] == pytest.approx([0.25, 0.5, 0.75], abs=0.06)


def test_no_rationale_names_the_label() -> None:
    for number, (query, product) in enumerate(drawn(200)):
        for perspective in LOOKS_AT:
            words = rationale(query, product, perspective, 1.0, Random(number)).lower().replace(".", "").split()
            assert not set(words) & set(ESCI.names)
