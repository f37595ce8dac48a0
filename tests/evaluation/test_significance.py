import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from manylens.evaluation.predictions import FloatArray, Predictions
from manylens.evaluation.significance import (
    METRICS,
    headline,
    holm,
    percentile_interval,
    query_sums,
    resample,
    resample_seeds,
    two_sided_p,
)
from manylens.records import ESCI

from .build import random_table, sure, table

CLASSES = range(len(ESCI.names))


def sums(predictions: Predictions) -> FloatArray:
    return query_sums(predictions, ESCI, 10)


def test_headline_agrees_with_scikit_learn() -> None:
    predictions = Predictions.from_table(random_table(12, 9, seed=1, skill=0.8), ESCI)
    figures = dict(zip(METRICS, headline(sums(predictions).sum(axis=0)), strict=True))
    assert figures["accuracy"] == pytest.approx(accuracy_score(predictions.gold, predictions.predicted))
    assert figures["macro_f1"] == pytest.approx(f1_score(predictions.gold, predictions.predicted, average="macro"))


def test_headline_by_hand_where_classes_lack_support() -> None:
    rows = [("q1", "exact", sure("exact")), ("q1", "irrelevant", sure("exact", 6.0)), ("q2", "exact", sure("exact"))]
    accuracy, macro_f1, ndcg, mrr = headline(sums(Predictions.from_table(table(rows), ESCI)).sum(axis=0))
    # exact: 2 right, 3 given, 2 had: F1 = 4/5; the other three classes count 0.
    assert (accuracy, macro_f1) == (pytest.approx(2 / 3), pytest.approx(0.2))
    # q1 has its exact product on the second rank, q2 on the first.
    assert (ndcg, mrr) == (pytest.approx((1.0 / np.log2(3) + 1.0) / 2), 0.75)


def test_a_resample_is_what_scikit_learn_says_of_the_repeated_rows() -> None:
    predictions = Predictions.from_table(random_table(8, 7, seed=2, skill=0.5), ESCI)
    figures = resample(sums(predictions)[None], samples=30, seed=5)[0]
    draws = np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), size=30)
    for weights, (accuracy, macro_f1, _, _) in zip(draws, figures, strict=True):
        rows = np.repeat(np.arange(len(predictions)), weights[predictions.query])
        gold, predicted = predictions.gold[rows], predictions.predicted[rows]
        assert accuracy == pytest.approx(accuracy_score(gold, predicted))
        assert macro_f1 == pytest.approx(f1_score(gold, predicted, labels=CLASSES, average="macro", zero_division=0))


def test_two_queries_by_hand() -> None:
    # q1: both pairs right; q2: one of four. Draws (2,0), (1,1), (0,2) have probabilities 1/4, 1/2, 1/4.
    rows = (
        [("q1", "exact", sure("exact"))] * 2
        + [("q2", "exact", sure("exact"))]
        + [("q2", "exact", sure("irrelevant"))] * 3
    )
    accuracy = resample(sums(Predictions.from_table(table(rows), ESCI))[None], samples=4000, seed=1)[0, :, 0]
    values, counts = np.unique(accuracy.round(9), return_counts=True)
    assert values.tolist() == [0.25, 0.5, 1.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_the_interval_agrees_with_scipy() -> None:
    statistics = np.stack(
        [sums(Predictions.from_table(random_table(60, 10, seed, skill), ESCI)) for seed, skill in ((1, 0.4), (2, 0.8))]
    )
    baseline, treatment = resample(statistics, samples=4000, seed=3)[..., METRICS.index("ndcg")]
    per_query = statistics[1, :, -3] - statistics[0, :, -3]
    expected = stats.bootstrap(
        (per_query,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert percentile_interval(treatment - baseline, 0.95) == pytest.approx(tuple(expected), abs=0.004)


def test_draws_do_not_depend_on_how_many_are_made_at_once() -> None:
    statistics = sums(Predictions.from_table(random_table(5, 4, 1, 0.5), ESCI))[None]
    assert resample(statistics, 250, seed=1)[:, :120].tolist() == resample(statistics, 120, seed=1).tolist()


def test_percentile_interval_by_hand() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.1] * 9, 0.2),  # none of nine at or below 0: 2 * (0 + 1) / (9 + 1)
        ([-0.1] * 9, 0.2),
        ([0.1] * 8 + [-0.1], 0.4),
        ([0.0] * 9, 1.0),
    ],
)
def test_p_value_by_hand(differences: list[float], p: float) -> None:
    assert two_sided_p(np.array(differences)) == pytest.approx(p)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.5: no adjusted value below an earlier one.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_holm_lies_between_the_p_value_and_bonferronis(p_values: list[float]) -> None:
    for p_value, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p_value <= adjusted <= min(1.0, len(p_values) * p_value)


def test_weights_of_seeds_are_those_of_a_bootstrap() -> None:
    weights = resample_seeds(5, 4000, seed=1)
    assert weights.shape == (5, 4000) and weights.sum(axis=0) == pytest.approx(np.ones(4000))
    values = np.array([0.1, 0.4, 0.2, 0.9, 0.5])
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert percentile_interval(values @ weights, 0.95) == pytest.approx(tuple(expected), abs=0.02)
    assert resample_seeds(1, 10, seed=1).tolist() == [[1.0] * 10]
