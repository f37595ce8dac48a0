import numpy as np
import pytest

from manylens.evaluation.metrics import class_reports, confusion_matrix, majority_accuracy

GOLD = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 0])
NAMES = ("exact", "substitute", "complement", "irrelevant")


def test_class_reports_by_hand() -> None:
    exact, substitute, complement, irrelevant = class_reports(GOLD, PREDICTED, NAMES)
    # exact: given to 4, right in 2, has 3. substitute: given to 2, right in 1, has 2.
    assert (exact.precision, exact.recall, exact.support) == (0.5, pytest.approx(2 / 3), 3)
    assert exact.f1 == pytest.approx(4 / 7)
    assert (substitute.precision, substitute.recall, substitute.f1) == (0.5, 0.5, 0.5)
    # complement: never given; irrelevant: neither given nor had. Both count 0, not "undefined".
    assert (complement.precision, complement.recall, complement.f1, complement.support) == (0.0, 0.0, 0.0, 1)
    assert (irrelevant.label, irrelevant.f1, irrelevant.support) == ("irrelevant", 0.0, 0)


def test_confusion_has_gold_in_rows() -> None:
    assert confusion_matrix(GOLD, PREDICTED, 4) == ((2, 1, 0, 0), (1, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 0))


def test_majority_accuracy() -> None:
    assert majority_accuracy(GOLD) == 0.5
