import numpy as np
import pytest
from scipy.stats import bootstrap

from manylens.errors import DataError
from manylens.evaluation.resampling import estimate, paired_difference, query_index, sum_by_query


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def test_queries_are_numbered_and_summed_in_order_of_appearance() -> None:
    index = query_index(["b", "a", "b"])
    assert index.tolist() == [0, 1, 0]
    assert sum_by_query(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), index).tolist() == [[6.0, 8.0], [3.0, 4.0]]


def test_the_interval_is_that_of_scipy() -> None:
    hits = np.random.default_rng(0).integers(0, 6, 40).astype(float)
    found = estimate(np.column_stack([hits, np.full(40, 5.0)]), ratio, samples=9999, confidence=0.9, seed=1)
    assert found.value == pytest.approx(hits.mean() / 5)
    expected = bootstrap((hits / 5,), np.mean, method="percentile", confidence_level=0.9, rng=2).confidence_interval
    assert found.interval == pytest.approx(tuple(expected), abs=0.005)


def test_a_difference_is_paired_by_the_queries() -> None:
    easy = np.random.default_rng(0).integers(0, 2, (50, 1)).astype(float)
    ones = np.ones((50, 1))
    low, high = (
        estimate(np.hstack([easy + plus, ones]), ratio, samples=500, confidence=0.95, seed=3) for plus in (0.0, 0.1)
    )
    difference = paired_difference(high, low)
    # The same plus for every query: the difference is sure, although each figure for itself is not.
    assert difference.difference == pytest.approx(0.1)
    assert difference.interval == pytest.approx((0.1, 0.1))
    assert difference.p_value == pytest.approx(2 / 501)
    assert low.interval[1] - low.interval[0] > 0.2


def test_estimates_of_other_samples_are_not_compared() -> None:
    sums = np.ones((3, 2))
    one, other = (estimate(sums, ratio, samples=samples, confidence=0.95, seed=3) for samples in (100, 200))
    with pytest.raises(DataError, match="got 100 and 200 samples"):
        paired_difference(one, other)
