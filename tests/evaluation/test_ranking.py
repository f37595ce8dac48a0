import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from manylens.evaluation.predictions import Predictions
from manylens.evaluation.ranking import expected_gain, rank_queries
from manylens.records import ESCI, WANDS, LabelScale

from .build import random_table, shuffled, sure, table, tables


def ranked(predictions: pa.Table, scale: LabelScale = ESCI, cutoff: int = 10) -> tuple[list[float], list[float]]:
    ndcg, reciprocal_rank = rank_queries(Predictions.from_table(predictions, scale), scale, cutoff)
    return ndcg.tolist(), reciprocal_rank.tolist()


def test_expected_gain_by_hand() -> None:
    logits = np.log([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7]])
    assert expected_gain(logits, ESCI) == pytest.approx([0.5 + 0.02 + 0.002, 0.1 + 0.01 + 0.001])


def test_ndcg_uses_the_gains_of_the_scale_by_hand() -> None:
    # The student puts a substitute first, then the exact product, then a complement, then an irrelevant one.
    rows = [
        ("q", "exact", sure("exact", 3.0)),
        ("q", "substitute", sure("exact", 4.0)),
        ("q", "irrelevant", sure("exact", 1.0)),
        ("q", "complement", sure("exact", 2.0)),
    ]
    dcg = 0.1 / math.log2(2) + 1.0 / math.log2(3) + 0.01 / math.log2(4)
    ideal = 1.0 / math.log2(2) + 0.1 / math.log2(3) + 0.01 / math.log2(4)
    assert ranked(table(rows)) == ([pytest.approx(dcg / ideal)], [0.5])


def test_cutoff_applies_to_the_ranking_and_to_the_ideal_by_hand() -> None:
    rows = [
        ("q", "exact", sure("exact", 1.0)),
        ("q", "substitute", sure("exact", 2.0)),
        ("q", "exact", sure("exact", 3.0)),
    ]
    ideal = 1.0 + 1.0 / math.log2(3)
    assert ranked(table(rows), cutoff=2)[0] == [pytest.approx((1.0 + 0.1 / math.log2(3)) / ideal)]


@pytest.mark.parametrize(
    ("label", "ndcg", "reciprocal_rank"), [("exact", 1.0, 1.0), ("complement", 1.0, 0.0), ("irrelevant", 0.0, 0.0)]
)
def test_a_query_with_a_single_product(label: str, ndcg: float, reciprocal_rank: float) -> None:
    assert ranked(table([("q", label, sure("exact"))])) == ([ndcg], [reciprocal_rank])


@pytest.mark.parametrize("cutoff", [1, 3, 10])
def test_agrees_with_scikit_learn(cutoff: int) -> None:
    predictions = Predictions.from_table(random_table(30, 12, seed=1, skill=0.5), ESCI)
    gains = np.asarray(ESCI.gain_vector())[predictions.gold]
    scores = expected_gain(predictions.logits, ESCI)
    by_query = [np.flatnonzero(predictions.query == query) for query in range(predictions.queries)]
    expected = [ndcg_score([gains[rows]], [scores[rows]], k=cutoff) for rows in by_query]
    assert rank_queries(predictions, ESCI, cutoff)[0] == pytest.approx(expected)


def test_other_scales_have_their_own_best_label_and_gains() -> None:
    rows = [("q", "partial", [4.0, 0.0, 0.0]), ("q", "exact", [3.0, 0.0, 0.0])]
    dcg, ideal = 0.5 + 1.0 / math.log2(3), 1.0 + 0.5 / math.log2(3)
    assert ranked(table(rows), WANDS) == ([pytest.approx(dcg / ideal)], [0.5])


@settings(deadline=None)
@given(tables(), st.integers(0, 10))
def test_the_order_of_rows_decides_nothing_even_in_ties(predictions: pa.Table, seed: int) -> None:
    assert ranked(shuffled(predictions, seed)) == ranked(predictions)


def test_ties_do_not_follow_the_order_of_pair_ids() -> None:
    # A student that says the same of all products earns nothing from a file that lists the best ones first, or last.
    names = ["exact"] * 50 + ["irrelevant"] * 50
    for labels in (names, names[::-1]):
        rows = [(f"q{query:02}", label, [0.0] * 4) for query in range(20) for label in labels]
        assert np.mean(ranked(table(rows))[0]) == pytest.approx(0.5, abs=0.12)


@settings(deadline=None)
@given(tables())
def test_bounds(predictions: pa.Table) -> None:
    ndcg, reciprocal_rank = ranked(predictions)
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in ndcg)
    assert all(value == 0.0 or 1 / 25 <= value <= 1.0 for value in reciprocal_rank)
