"""A study as files: Parquet for programs, Markdown for people, and a head that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manylens.evaluation.significance import METRICS
from manylens.files import write_json, write_text
from manylens.study.arms import Study
from manylens.study.job import Job, Places
from manylens.study.rows import ALL, RESAMPLES

#: Rows of a table.
Rows = Sequence[Mapping[str, Any]]
_METRIC_TITLES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "ndcg": "nDCG@{cutoff}", "mrr": "MRR"}


@dataclass(frozen=True, kw_only=True)
class Head:
    """What stands above a study's tables.

    Attributes:
        study: Its name.
        title: Its title.
        question: What it asks.
        recipe: The recipe's name.
        command: The command that makes it.
        seeds: Training seeds.
        pairs: Pairs of each split, of the first arm.
        ndcg_cutoff: Ranks that nDCG looks at.
        resamples: Of the bootstrap.
        confidence: Mass of the intervals.
        student_seconds: Median time to train a student, measure it and keep its states.
        machine: Platform, processors, memory.
        versions: Of the libraries.
        finished: When the last of its students was done, in UTC.
        settings: Of each arm that has any.
        notes: What the measures have to say beside their rows.
    """

    study: str
    title: str
    question: str
    recipe: str
    command: str
    seeds: tuple[int, ...]
    pairs: dict[str, int]
    ndcg_cutoff: int
    resamples: int
    confidence: float
    student_seconds: float
    machine: dict[str, Any]
    versions: dict[str, str]
    finished: str
    settings: dict[str, dict[str, float | str]]
    notes: tuple[str, ...] = ()


def head_of(
    study: Study, jobs: Mapping[str, Sequence[Job]], places: Places, *, command: str, notes: Sequence[str] = ()
) -> Head:
    """Return the head of a study whose students are all trained.

    Args:
        study: The study.
        jobs: Its students.
        places: Where they lie.
        command: The command that makes it.
        notes: What the measures have to say beside their rows.
    """
    first = jobs[study.arms[0].name]
    records = [record for of_arm in jobs.values() for job in of_arm if (record := places.record(job)) is not None]
    seconds = sorted(record["seconds"] for record in records)
    evaluate = first[0].config.evaluate
    return Head(
        study=study.name,
        title=study.title,
        question=study.question,
        recipe=first[0].config.name,
        command=command,
        seeds=tuple(job.seed for job in first),
        pairs=records[0]["pairs"],
        ndcg_cutoff=evaluate.ndcg_cutoff,
        resamples=max(RESAMPLES, evaluate.bootstrap_samples),
        confidence=evaluate.confidence,
        student_seconds=seconds[len(seconds) // 2],
        machine=records[0].get("machine", {}),
        versions=records[0].get("versions", {}),
        finished=max(record["finished"] for record in records),
        settings={arm.name: arm.settings for arm in study.arms if arm.settings},
        notes=tuple(notes),
    )


def write_study(head: Head, figures: pa.Table, contrasts: pa.Table, out: Path) -> Path:
    """Write a study's files.

    Args:
        head: What stands above the tables.
        figures: In `FIGURE_SCHEMA`.
        contrasts: In `CONTRAST_SCHEMA`.
        out: The folder.

    Returns:
        The Markdown file, ``out/NAME.md``; beside it lie ``NAME.parquet``, ``NAME-contrasts.parquet`` and
        ``NAME.json``.
    """
    page = out / f"{head.study}.md"
    pq.write_table(figures, out / f"{head.study}.parquet")
    pq.write_table(contrasts, out / f"{head.study}-contrasts.parquet")
    write_json(out / f"{head.study}.json", asdict(head))
    write_text(page, markdown(head, figures.to_pylist(), contrasts.to_pylist()))
    return page


def markdown(head: Head, figures: Rows, contrasts: Rows) -> str:
    """Return a study as a page."""
    seeds = ", ".join(map(str, head.seeds))
    sizes = ", ".join(f"{count:,} {split}" for split, count in head.pairs.items())
    lines = [
        f"# {head.title}",
        "",
        *([head.question, ""] if head.question else []),
        f"`{head.command}`",
        "",
        f"Pairs: {sizes}. Seeds: {seeds}. Mean ± standard deviation over the seeds. {machine_words(head)} "
        f"Finished {head.finished}.",
    ]
    for split, slice_ in dict.fromkeys((row["split"], row["slice"]) for row in figures):
        lines += ["", f"## {_heading(split, slice_)}"]
        part, compared = (where(rows, split=split, slice=slice_) for rows in (figures, contrasts))
        found = _metrics(part)
        for metrics in ([each for each in found if each in METRICS], [each for each in found if each not in METRICS]):
            if metrics:
                lines += ["", *figure_lines(part, head.ndcg_cutoff, metrics)]
            if any(row["metric"] in metrics for row in compared):
                lines += ["", *contrast_lines(compared, titles_of(figures), head.ndcg_cutoff, metrics)]
    lines += [line for note in head.notes for line in ("", note)]
    over = "queries and seeds" if len(head.seeds) > 1 else "queries"
    lines += [
        "",
        f"Intervals of {100 * head.confidence:g}% and p: paired bootstrap over {over}, {head.resamples:,} resamples. "
        "Holm's correction within a split and a slice; a verdict needs the interval to leave out 0 and, where it was "
        "corrected, p to stay small.",
        "",
    ]
    return "\n".join(lines)


def machine_words(head: Head) -> str:
    """Return what the students were trained with, in a sentence."""
    versions = ", ".join(f"{name} {head.versions[name]}" for name in ("torch", "transformers") if name in head.versions)
    accelerator = head.machine.get("accelerator")
    parts = [
        *([accelerator] if accelerator else []),
        f"{head.machine.get('processors', '?')} processors",
        *([versions] if versions else []),
    ]
    return f"{'; '.join(parts)}; a student takes {head.student_seconds:.0f} s in the median."


def figure_lines(figures: Rows, cutoff: int, metrics: Sequence[str] = ()) -> list[str]:
    """Return a Markdown table with an arm a line.

    Args:
        figures: Of one split and slice.
        cutoff: Ranks that nDCG looks at.
        metrics: The columns; all by default.
    """
    columns = list(metrics) or _metrics(figures)
    cells = {(row["arm"], row["metric"]): spread_words(row) for row in figures}
    lines = [
        f"| | {' | '.join(metric_title(metric, cutoff) for metric in columns)} |",
        "| --- |" + " --- |" * len(columns),
    ]
    for arm, title in titles_of([row for row in figures if row["metric"] in columns]).items():
        lines.append(f"| {title} | {' | '.join(cells.get((arm, metric), '') for metric in columns)} |")
    return lines


def contrast_lines(contrasts: Rows, titles: Mapping[str, str], cutoff: int, metrics: Sequence[str] = ()) -> list[str]:
    """Return a Markdown table with a comparison a line: difference, interval, corrected p, verdict.

    Args:
        contrasts: Of one split and slice.
        titles: Of the arms.
        cutoff: Ranks that nDCG looks at.
        metrics: The columns; all by default.
    """
    columns = list(metrics) or _metrics(contrasts)
    shown = [row for row in contrasts if row["metric"] in columns]
    cells = {(row["treatment"], row["baseline"], row["metric"]): difference_words(row) for row in shown}
    lines = [
        f"| difference | {' | '.join(metric_title(metric, cutoff) for metric in columns)} |",
        "| --- |" + " --- |" * len(columns),
    ]
    for treatment, baseline in dict.fromkeys((treatment, baseline) for treatment, baseline, _ in cells):
        found = (cells.get((treatment, baseline, metric), "") for metric in columns)
        lines.append(f"| {titles[treatment]} - {titles[baseline]} | {' | '.join(found)} |")
    return lines


def difference_words(row: Mapping[str, Any]) -> str:
    """Return a difference with its interval, p value and verdict; a gain or a loss in bold."""
    text = f"{row['difference']:+.3f}"
    if row["low"] is None:
        return text
    text += f" ({row['low']:+.3f} to {row['high']:+.3f}), p "
    text += _p_words(row["p"]) if row["p_holm"] is None else f"{_p_words(row['p_holm'])} (Holm)"
    return text if row["verdict"] == "no difference shown" else f"**{text}: {row['verdict']}**"


def titles_of(figures: Rows) -> dict[str, str]:
    """Return the arms' titles by name, in the order of the table."""
    return {row["arm"]: row["title"] for row in figures}


def metric_title(metric: str, cutoff: int) -> str:
    """Return a metric's heading."""
    return _METRIC_TITLES.get(metric, metric.replace("_", " ")).format(cutoff=cutoff)


def where(rows: Rows, **columns: str) -> list[Mapping[str, Any]]:
    """Return the rows whose columns hold these values."""
    return [row for row in rows if all(row[name] == value for name, value in columns.items())]


def _metrics(rows: Rows) -> list[str]:
    """Return the metrics of a table, the headline figures first."""
    found = dict.fromkeys(str(row["metric"]) for row in rows)
    return [*(metric for metric in METRICS if metric in found), *(metric for metric in found if metric not in METRICS)]


def _p_words(p_value: float) -> str:
    return "<0.001" if p_value < 0.0005 else f"{p_value:.3f}"


def _heading(split: str, slice_: str) -> str:
    return split if slice_ == ALL else f"{split}, {slice_}"


def spread_words(row: Mapping[str, Any]) -> str:
    """Return a figure: the mean and, over several seeds, the standard deviation."""
    return f"{row['mean']:.3f}" if row["sd"] is None else f"{row['mean']:.3f} ±{row['sd']:.3f}"
