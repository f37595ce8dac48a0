"""Classification figures: precision, recall and F1 of each class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manylens.evaluation._optional import optional
from manylens.evaluation.predictions import IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassReport:
    """How one class is recognised.

    Attributes:
        label: The label's name.
        precision: Share of the pairs given this label that have it; 0 where none was given it.
        recall: Share of the pairs that have this label that were given it; 0 where none has it.
        f1: Harmonic mean of the two; 0 where both are 0.
        support: Number of pairs that have this label.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


def class_reports(gold: IntArray, predicted: IntArray, names: Sequence[str]) -> tuple[ClassReport, ...]:
    """Describe each class of a scale, those without support too.

    Args:
        gold: Class indices, shape (pairs,).
        predicted: Class indices, shape (pairs,).
        names: The labels, in the order of the indices.

    Returns:
        One report a label, in the order of `names`. Their mean F1 is the macro-F1.
    """
    precision, recall, f1, support = optional("sklearn.metrics").precision_recall_fscore_support(
        gold, predicted, labels=range(len(names)), average=None, zero_division=0.0
    )
    return tuple(
        ClassReport(
            label=name,
            precision=float(precision[index]),
            recall=float(recall[index]),
            f1=float(f1[index]),
            support=int(support[index]),
        )
        for index, name in enumerate(names)
    )


def confusion_matrix(gold: IntArray, predicted: IntArray, classes: int) -> tuple[tuple[int, ...], ...]:
    """Count pairs by gold and predicted label.

    Args:
        gold: Class indices, shape (pairs,).
        predicted: Class indices, shape (pairs,).
        classes: Number of classes of the scale.

    Returns:
        Counts, shape (classes, classes); rows are gold labels, columns predicted ones.
    """
    matrix = optional("sklearn.metrics").confusion_matrix(gold, predicted, labels=range(classes))
    return tuple(tuple(int(count) for count in row) for row in matrix)


def majority_accuracy(gold: IntArray) -> float:
    """Return the accuracy of always giving the most frequent gold label.

    Args:
        gold: Class indices, shape (pairs,), at least one.

    Returns:
        The share of the most frequent class, in (0, 1].
    """
    return float(np.bincount(gold).max() / len(gold))
