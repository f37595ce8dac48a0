"""The rows of a study's tables, in long form."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manylens.evaluation.compare import Difference, verdict_of

#: The slice that holds every pair.
ALL = "all"
#: Resamples of a comparison: the recipe's, and at least so many, because Holm's correction needs small p values.
RESAMPLES = 10_000

_TEXT, _NUMBER, _COUNT = pa.string(), pa.float64(), pa.int64()


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns)


#: One row for each arm, split, slice and metric; `values` are those of the seeds.
FIGURE_SCHEMA: pa.Schema = _schema(
    study=_TEXT,
    arm=_TEXT,
    title=_TEXT,
    split=_TEXT,
    slice=_TEXT,
    metric=_TEXT,
    mean=_NUMBER,
    sd=_NUMBER,
    min=_NUMBER,
    max=_NUMBER,
    values=pa.list_(_NUMBER),
    seeds=_COUNT,
    queries=_COUNT,
    pairs=_COUNT,
)
#: One row for each comparison, split, slice and metric. `low`, `high` and `p` resample queries and seeds, where there
#: are several seeds; `low_queries` and `high_queries` the queries alone.
CONTRAST_SCHEMA: pa.Schema = _schema(
    study=_TEXT,
    treatment=_TEXT,
    baseline=_TEXT,
    split=_TEXT,
    slice=_TEXT,
    metric=_TEXT,
    difference=_NUMBER,
    low=_NUMBER,
    high=_NUMBER,
    low_queries=_NUMBER,
    high_queries=_NUMBER,
    p=_NUMBER,
    p_holm=_NUMBER,
    by_seed=pa.list_(_NUMBER),
    verdict=_TEXT,
)
Row = dict[str, Any]


def figure_row(
    study: str,
    arm: str,
    title: str,
    *,
    split: str,
    part: str = ALL,
    metric: str,
    values: Sequence[float],
    queries: int,
    pairs: int,
) -> Row:
    """Return a row of the table of figures.

    Args:
        study: The study's name.
        arm: The arm's name.
        title: The arm's title.
        split: The split that was measured.
        part: The slice of it.
        metric: What was measured.
        values: One figure for each seed.
        queries: Queries that were measured.
        pairs: Pairs that were measured.
    """
    return {
        "study": study,
        "arm": arm,
        "title": title,
        "split": split,
        "slice": part,
        "metric": metric,
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "values": list(values),
        "seeds": len(values),
        "queries": queries,
        "pairs": pairs,
    }


def contrast_row(
    study: str, treatment: str, baseline: str, *, split: str, part: str = ALL, metric: str, found: Difference
) -> Row:
    """Return a row of the table of comparisons, not yet corrected.

    Args:
        study: The study's name.
        treatment: An arm's name.
        baseline: The name of the arm that it is compared with.
        split: The split that was measured.
        part: The slice of it.
        metric: What was measured.
        found: The difference; the verdict rests on its interval over queries and seeds.
    """
    main = found.interval_seeds or found.interval
    low, high = main or (None, None)
    low_queries, high_queries = found.interval or (None, None)
    return {
        "study": study,
        "treatment": treatment,
        "baseline": baseline,
        "split": split,
        "slice": part,
        "metric": metric,
        "difference": found.difference,
        "low": low,
        "high": high,
        "low_queries": low_queries,
        "high_queries": high_queries,
        "p": found.p_value if found.p_value_seeds is None else found.p_value_seeds,
        "p_holm": None,
        "by_seed": list(found.by_seed),
        "verdict": verdict_of(main),
    }
