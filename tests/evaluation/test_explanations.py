import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from manylens.errors import DataError
from manylens.evaluation import explanations
from manylens.evaluation.explanations import nearest_rationales, neighbour_agreement
from manylens.evaluation.resampling import paired_difference

TRAIN = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [-1.0, 0.0]])
LABELS = np.array([0, 1, 2, 1])
OF_TRAIN = ["a", "b", "b", "c"]


def test_the_nearest_are_those_of_other_queries_by_cosine() -> None:
    rows, cosines = nearest_rationales(np.array([[5.0, 0.0], [0.1, 1.0]]), TRAIN, ["x", "b"], OF_TRAIN, 2)
    assert rows.tolist() == [[0, 1], [0, 3]]  # Both rationales of "b" are forbidden to the second.
    np.testing.assert_allclose(cosines[0], [1.0, 0.9 / np.hypot(0.9, 0.1)])


def test_large_sets_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "_ROWS_AT_ONCE", 7)
    random = np.random.default_rng(0)
    unseen, train = random.normal(size=(20, 6)), random.normal(size=(50, 6))
    rows, cosines = nearest_rationales(unseen, train, range(20), range(100, 150), 3)
    distances, expected = NearestNeighbors(n_neighbors=3, metric="cosine").fit(train).kneighbors(unseen)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, 1.0 - distances, atol=1e-12)


def test_agreement_is_worked_out_by_hand() -> None:
    unseen, predicted, gold = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 2]), np.array([1, 2])
    report = neighbour_agreement(
        unseen, TRAIN, LABELS, predicted, gold, 2, queries_unseen=["x", "y"], queries_train=OF_TRAIN
    )
    # Retrieved: labels 0 and 1 for the first, 2 and 1 for the second.
    assert report.with_prediction.value == pytest.approx(0.5)
    assert report.with_gold.value == pytest.approx(0.5)
    assert report.chance_prediction == pytest.approx((0.25 + 0.25) / 2)
    assert report.chance_gold == pytest.approx((0.5 + 0.25) / 2)
    assert report.k == 2


def test_a_space_that_holds_the_label_beats_one_that_does_not() -> None:
    random = np.random.default_rng(0)
    gold, labels = random.integers(0, 4, 200), random.integers(0, 4, 300)
    good, bad = (
        neighbour_agreement(
            strength * np.eye(4)[gold] + random.normal(size=(200, 4)),
            strength * np.eye(4)[labels] + random.normal(size=(300, 4)),
            labels,
            gold,
            gold,
            5,
            queries_unseen=[index // 5 for index in range(200)],
            queries_train=[f"t{index // 5}" for index in range(300)],
        )
        for strength in (6.0, 0.0)
    )
    assert good.with_gold.value > 0.9
    assert bad.with_gold.interval[0] < bad.chance_gold < bad.with_gold.interval[1]
    assert paired_difference(good.with_gold, bad.with_gold).interval[0] > 0.5


@pytest.mark.parametrize(
    ("dim", "queries", "k", "message"),
    [
        (3, ["x"], 1, "dimensions 3 and 2"),
        (2, ["x", "y"], 1, "got 2 for 1 unseen vectors and 4 for 4 of training"),
        (2, ["b"], 3, "k must be between 1 and the 2 rationales of other queries, got 3"),
        (2, ["x"], 0, "k must be between 1 and the 4 rationales of other queries, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(dim: int, queries: list[str], k: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        nearest_rationales(np.ones((1, dim)), TRAIN, queries, OF_TRAIN, k)
