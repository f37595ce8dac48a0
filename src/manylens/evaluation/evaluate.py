"""What one student is worth."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation.calibration import expected_calibration_error, fit_temperature
from manylens.evaluation.metrics import ClassReport, class_reports, confusion_matrix, majority_accuracy
from manylens.evaluation.predictions import Predictions
from manylens.evaluation.significance import (
    METRICS,
    headline,
    percentile_interval,
    query_sums,
    resample,
)
from manylens.records import LabelScale


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceReport:
    """The figures of the pairs of one locale or one kind of query."""

    pairs: int
    queries: int
    accuracy: float
    macro_f1: float
    ndcg: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """The figures of one split.

    Attributes:
        pairs: Judged pairs; the figures are of these.
        unjudged: Pairs left out because they have no gold label.
        queries: Queries with at least one judged pair.
        accuracy: Share of pairs given their gold label.
        majority_accuracy: The accuracy of always giving the most frequent gold label.
        macro_f1: Mean F1 over all classes of the scale; a class without support counts 0.
        ndcg: Mean over queries.
        mrr: Mean over queries.
        intervals: Bootstrap interval of accuracy, macro_f1, ndcg and mrr; empty for a single query.
        ece: Expected calibration error.
        ece_calibrated: The same after temperature scaling; ``None`` where dev has no judged pair.
        classes: One report a class, in the scale's order.
        confusion: Counts; rows are gold labels, columns predicted ones.
        by_locale: Slices; pairs without a locale form none.
        by_query_kind: Slices; pairs without a kind form none.
    """

    pairs: int
    unjudged: int
    queries: int
    accuracy: float
    majority_accuracy: float
    macro_f1: float
    ndcg: float
    mrr: float
    intervals: dict[str, tuple[float, float]]
    ece: float
    ece_calibrated: float | None
    classes: tuple[ClassReport, ...]
    confusion: tuple[tuple[int, ...], ...]
    by_locale: dict[str, SliceReport]
    by_query_kind: dict[str, SliceReport]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The figures of one student.

    Attributes:
        labels: The scale's names.
        gains: The scale's gains, which nDCG uses.
        ndcg_cutoff: Ranks that nDCG looks at.
        confidence: Mass of the intervals.
        temperature: Fitted on dev; ``None`` where dev has no judged pair.
        dev: ``None`` where dev has no judged pair.
        test: The figures to report.
    """

    labels: tuple[str, ...]
    gains: tuple[float, ...]
    ndcg_cutoff: int
    confidence: float
    temperature: float | None
    dev: SplitReport | None
    test: SplitReport


def evaluate(dev: pa.Table, test: pa.Table, scale: LabelScale, config: EvaluateConfig, seed: int) -> Evaluation:
    """Measure one student.

    Args:
        dev: Its predictions on dev, in `PREDICTION_SCHEMA`; fits the temperature.
        test: Its predictions on test.
        scale: The label scale.
        config: What is measured.
        seed: Seed of the bootstrap.

    Returns:
        The figures of both splits.

    Raises:
        DataError: If a table is malformed, or test has no judged pair.
        StudentError: If logits are not one finite number for each class.
    """
    dev_pairs, test_pairs = Predictions.from_table(dev, scale), Predictions.from_table(test, scale)
    if not len(test_pairs):
        raise DataError(f"expected at least one test pair with a label, got {test_pairs.unjudged} pairs without")
    temperature = fit_temperature(dev_pairs.logits, dev_pairs.gold) if len(dev_pairs) else None
    return Evaluation(
        labels=scale.names,
        gains=scale.gain_vector(),
        ndcg_cutoff=config.ndcg_cutoff,
        confidence=config.confidence,
        temperature=temperature,
        dev=_report(dev_pairs, scale, config, seed, temperature) if len(dev_pairs) else None,
        test=_report(test_pairs, scale, config, seed, temperature),
    )


def _report(
    pairs: Predictions, scale: LabelScale, config: EvaluateConfig, seed: int, temperature: float | None
) -> SplitReport:
    sums = query_sums(pairs, scale, config.ndcg_cutoff)
    accuracy, macro_f1, ndcg, mrr = headline(sums.sum(axis=0)).tolist()
    # Resampling a single query gives that query again and again: an interval of width 0 that means nothing.
    draws = resample(sums[None], config.bootstrap_samples, seed)[0] if pairs.queries > 1 else None
    return SplitReport(
        pairs=len(pairs),
        unjudged=pairs.unjudged,
        queries=pairs.queries,
        accuracy=accuracy,
        majority_accuracy=majority_accuracy(pairs.gold),
        macro_f1=macro_f1,
        ndcg=ndcg,
        mrr=mrr,
        intervals={}
        if draws is None
        else {name: percentile_interval(draws[:, index], config.confidence) for index, name in enumerate(METRICS)},
        ece=expected_calibration_error(pairs.logits, pairs.gold, config.calibration_bins),
        ece_calibrated=None
        if temperature is None
        else expected_calibration_error(pairs.logits, pairs.gold, config.calibration_bins, temperature),
        classes=class_reports(pairs.gold, pairs.predicted, scale.names),
        confusion=confusion_matrix(pairs.gold, pairs.predicted, len(scale.names)),
        by_locale=_slices(pairs, "locale", scale, config),
        by_query_kind=_slices(pairs, "query_kind", scale, config),
    )


def _slices(pairs: Predictions, column: str, scale: LabelScale, config: EvaluateConfig) -> dict[str, SliceReport]:
    slices = {}
    for value in sorted(filter(None, pc.unique(pairs.table[column]).to_pylist())):
        part = pairs.where(column, value, scale)
        accuracy, macro_f1, ndcg, _ = headline(query_sums(part, scale, config.ndcg_cutoff).sum(axis=0)).tolist()
        slices[value] = SliceReport(
            pairs=len(part), queries=part.queries, accuracy=accuracy, macro_f1=macro_f1, ndcg=ndcg
        )
    return slices
