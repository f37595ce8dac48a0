"""The bootstrap over queries: how much a figure owes to the queries that happened to be drawn.

The unit that is resampled is the query, because pairs of one query are not independent. Every
headline figure is a function of sums over queries, so a resample is a vector of counts (how often each
query was drawn) and all resamples are a few matrix products. Intervals are percentile intervals (Efron and
Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manylens.evaluation.predictions import FloatArray, Predictions
from manylens.evaluation.ranking import rank_queries
from manylens.records import LabelScale

#: The headline figures, in the order of the last axis of `headline`; higher is better.
METRICS = ("accuracy", "macro_f1", "ndcg", "mrr")

_RESAMPLES_AT_ONCE = 100


def query_sums(predictions: Predictions, scale: LabelScale, cutoff: int) -> FloatArray:
    """Return what the headline figures need of each query.

    Args:
        predictions: The judged pairs.
        scale: The label scale.
        cutoff: Ranks that nDCG looks at.

    Returns:
        Shape (queries, 3 * classes + 3): for each class the pairs that have it and were given it, were
        given it, have it; then nDCG, the reciprocal rank, and 1 (which counts queries).
    """
    classes = len(scale.names)
    gold = np.eye(classes)[predictions.gold]
    predicted = np.eye(classes)[predictions.predicted]
    counts = np.zeros((predictions.queries, 3 * classes))
    np.add.at(counts, predictions.query, np.hstack([gold * predicted, predicted, gold]))
    ndcg, reciprocal_rank = rank_queries(predictions, scale, cutoff)
    return np.column_stack([counts, ndcg, reciprocal_rank, np.ones(predictions.queries)])


def headline(sums: FloatArray) -> FloatArray:
    """Return the headline figures of a set of queries.

    Args:
        sums: Sums over queries of what `query_sums` gives, shape (..., 3 * classes + 3).

    Returns:
        The figures in the order of `METRICS`, shape (..., 4). Macro-F1 is the mean over all classes of
        ``2 TP / (predicted + gold)``, a class with neither counting 0.
    """
    hits, predicted, gold = np.split(sums[..., :-3], 3, axis=-1)
    ndcg, reciprocal_rank, queries = (sums[..., index] for index in (-3, -2, -1))
    f1 = 2.0 * hits / np.maximum(predicted + gold, 1.0)
    accuracy = hits.sum(axis=-1) / gold.sum(axis=-1)
    return np.stack([accuracy, f1.mean(axis=-1), ndcg / queries, reciprocal_rank / queries], axis=-1)


def resample(sums: FloatArray, samples: int, seed: int) -> FloatArray:
    """Draw queries with replacement, and give the headline figures of every draw.

    Args:
        sums: What `query_sums` gives for each of several students on the same queries, shape
            (students, queries, 3 * classes + 3). One draw serves all students, which pairs them.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Shape (students, samples, 4).
    """
    generator = np.random.default_rng(seed)
    queries = sums.shape[1]
    uniform = np.full(queries, 1.0 / queries)
    parts = []
    for start in range(0, samples, _RESAMPLES_AT_ONCE):
        # In parts, so that memory does not grow with samples times queries.
        draws = generator.multinomial(queries, uniform, size=min(_RESAMPLES_AT_ONCE, samples - start))
        parts.append(headline(draws.astype(np.float64) @ sums))
    return np.concatenate(parts, axis=1)


def percentile_interval(values: FloatArray, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of a resampled figure.

    Args:
        values: One value a resample, shape (samples,).
        confidence: Mass of the interval, in (0, 1).

    Returns:
        Its ends, which leave equal shares of the values on both sides.
    """
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, (tail, 1.0 - tail))
    return float(low), float(high)


def two_sided_p(differences: FloatArray) -> float:
    """Return the two-sided bootstrap p value of "the difference is 0".

    It is twice the share of resamples on the rarer side of 0, with one added to numerator and denominator
    so that it is never 0 (Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, chapter 4).

    Args:
        differences: Resampled differences, shape (samples,).

    Returns:
        The p value, in (0, 1].
    """
    rarer = min(np.count_nonzero(differences <= 0.0), np.count_nonzero(differences >= 0.0))
    return min(1.0, 2.0 * (1 + rarer) / (1 + len(differences)))


def resample_seeds(seeds: int, samples: int, seed: int) -> FloatArray:
    """Draw training seeds with replacement, to resample them together with the queries.

    Queries and seeds are crossed: every query is answered at every seed. Resampling both, each independently of the
    other, is Owen's pigeonhole bootstrap (2007, doi 10.1214/07-AOAS122), which errs on the wide side. With few seeds
    their own share of the variance is too small, by the factor ``(seeds - 1) / seeds``, as in any bootstrap.

    Args:
        seeds: Training seeds.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        The weight of each seed in each draw, shape (seeds, samples); a draw's weights sum to 1.
    """
    draws = np.random.default_rng((seed, seeds)).multinomial(seeds, np.full(seeds, 1.0 / seeds), size=samples)
    weights: FloatArray = draws.T / seeds
    return weights


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm 1979, Scand. J. Statist. 6, 65-70).

    Args:
        p_values: Of a family of tests.

    Returns:
        The adjusted p values, in the same order. Rejecting those below alpha keeps the chance of any false
        rejection at alpha, however the tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
