"""What a vector knows: linear probes for the words of a rationale that stand in neither query nor product.

A probe is a ridge regression on the 0/1 indicator of a word, which has the direction of a linear discriminant
(Hastie, Tibshirani and Friedman, *The Elements of Statistical Learning*, 2009, section 4.3). It is closed-form: one
singular value decomposition serves all words and all penalties, and gives the leave-one-out predictions
(ibid., equation 7.64) from which penalty and threshold are chosen.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.errors import DataError
from manylens.evaluation._optional import optional
from manylens.evaluation.keywords import BoolArray
from manylens.evaluation.predictions import FloatArray
from manylens.evaluation.resampling import Estimate, estimate, query_index, sum_by_query

#: Penalties, in units of the training pairs: with standardised vectors the mean squared singular value is one unit.
_PENALTIES = 10.0 ** np.arange(-3.0, 3.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """How well the words are predicted.

    Attributes:
        macro_f1: Mean over the words of the F1 of "the word is there", with its bootstrap over queries.
        f1: (words,) the F1 of each.
        prior: The macro-F1 of saying "it is there" of every pair: what a vector that knows nothing gets. Saying
            "it is not", the majority's answer, gets 0.
        dim: Dimension of what the probes read.
    """

    macro_f1: Estimate
    f1: FloatArray
    prior: float
    dim: int


def probe(
    vectors: NDArray[np.floating],
    keywords: BoolArray,
    groups: Sequence[Hashable],
    *,
    components: int | None = None,
    folds: int = 5,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 13,
) -> ProbeResult:
    """Predict every word from the vectors, cross-validated by query.

    Vectors are standardised on the training folds. Each word has its own penalty, of the least squared leave-one-out
    error, and its own threshold, of the best leave-one-out F1, both on the training folds alone. Pass the same pairs
    and seed for each kind of vector; `paired_difference` then compares them.

    Args:
        vectors: (pairs, dim), such as latents or [CLS] states.
        keywords: (pairs, words) what to predict, as `Keywords.matrix`.
        groups: The query of each pair; no query is in training and test folds.
        components: Read this many principal components of the training folds instead of the vectors, so that vectors
            of different dimension can be compared; ``None`` reads all.
        folds: Number of folds.
        samples: Resamples of the queries.
        confidence: Mass of the interval.
        seed: Seed of the resamples.

    Raises:
        DataError: If the lengths differ, or there are fewer queries than folds.
        MissingExtraError: If scikit-learn is not installed.
    """
    index = query_index(groups)
    if not len(vectors) == len(keywords) == len(index):
        raise DataError(
            "expected as many vectors as rows of keywords and groups, "
            f"got {len(vectors)}, {len(keywords)} and {len(index)}"
        )
    if len(np.unique(index)) < folds:
        raise DataError(f"expected at least {folds} queries, one a fold, got {len(np.unique(index))}; lower folds")
    wanted, found = keywords.astype(np.float64), np.zeros(keywords.shape, dtype=bool)
    for train, test in optional("sklearn.model_selection").GroupKFold(folds).split(vectors, groups=index):
        reader = _Reader(vectors[train].astype(np.float64), components)
        found[test] = _fit_and_predict(reader, wanted[train], vectors[test].astype(np.float64))

    counts = np.stack([keywords & found, keywords, found], axis=1).astype(np.float64)
    sums = sum_by_query(counts, index)
    always = keywords.mean(axis=0)
    return ProbeResult(
        macro_f1=estimate(sums.reshape(len(sums), -1), _macro_f1, samples=samples, confidence=confidence, seed=seed),
        f1=_f1(sums.sum(axis=0)),
        prior=float((2.0 * always / (1.0 + always)).mean()),
        dim=vectors.shape[1] if components is None else components,
    )


class _Reader:
    """Standardised training vectors in their principal axes."""

    def __init__(self, vectors: FloatArray, components: int | None) -> None:
        self.mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
        self.scale = np.where(scale > 0.0, scale, 1.0)
        left, values, axes = np.linalg.svd((vectors - self.mean) / self.scale, full_matrices=False)
        kept = values > values[0] * 1e-8
        if components is not None:
            kept[components:] = False
        self.left, self.values, self.axes = left[:, kept], values[kept], axes[kept]

    def read(self, vectors: FloatArray) -> FloatArray:
        """Return coordinates in units of the training pairs' left singular vectors, (pairs, kept)."""
        coordinates: FloatArray = ((vectors - self.mean) / self.scale) @ self.axes.T / self.values
        return coordinates


def _fit_and_predict(reader: _Reader, wanted: FloatArray, vectors: FloatArray) -> BoolArray:
    unseen = reader.read(vectors)
    least = np.full(wanted.shape[1], np.inf)
    left_out, predicted = np.zeros_like(wanted), np.zeros((len(vectors), wanted.shape[1]))
    for penalty in _PENALTIES * len(wanted):
        without, at_unseen = _ridge(reader, wanted, penalty, unseen)
        error = np.square(wanted - without).mean(axis=0)
        better = error < least
        least[better] = error[better]
        left_out[:, better], predicted[:, better] = without[:, better], at_unseen[:, better]
    found: BoolArray = predicted >= _thresholds(left_out, wanted)
    return found


def _ridge(reader: _Reader, wanted: FloatArray, penalty: float, unseen: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the leave-one-out predictions of the training pairs, and the predictions of unseen ones."""
    shrinkage = reader.values**2 / (reader.values**2 + penalty)
    mean = wanted.mean(axis=0)
    weights = shrinkage[:, None] * (reader.left.T @ (wanted - mean))
    fitted = mean + reader.left @ weights
    leverage = 1.0 / len(wanted) + np.square(reader.left) @ shrinkage
    return wanted - (wanted - fitted) / (1.0 - leverage[:, None]), mean + unseen @ weights


def _thresholds(scores: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return the threshold of each word that gives the best F1, halfway to the next lower score."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(wanted, order, axis=0), axis=0)
    f1 = 2.0 * hits / (np.arange(1, len(scores) + 1)[:, None] + wanted.sum(axis=0))
    best = f1.argmax(axis=0)
    following = np.minimum(best + 1, len(scores) - 1)
    words = np.arange(scores.shape[1])
    middle: FloatArray = 0.5 * (ranked[best, words] + ranked[following, words])
    return np.where(wanted.any(axis=0), middle, np.inf)  # A word that no training pair has is nowhere.


def _f1(sums: FloatArray) -> FloatArray:
    """Return the F1 of each word from its hits, pairs that have it and pairs that it was found in: (..., 3, words)."""
    hits, had, found = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    f1: FloatArray = 2.0 * hits / np.maximum(had + found, 1.0)
    return f1


def _macro_f1(sums: FloatArray) -> FloatArray:
    macro: FloatArray = _f1(sums.reshape(*sums.shape[:-1], 3, -1)).mean(axis=-1)
    return macro
