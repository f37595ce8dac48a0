"""Whether one method is worth more than another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation.predictions import FloatArray, Predictions
from manylens.evaluation.significance import (
    METRICS,
    headline,
    percentile_interval,
    query_sums,
    resample,
    resample_seeds,
    two_sided_p,
)
from manylens.records import LabelScale

Verdict = Literal["gain", "loss", "no difference shown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One figure of two methods.

    Attributes:
        treatment: Mean over seeds.
        treatment_sd: Sample standard deviation over seeds; ``None`` for one seed.
        baseline: Mean over seeds.
        baseline_sd: As for the treatment.
        difference: Treatment minus baseline.
        interval: Bootstrap interval of the difference over queries, seeds held fixed; ``None`` for a single query.
        p_value: Two-sided bootstrap p value; ``None`` for a single query.
        verdict: ``no difference shown`` where the interval holds 0 or there is none.
        by_seed: The difference at each seed.
        interval_seeds: The wider interval over queries and seeds; ``None`` for a single query or seed.
        p_value_seeds: As `interval_seeds`.
    """

    treatment: float
    treatment_sd: float | None
    baseline: float
    baseline_sd: float | None
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    verdict: Verdict
    by_seed: tuple[float, ...] = ()
    interval_seeds: tuple[float, float] | None = None
    p_value_seeds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two methods on the same pairs.

    Attributes:
        seeds: Training seeds that the comparison rests on.
        pairs: Judged pairs.
        queries: Queries, the unit of the bootstrap.
        ndcg_cutoff: Ranks that nDCG looks at.
        bootstrap_samples: Number of resamples.
        confidence: Mass of the intervals.
        metrics: The difference in accuracy, macro_f1, ndcg and mrr.
    """

    seeds: int
    pairs: int
    queries: int
    ndcg_cutoff: int
    bootstrap_samples: int
    confidence: float
    metrics: dict[str, Difference]


def compare(
    treatment: Sequence[pa.Table],
    baseline: Sequence[pa.Table],
    scale: LabelScale,
    config: EvaluateConfig,
    seed: int,
) -> Comparison:
    """Compare two methods by a paired bootstrap over queries.

    The statistic is the mean over training seeds of the difference between the two methods. Each resample of
    the queries serves both methods and all seeds. The interval thus speaks of other queries, not of
    other seeds: their spread stands beside it as a standard deviation. ``interval_seeds`` speaks of both: it also
    resamples the seeds, which pair the two methods as the queries do.

    Args:
        treatment: Predictions of one method, a table in `PREDICTION_SCHEMA` for each training seed.
        baseline: Predictions of the other, in the same order of seeds.
        scale: The label scale.
        config: Resamples, confidence and cutoff.
        seed: Seed of the bootstrap.

    Returns:
        The differences, treatment minus baseline.

    Raises:
        DataError: If a table is malformed, or the tables do not hold the same judged pairs and labels.
        StudentError: If logits are not one finite number for each class.
    """
    if not treatment or len(treatment) != len(baseline):
        raise DataError(
            "expected predictions of both methods for the same training seeds, "
            f"got {len(treatment)} tables against {len(baseline)}"
        )
    students = [Predictions.from_table(table, scale) for table in (*treatment, *baseline)]
    first, seeds = students[0], len(treatment)
    for student in students[1:]:
        _check_same_pairs(first, student)
    if not len(first):
        raise DataError("expected at least one pair with a label to compare on, got none")

    sums = np.stack([query_sums(student, scale, config.ndcg_cutoff) for student in students])
    points = headline(sums.sum(axis=1))
    draws = None
    if first.queries > 1:
        sides = resample(sums, config.bootstrap_samples, seed)
        draws = sides[:seeds] - sides[seeds:]
    weights = resample_seeds(seeds, config.bootstrap_samples, seed)
    return Comparison(
        seeds=seeds,
        pairs=len(first),
        queries=first.queries,
        ndcg_cutoff=config.ndcg_cutoff,
        bootstrap_samples=config.bootstrap_samples,
        confidence=config.confidence,
        metrics={
            name: difference(
                points[:seeds, index],
                points[seeds:, index],
                None if draws is None else draws[:, :, index],
                weights,
                config.confidence,
            )
            for index, name in enumerate(METRICS)
        },
    )


def _check_same_pairs(first: Predictions, other: Predictions) -> None:
    columns = ["pair_id", "query_id", "label"]
    if first.table.select(columns).equals(other.table.select(columns)):
        return
    rows, other_rows = (
        set(zip(*student.table.select(columns).to_pydict().values(), strict=True)) for student in (first, other)
    )
    differing = rows ^ other_rows
    pair_id, query_id, label = min(differing)
    raise DataError(
        "a comparison needs the same pairs, queries and labels on both sides and for every seed, "
        f"but {len(differing)} rows differ, such as pair {pair_id!r} of query {query_id!r} with label {label!r}; "
        "predict the same split with every student"
    )


def difference(
    treatment: FloatArray, baseline: FloatArray, draws: FloatArray | None, weights: FloatArray, confidence: float
) -> Difference:
    """Return what may be said of one figure of two methods.

    Args:
        treatment: One figure for each training seed.
        baseline: The same of the other method.
        draws: Their difference at each seed in each resample of the queries, shape (seeds, samples); ``None`` where
            there is a single query.
        weights: What `resample_seeds` gives, shape (seeds, samples).
        confidence: Mass of the intervals.
    """
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    interval_seeds: tuple[float, float] | None = None
    p_value_seeds: float | None = None
    if draws is not None:
        interval, p_value = _uncertainty(draws.mean(axis=0), confidence)
        if len(draws) > 1:
            interval_seeds, p_value_seeds = _uncertainty((draws * weights).sum(axis=0), confidence)
    return Difference(
        treatment=float(treatment.mean()),
        treatment_sd=_sd(treatment),
        baseline=float(baseline.mean()),
        baseline_sd=_sd(baseline),
        difference=float((treatment - baseline).mean()),
        interval=interval,
        p_value=p_value,
        verdict=verdict_of(interval),
        by_seed=tuple((treatment - baseline).tolist()),
        interval_seeds=interval_seeds,
        p_value_seeds=p_value_seeds,
    )


def _uncertainty(draws: FloatArray, confidence: float) -> tuple[tuple[float, float], float]:
    """Return the interval and the p value of resampled differences."""
    # Rounding noise of the sums must not decide on which side of 0 a resample lies.
    draws = draws.round(12)
    return percentile_interval(draws, confidence), two_sided_p(draws)


def verdict_of(interval: tuple[float, float] | None) -> Verdict:
    """Return what may be said of a difference with this interval."""
    if interval is None or interval[0] <= 0.0 <= interval[1]:
        return "no difference shown"
    return "gain" if interval[0] > 0.0 else "loss"


def _sd(values: FloatArray) -> float | None:
    return statistics.stdev(values.tolist()) if len(values) > 1 else None
