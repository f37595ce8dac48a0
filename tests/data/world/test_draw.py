from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.world.draw import LABEL_SHARES, draw_label, draw_product, draw_queries
from manylens.data.world.facts import Query, compare, label_of


@given(st.integers(0, 10**6), st.sampled_from(sorted(LABEL_SHARES)))
def test_a_product_deserves_the_label_that_it_is_drawn_for(seed: int, label: str) -> None:
    (query,) = draw_queries(f"{seed}", 1)
    assert label_of(compare(query, draw_product(query, label, Random(seed)))) == label


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 30))
def test_fewer_queries_are_the_first_of_more(seed: int, few: int, more: int) -> None:
    drawn = list(draw_queries(f"{seed}", few + more))
    assert list(draw_queries(f"{seed}", few)) == drawn[:few]


def test_a_query_that_is_taken_does_not_come_again() -> None:
    taken: set[Query] = set()
    for query in draw_queries("a", 3000, taken):
        assert query not in taken
        taken.add(query)
    assert not taken & set(draw_queries("a", 3000, taken))


def test_a_query_asks_one_thing_of_a_field() -> None:
    queries = list(draw_queries("fields", 3000))
    assert all(len({ask.field for ask in query.asks}) == len(query.asks) for query in queries)
    assert {len(query.asks) for query in queries} == {1, 2, 3}
    assert {(ask.field, ask.relation) for query in queries for ask in query.asks} == {
        ("brand", "is"),
        ("colour", "is"),
        ("colour", "not"),
        ("material", "is"),
        ("material", "not"),
        ("price", "under"),
        ("size", "least"),
    }


def test_labels_come_by_their_shares() -> None:
    generator = Random(0)
    counts = Counter(draw_label(generator) for _ in range(20_000))
    assert {label: count / 20_000 for label, count in counts.items()} == pytest.approx(LABEL_SHARES, abs=0.015)
    assert "exact" not in {draw_label(generator, without="exact") for _ in range(200)}


def test_every_way_to_be_irrelevant_is_drawn() -> None:
    ways: Counter[tuple[str, str]] = Counter()
    for number, query in enumerate(draw_queries("ways", 1000)):
        kind, *others = (each.finding for each in compare(query, draw_product(query, "irrelevant", Random(number))))
        ways[kind, "excluded" if "excluded" in others else f"{others.count('misses')} missed"] += 1
    assert set(ways) >= {
        ("unrelated", "0 missed"),
        ("accessory", "1 missed"),
        ("same", "excluded"),
        ("same", "2 missed"),
        ("same", "3 missed"),
        ("alternative", "1 missed"),
    }
    assert min(ways.values()) >= 5
