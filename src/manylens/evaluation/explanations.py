"""Rationales as explanations: do the teacher's rationales nearest to a latent argue as the student decides?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.errors import DataError
from manylens.evaluation.predictions import FloatArray, IntArray
from manylens.evaluation.resampling import Estimate, estimate, query_index, sum_by_query

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class AgreementReport:
    """How the labels of the retrieved rationales agree with what they are to explain.

    Attributes:
        k: Rationales retrieved for each pair.
        with_prediction: Mean share of the k labels that equal the student's prediction.
        with_gold: Mean share that equal the gold label.
        chance_prediction: The share that rationales drawn at random would have with the prediction.
        chance_gold: The same with the gold label.
    """

    k: int
    with_prediction: Estimate
    with_gold: Estimate
    chance_prediction: float
    chance_gold: float


def nearest_rationales(
    vectors_unseen: NDArray[np.floating],
    vectors_train: NDArray[np.floating],
    queries_unseen: Sequence[Hashable],
    queries_train: Sequence[Hashable],
    k: int,
) -> tuple[IntArray, FloatArray]:
    """Find the training rationales nearest to each vector, never one of the same query.

    Args:
        vectors_unseen: (unseen, dim), such as the latents of unseen pairs.
        vectors_train: (train, dim) in the same space, such as the target vectors of training rationales.
        queries_unseen: The query of each unseen pair.
        queries_train: The query of each rationale's pair.
        k: How many.

    Returns:
        Rows of `vectors_train`, the nearest first, and their cosines, each of shape (unseen, k).

    Raises:
        DataError: If lengths or dimensions do not fit, or other queries have fewer than k rationales.
    """
    if len(vectors_unseen) != len(queries_unseen) or len(vectors_train) != len(queries_train):
        raise DataError(
            f"expected one query a vector, got {len(queries_unseen)} for {len(vectors_unseen)} unseen vectors "
            f"and {len(queries_train)} for {len(vectors_train)} of training"
        )
    if vectors_unseen.shape[1] != vectors_train.shape[1]:
        raise DataError(
            f"cosines need vectors of one space, got dimensions {vectors_unseen.shape[1]} and {vectors_train.shape[1]}"
        )
    index = query_index([*queries_train, *queries_unseen])
    of_train, of_unseen = index[: len(queries_train)], index[len(queries_train) :]
    others = len(of_train) - np.bincount(of_train, minlength=int(index.max()) + 1)[of_unseen]
    if k < 1 or others.min() < k:
        raise DataError(f"k must be between 1 and the {others.min()} rationales of other queries, got {k}")
    train = _unit(vectors_train)
    rows, cosines = [], []
    for start in range(0, len(vectors_unseen), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        similarity = _unit(vectors_unseen[part]) @ train.T
        similarity[of_unseen[part, None] == of_train] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        rows.append(order)
        cosines.append(np.take_along_axis(similarity, order, axis=1))
    return np.concatenate(rows), np.concatenate(cosines)


def neighbour_agreement(
    vectors_unseen: NDArray[np.floating],
    vectors_train: NDArray[np.floating],
    labels_train: IntArray,
    predicted: IntArray,
    gold: IntArray,
    k: int,
    *,
    queries_unseen: Sequence[Hashable],
    queries_train: Sequence[Hashable],
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 13,
) -> AgreementReport:
    """Measure whether retrieved rationales help: whether their labels agree with prediction and gold label.

    Call it once for each way to retrieve (latents against target vectors, [CLS] against [CLS], text vectors against
    text vectors) with the same pairs and seed; `paired_difference` then compares the estimates.

    Args:
        vectors_unseen: (unseen, dim) vectors of unseen pairs.
        vectors_train: (train, dim) vectors of training rationales in the same space.
        labels_train: (train,) the gold label of each rationale's pair, or the label that the rationale argues for.
        predicted: (unseen,) the student's predictions.
        gold: (unseen,) gold labels.
        k: Rationales retrieved for each pair.
        queries_unseen: The query of each unseen pair; the bootstrap resamples them.
        queries_train: The query of each rationale's pair.
        samples: Resamples of the queries.
        confidence: Mass of the intervals.
        seed: Seed of the resamples.

    Raises:
        DataError: As `nearest_rationales`.
    """
    rows, _ = nearest_rationales(vectors_unseen, vectors_train, queries_unseen, queries_train, k)
    index = query_index(queries_unseen)
    frequency = np.bincount(labels_train, minlength=int(max(predicted.max(), gold.max())) + 1) / len(labels_train)

    def agreement(wanted: IntArray) -> Estimate:
        shares = (labels_train[rows] == wanted[:, None]).mean(axis=1)
        sums = sum_by_query(np.column_stack([shares, np.ones(len(shares))]), index)
        return estimate(sums, _ratio, samples=samples, confidence=confidence, seed=seed)

    return AgreementReport(
        k=k,
        with_prediction=agreement(predicted),
        with_gold=agreement(gold),
        chance_prediction=float(frequency[predicted].mean()),
        chance_gold=float(frequency[gold].mean()),
    )


def _unit(vectors: NDArray[np.floating]) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: FloatArray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _ratio(sums: FloatArray) -> FloatArray:
    ratio: FloatArray = sums[..., 0] / sums[..., 1]
    return ratio
