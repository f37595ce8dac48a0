"""The figures of a study: accuracy and macro-F1 over seeds, and paired differences with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from manylens.evaluation.predictions import PREDICTION_SCHEMA, Predictions
from manylens.evaluation.significance import METRICS, headline, percentile_interval, query_sums, resample
from manylens.records import ESCI, Pair

#: A label, or ``None`` for an answer without one, for each pair.
Labels = Sequence[str | None]

_RESAMPLES = 2000
_CONFIDENCE = 0.95


def sums_of(pairs: Sequence[Pair], labels: Labels) -> np.ndarray:
    """Return what the bootstrap needs of each query; an answer without a label counts as a wrong one."""
    rows = [_row(pair, label) for pair, label in zip(pairs, labels, strict=True)]
    return query_sums(Predictions.from_table(pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA), ESCI), ESCI, 10)


def mean_and_spread(pairs: Sequence[Pair], seeds: Sequence[Labels]) -> dict[str, float]:
    """Return accuracy and macro-F1 over seeds: mean, and standard deviation where there are several seeds."""
    found = np.array([headline(sums_of(pairs, labels).sum(axis=0)) for labels in seeds])
    figures = {}
    for name in ("accuracy", "macro_f1"):
        values = found[:, METRICS.index(name)]
        figures[name] = float(values.mean())
        if len(values) > 1:
            figures[f"{name}_sd"] = float(values.std(ddof=1))
    return figures


def difference(pairs: Sequence[Pair], ours: Sequence[Labels], theirs: Sequence[Labels]) -> dict[str, Any]:
    """Compare the accuracy of two teachers on the same pairs and seeds.

    Args:
        pairs: The pairs.
        ours: The labels of one teacher, for each seed.
        theirs: Those of the other.

    Returns:
        The mean difference over seeds, its 95% interval over resampled queries with the seeds held fixed, and the
        difference of each seed.
    """
    drawn = resample(np.stack([sums_of(pairs, labels) for labels in (*ours, *theirs)]), _RESAMPLES, seed=0)
    accuracy = drawn[:, :, METRICS.index("accuracy")]
    low, high = percentile_interval(
        accuracy[: len(ours)].mean(axis=0) - accuracy[len(ours) :].mean(axis=0), _CONFIDENCE
    )
    by_seed = [
        mean_and_spread(pairs, [one])["accuracy"] - mean_and_spread(pairs, [other])["accuracy"]
        for one, other in zip(ours, theirs, strict=True)
    ]
    return {"difference": float(np.mean(by_seed)), "low": low, "high": high, "by_seed": by_seed}


def markdown(teachers: Mapping[str, Mapping[str, float]], differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay the figures out as two Markdown tables."""
    lines = ["| teacher | accuracy | macro-F1 |", "| --- | --- | --- |"]
    for name, row in teachers.items():
        cells = [f"{row[key]:.3f}" + (f" ±{row[f'{key}_sd']:.3f}" if f"{key}_sd" in row else "") for key in _SHOWN]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| comparison | accuracy | 95% interval | each seed |", "| --- | --- | --- | --- |"]
    for name, row in differences.items():
        seeds = ", ".join(f"{value:+.3f}" for value in row["by_seed"])
        lines.append(f"| {name} | {row['difference']:+.3f} | {row['low']:+.3f} to {row['high']:+.3f} | {seeds} |")
    return "\n".join(lines)


_SHOWN = ("accuracy", "macro_f1")


def _row(pair: Pair, label: str | None) -> dict[str, object]:
    assert pair.label is not None
    wrong = next(name for name in ESCI.names if name != pair.label)
    return {
        "pair_id": pair.pair_id,
        "query_id": pair.query_id,
        "split": pair.split,
        "locale": pair.locale,
        "query_kind": pair.query_kind,
        "label": pair.label,
        "logits": [float(name == (label or wrong)) for name in ESCI.names],
    }
