"""What the teacher's own predictions are worth: single perspectives, the panel's votes and its oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation.predictions import FloatArray, IntArray
from manylens.evaluation.significance import headline, percentile_interval, resample
from manylens.records import LabelScale
from manylens.teacher.votes import Votes

#: The single generation that the others are measured against, where the panel has it.
_NEUTRAL = "neutral"


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionScore:
    """How good one way to predict is.

    Attributes:
        name: A perspective's name, ``majority``, ``weighted`` or ``oracle``.
        calls: Calls to the teacher for a pair.
        accuracy: Share of the pairs whose label is predicted; a pair without a prediction counts as wrong.
        macro_f1: Mean over all labels of F1.
        gain: Accuracy minus the reference's.
        interval: Percentile interval of `gain` by a paired bootstrap over queries; ``None`` for a single query.
    """

    name: str
    calls: int
    accuracy: float
    macro_f1: float
    gain: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VoteReport:
    """The teacher's predictions, measured on pairs on which no weight was fitted.

    Attributes:
        split: ``test`` where it was judged and has labels, else ``dev``, whose votes are cross-validated.
        pairs: Pairs with a gold label and answers to all judgements.
        queries: Their queries.
        reference: The single perspective that the others are compared with: ``neutral`` where the panel has it, else
            the most accurate on dev.
        confidence: Mass of the intervals.
        alone: Each perspective's first sample.
        panel: The votes and the oracle.
    """

    split: str
    pairs: int
    queries: int
    reference: str
    confidence: float
    alone: tuple[PredictionScore, ...]
    panel: tuple[PredictionScore, ...]


def score_votes(votes: Votes, scale: LabelScale, config: EvaluateConfig, seed: int) -> VoteReport:
    """Measure the teacher's predictions.

    Args:
        votes: The votes, as `manylens.teacher.votes.cast_votes` gives them.
        scale: The label scale.
        config: Resamples and confidence.
        seed: Seed of the bootstrap.

    Returns:
        The figures, over the pairs with a gold label all of whose judgements were answered.

    Raises:
        DataError: If there is no such pair in test or dev.
    """
    columns = {name: votes.table[name].to_pylist() for name in votes.table.schema.names}
    usable = [row for row, gold in enumerate(columns["label"]) if gold is not None and votes.complete[row]]
    split = "test" if any(columns["split"][row] == "test" for row in usable) else "dev"
    rows = [row for row in usable if columns["split"][row] == split]
    if not rows:
        raise DataError("no pair of dev or test has a gold label and answers to all its judgements; judge dev again")

    names = [*votes.alone, "majority", "weighted", "oracle"]
    predictions = [*votes.alone.values(), columns["majority"], columns["weighted"], votes.oracle]
    _, query = np.unique([columns["query_id"][row] for row in rows], return_inverse=True)
    gold = _one_hot([columns["label"][row] for row in rows], scale)
    sums = np.stack(
        [_query_sums(query, gold, _one_hot([labels[row] for row in rows], scale)) for labels in predictions]
    )
    queries, singles = sums.shape[1], len(votes.alone)
    best = max(votes.accuracies, key=lambda name: votes.accuracies[name])
    reference = _NEUTRAL if _NEUTRAL in votes.alone else best
    base = names.index(reference)
    points = headline(sums.sum(axis=1))
    draws = resample(sums, config.bootstrap_samples, seed)[:, :, 0] if queries > 1 else None
    scores = tuple(
        PredictionScore(
            name=name,
            calls=1 if index < singles else votes.calls,
            accuracy=float(points[index, 0]),
            macro_f1=float(points[index, 1]),
            gain=float(points[index, 0] - points[base, 0]),
            # Rounded: noise of the sums must not decide on which side of 0 a resample lies.
            interval=None
            if draws is None
            else percentile_interval((draws[index] - draws[base]).round(12), config.confidence),
        )
        for index, name in enumerate(names)
    )
    return VoteReport(
        split=split,
        pairs=len(rows),
        queries=queries,
        reference=reference,
        confidence=config.confidence,
        alone=scores[:singles],
        panel=scores[singles:],
    )


def votes_table(report: VoteReport) -> Table:
    """Lay out the teacher's predictions, one a row.

    Args:
        report: The figures.

    Returns:
        A table of at most 80 columns for names of ordinary length.
    """
    how = "accuracies from dev" if report.split == "test" else "cross-validated"
    title = f"teacher's predictions on {report.split} ({how}): {report.queries:,} queries, {report.pairs:,} pairs"
    caption = (
        f"Difference: accuracy minus that of {escape(report.reference)} alone, with its "
        f"{100 * report.confidence:g}% interval (paired bootstrap over queries). The oracle knows the gold label."
    )
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("prediction", overflow="fold")
    for heading in ("calls", "accuracy", "macro-F1", "difference", "interval"):
        table.add_column(heading, justify="right")
    for part in (report.alone, report.panel):
        for score in part:
            interval = "-" if score.interval is None else f"{score.interval[0]:+.3f} {score.interval[1]:+.3f}"
            difference = ("-", "-") if score.name == report.reference else (f"{score.gain:+.3f}", interval)
            table.add_row(
                escape(score.name),
                f"{score.calls:,}",
                f"{score.accuracy:.3f}",
                f"{score.macro_f1:.3f}",
                *difference,
            )
        table.add_section()
    return table


def _one_hot(labels: Sequence[str | None], scale: LabelScale) -> FloatArray:
    """Return a row for each pair, shape (pairs, classes); all zeros where there is no label."""
    classes = len(scale.names)
    rows: FloatArray = np.eye(classes + 1)[[classes if label is None else scale.index(label) for label in labels]]
    return rows[:, :classes]


def _query_sums(query: IntArray, gold: FloatArray, predicted: FloatArray) -> FloatArray:
    """Return what `significance.headline` needs of each query; a label ranks nothing, so nDCG and MRR stay 0."""
    queries = int(query.max()) + 1
    counts = np.zeros((queries, 3 * gold.shape[1]))
    np.add.at(counts, query, np.hstack([gold * predicted, predicted, gold]))
    return np.column_stack([counts, np.zeros((queries, 2)), np.ones(queries)])
