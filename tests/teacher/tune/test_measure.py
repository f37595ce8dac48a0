from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.records import ESCI
from manylens.teacher.tune.measure import average, sample_pairs, score
from tune.build import make_pairs


def test_figures_by_hand() -> None:
    gold = ["exact", "exact", "exact", "substitute", "irrelevant"]
    predicted = ["exact", "exact", "substitute", "substitute", None]
    found = score(gold, predicted, ESCI)
    assert (found.pairs, found.accuracy, found.unparsed) == (5, 3 / 5, 1 / 5)
    assert found.recall == {"exact": pytest.approx(2 / 3), "substitute": 1.0, "complement": None, "irrelevant": 0.0}
    # F1: exact 2 * 1 * 2/3 / (5/3) = 0.8, substitute 2 * 0.5 * 1 / 1.5 = 2/3, the others 0.
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 4)


def test_an_ensemble_averages_labels() -> None:
    members = [
        ["exact", "substitute", None, "complement", None],
        ["exact", "exact", "irrelevant", "exact", None],
        ["irrelevant", "exact", None, "irrelevant", None],
    ]
    # Where all differ, the first teacher's label stands; where none answered, there is none.
    assert average(members) == ["exact", "exact", "irrelevant", "complement", None]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 40), st.integers(0, 5))
def test_samples_are_whole_queries(queries: list[int], most: int, seed: int) -> None:
    pairs = [replace(make_pairs(1)[0], pair_id=str(at), query_id=f"q{query}") for at, query in enumerate(queries)]
    taken = sample_pairs(pairs, most, seed)
    assert taken == [pair for pair in pairs if pair in taken]
    sizes, got = Counter(queries), Counter(pair.query_id for pair in taken)
    assert all(got[f"q{query}"] in (0, size) for query, size in sizes.items())
    assert len(taken) == len(pairs) or most <= len(taken) < most + max(sizes.values(), default=0)
    assert taken == sample_pairs(pairs, most, seed)


def test_pairs_without_a_gold_label_are_not_measured() -> None:
    pairs = [*make_pairs(2), replace(make_pairs(1)[0], pair_id="x", label=None)]
    assert sample_pairs(pairs, None, 1) == pairs[:2]
    assert sample_pairs(pairs, 100, 1) == pairs[:2]


def test_the_seed_chooses_the_queries() -> None:
    pairs = make_pairs(40)
    chosen = {tuple(pair.pair_id for pair in sample_pairs(pairs, 2, seed)) for seed in range(30)}
    assert len(chosen) > 5
