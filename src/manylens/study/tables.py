"""The tables of a study: the figures of every arm, and the comparisons, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from manylens.config import EvaluateConfig
from manylens.evaluation import compare
from manylens.evaluation.predictions import FloatArray, Predictions
from manylens.evaluation.significance import METRICS, headline, holm, query_sums
from manylens.records import LabelScale
from manylens.study.arms import Study
from manylens.study.job import Job, Places
from manylens.study.measures import MEASURES
from manylens.study.rows import ALL, CONTRAST_SCHEMA, FIGURE_SCHEMA, RESAMPLES, Row, contrast_row, figure_row

#: The splits of the tables: dev chooses, test confirms.
_SPLITS = ("dev", "test")
#: Split and slice.
_Part = tuple[str, str]


def study_tables(
    study: Study, jobs: Mapping[str, Sequence[Job]], places: Places
) -> tuple[pa.Table, pa.Table, tuple[str, ...]]:
    """Measure every arm, and compare those that the study compares.

    Args:
        study: The study.
        jobs: Its students, all of them trained.
        places: Where they lie.

    Returns:
        The figures, in `FIGURE_SCHEMA`, the comparisons, in `CONTRAST_SCHEMA`, and the measures' notes. A verdict
        rests on the interval over queries and seeds and, in the study's family and for its measures, on the corrected
        p value too.

    Raises:
        DataError: If predictions are malformed, or two arms do not have the same pairs and labels.
        StageError: If an arm sets latents to zero that its student does not have.
    """
    config = jobs[study.arms[0].name][0].config
    predicted = {
        arm.name: _parts(study, [places.predictions(job, arm.inference) for job in jobs[arm.name]])
        for arm in study.arms
    }
    figures, contrasts = _figures(study, jobs, predicted), _contrasts(study, jobs, predicted)
    notes: list[str] = []
    for name in study.measures:
        measured = MEASURES[name](study, jobs, places)
        figures += measured.figures
        contrasts += measured.contrasts
        notes += measured.notes
    _correct(contrasts, study.family, 1.0 - config.evaluate.confidence)
    return (
        pa.Table.from_pylist(figures, schema=FIGURE_SCHEMA),
        pa.Table.from_pylist(contrasts, schema=CONTRAST_SCHEMA),
        tuple(notes),
    )


def _parts(study: Study, tables: Sequence[pa.Table]) -> dict[_Part, list[pa.Table]]:
    """Return each seed's predictions of every split and slice that has a judged pair."""
    found = {}
    for split in _SPLITS:
        whole = [table.filter(pc.equal(table["split"], pa.scalar(split))) for table in tables]
        judged = whole[0].filter(pc.is_valid(whole[0]["label"]))
        if len(judged):
            found[split, ALL] = whole
        for column in study.slices:
            for value in sorted(filter(None, pc.unique(judged[column]).to_pylist())):
                part = [table.filter(pc.equal(table[column], pa.scalar(value))) for table in whole]
                found[split, f"{column}={value}"] = part
    return found


def _figures(
    study: Study, jobs: Mapping[str, Sequence[Job]], predicted: Mapping[str, Mapping[_Part, Sequence[pa.Table]]]
) -> list[Row]:
    rows = []
    for arm in study.arms:
        config = jobs[arm.name][0].config
        for (split, part), tables in predicted[arm.name].items():
            measured = [_measure(table, config.labels.build(), config.evaluate) for table in tables]
            _, pairs, queries = measured[0]
            for index, metric in enumerate(METRICS):
                row = figure_row(
                    study.name,
                    arm.name,
                    arm.title,
                    split=split,
                    part=part,
                    metric=metric,
                    values=[float(figures[index]) for figures, _, _ in measured],
                    queries=queries,
                    pairs=pairs,
                )
                rows.append(row)
    return rows


def _measure(table: pa.Table, scale: LabelScale, config: EvaluateConfig) -> tuple[FloatArray, int, int]:
    """Return the headline figures, and the numbers of pairs and queries that they are of."""
    predictions = Predictions.from_table(table, scale)
    figures = headline(query_sums(predictions, scale, config.ndcg_cutoff).sum(axis=0))
    return figures, len(predictions), predictions.queries


def _contrasts(
    study: Study, jobs: Mapping[str, Sequence[Job]], predicted: Mapping[str, Mapping[_Part, Sequence[pa.Table]]]
) -> list[Row]:
    return [
        row
        for treatment, baseline in study.comparisons()
        for part, tables in predicted[treatment].items()
        if part in predicted[baseline]  # A held-out language has no dev pairs.
        for row in _compared(study, (treatment, baseline), part, (tables, predicted[baseline][part]), jobs)
    ]


def _compared(
    study: Study,
    names: tuple[str, str],
    part: _Part,
    sides: tuple[Sequence[pa.Table], Sequence[pa.Table]],
    jobs: Mapping[str, Sequence[Job]],
) -> Iterator[Row]:
    config = jobs[names[0]][0].config
    samples = max(RESAMPLES, config.evaluate.bootstrap_samples)
    settings = config.evaluate.model_copy(update={"bootstrap_samples": samples})
    comparison = compare(*sides, config.labels.build(), settings, config.seed)
    for metric, found in comparison.metrics.items():
        yield contrast_row(study.name, *names, split=part[0], part=part[1], metric=metric, found=found)


def _correct(rows: Sequence[Row], metrics: Sequence[str], alpha: float) -> None:
    """Correct p values within each split and slice, and the verdicts with them.

    Of the headline metrics those of the study's family are corrected, together; every further measure is, by itself.
    """
    families: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        family = "headline" if row["metric"] in METRICS else row["metric"]
        if row["p"] is not None and (row["metric"] in metrics or row["metric"] not in METRICS):
            families.setdefault((row["split"], row["slice"], family), []).append(row)
    for tests in families.values():
        for row, p_value in zip(tests, holm([row["p"] for row in tests]), strict=True):
            row["p_holm"] = p_value
            if p_value >= alpha:
                row["verdict"] = "no difference shown"
