"""A figure that is a function of sums over queries, its bootstrap over queries, and the difference of two such figures.

The same idea as in `significance`, for figures other than the headline ones.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.errors import DataError
from manylens.evaluation.predictions import FloatArray, IntArray
from manylens.evaluation.significance import percentile_interval, two_sided_p


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure and how much it owes to the queries that happened to be drawn.

    Attributes:
        value: The figure.
        interval: Percentile interval over the resampled queries.
        draws: The figure of each resample, shape (samples,); equal seeds and queries give paired draws.
    """

    value: float
    interval: tuple[float, float]
    draws: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """One figure minus another on the same queries.

    Attributes:
        difference: The difference of the two values.
        interval: Its percentile interval.
        p_value: Two-sided bootstrap p value.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def query_index(queries: Sequence[Hashable]) -> IntArray:
    """Return the number of each pair's query, counted in order of appearance, shape (pairs,)."""
    numbers = {query: number for number, query in enumerate(dict.fromkeys(queries))}
    return np.array([numbers[query] for query in queries], dtype=np.intp)


def sum_by_query(values: FloatArray, index: IntArray) -> FloatArray:
    """Return the sums of `values`, of shape (pairs, ...), over the pairs of each query: (queries, ...)."""
    sums = np.zeros((int(index.max()) + 1, *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def estimate(
    sums: FloatArray, figure: Callable[[FloatArray], FloatArray], *, samples: int, confidence: float, seed: int
) -> Estimate:
    """Return a figure with its bootstrap over queries.

    Args:
        sums: What the figure needs of each query, shape (queries, n).
        figure: From sums over queries, shape (..., n), to figures, shape (...).
        samples: Number of resamples.
        confidence: Mass of the interval, in (0, 1).
        seed: Seed of the resamples.
    """
    queries = len(sums)
    counts = np.random.default_rng(seed).multinomial(queries, np.full(queries, 1.0 / queries), size=samples)
    draws = figure(counts @ sums)
    return Estimate(value=float(figure(sums.sum(axis=0))), interval=percentile_interval(draws, confidence), draws=draws)


def paired_difference(one: Estimate, other: Estimate, confidence: float = 0.95) -> PairedDifference:
    """Return `one` minus `other`.

    Args:
        one: A figure.
        other: The same figure of something else, on the same queries in the same order, with the same seed.
        confidence: Mass of the interval, in (0, 1).

    Raises:
        DataError: If the two do not have the same number of resamples.
    """
    if len(one.draws) != len(other.draws):
        raise DataError(
            "a difference needs two estimates with the same queries, samples and seed, "
            f"got {len(one.draws)} and {len(other.draws)} samples"
        )
    # Rounding noise of the sums must not decide on which side of 0 a resample lies.
    draws = (one.draws - other.draws).round(12)
    return PairedDifference(
        difference=one.value - other.value,
        interval=percentile_interval(draws, confidence),
        p_value=float(two_sided_p(draws)),
    )
