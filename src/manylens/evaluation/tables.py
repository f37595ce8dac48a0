"""The figures as tables for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from manylens.errors import DataError
from manylens.evaluation.compare import Comparison
from manylens.evaluation.evaluate import Evaluation
from manylens.evaluation.significance import METRICS

_BOX = box.SIMPLE_HEAD
_VERDICT_STYLES = {"gain": "bold green", "loss": "bold red", "no difference shown": "yellow"}


def comparison_table(comparison: Comparison, *, treatment: str, baseline: str) -> Table:
    """Lay out a comparison: both methods, their difference, and what may be said of it.

    Args:
        comparison: The figures.
        treatment: Name of the method that was compared.
        baseline: Name of the method that it was compared with.

    Returns:
        A table of at most 90 columns for names of ordinary length.
    """
    title = (
        f"{escape(treatment)} against {escape(baseline)}: {_size(comparison.queries, comparison.pairs)}, "
        f"{_count(comparison.seeds, 'training seed', 'training seeds')}"
    )
    caption = (
        f"Interval and p: paired bootstrap over queries, {comparison.bootstrap_samples} resamples; seeds held fixed."
    )
    table = Table(title=title, caption=caption, box=_BOX, pad_edge=False)
    table.add_column("")
    for heading in _headings(comparison.ndcg_cutoff):
        table.add_column(heading, justify="right")
    differences = [comparison.metrics[name] for name in METRICS]
    table.add_row(escape(baseline), *(_mean_and_sd(each.baseline, each.baseline_sd) for each in differences))
    table.add_row(escape(treatment), *(_mean_and_sd(each.treatment, each.treatment_sd) for each in differences))
    table.add_section()
    table.add_row("difference", *(f"{each.difference:+.3f}" for each in differences))
    table.add_row(
        f"{100 * comparison.confidence:g}% interval",
        *("-" if each.interval is None else f"{each.interval[0]:+.3f} {each.interval[1]:+.3f}" for each in differences),
    )
    table.add_row("p", *("-" if each.p_value is None else f"{each.p_value:.3f}" for each in differences))
    table.add_row(
        "verdict",
        *(f"[{_VERDICT_STYLES[each.verdict]}]{each.verdict}[/]" for each in differences),
    )
    return table


def evaluation_table(students: Mapping[str, Sequence[Evaluation]]) -> Table:
    """Lay out the test figures of several methods, mean and standard deviation over training seeds.

    Args:
        students: For each method by name, the evaluation of every training seed.

    Returns:
        A table with a row for each method and one for the majority class.

    Raises:
        DataError: If there is no method, or a method without evaluations.
    """
    first = _first(students)
    test = first.test
    table = Table(
        box=_BOX,
        pad_edge=False,
        title=f"test: {_size(test.queries, test.pairs)}",
        caption="Mean and standard deviation over training seeds. ECE: lower is better; scaled: temperature from dev.",
    )
    table.add_column("")
    for heading in (*_headings(first.ndcg_cutoff), "ECE", "scaled"):
        table.add_column(heading, justify="right", min_width=len(heading))
    for name, evaluations in students.items():
        reports = [evaluation.test for evaluation in evaluations]
        scaled = [report.ece_calibrated for report in reports if report.ece_calibrated is not None]
        table.add_row(
            f"{escape(name)}, {_count(len(reports), 'seed', 'seeds')}",
            *(_over_seeds([getattr(report, metric) for report in reports]) for metric in METRICS),
            _over_seeds([report.ece for report in reports]),
            _over_seeds(scaled) if scaled else "-",
        )
    table.add_section()
    table.add_row("majority class", f"{test.majority_accuracy:.3f}")
    return table


def per_class_table(students: Mapping[str, Sequence[Evaluation]]) -> Table:
    """Lay out precision, recall and F1 of each class on test, the methods side by side.

    Args:
        students: For each method by name, the evaluation of every training seed.

    Returns:
        A table with a row for each label and a column for each method, means over training seeds.

    Raises:
        DataError: If there is no method, or a method without evaluations.
    """
    first = _first(students)
    table = Table(
        box=_BOX, pad_edge=False, title="test, by class", caption="Precision, recall and F1: means over training seeds."
    )
    table.add_column("")
    table.add_column("pairs", justify="right")
    for name in students:
        table.add_column(f"{escape(name)}\nprec.  rec.    F1", justify="right")
    for index, report in enumerate(first.test.classes):
        cells = []
        for evaluations in students.values():
            classes = [evaluation.test.classes[index] for evaluation in evaluations]
            means = (
                statistics.fmean(getattr(each, figure) for each in classes) for figure in ("precision", "recall", "f1")
            )
            cells.append(" ".join(f"{mean:.3f}" for mean in means))
        table.add_row(escape(report.label), str(report.support), *cells)
    return table


def _first(students: Mapping[str, Sequence[Evaluation]]) -> Evaluation:
    if not students or not all(students.values()):
        counts = {name: len(evaluations) for name, evaluations in students.items()}
        raise DataError(f"a table needs at least one evaluation of each method, got {counts}")
    return next(iter(students.values()))[0]


def _headings(cutoff: int) -> tuple[str, ...]:
    return ("accuracy", "macro-F1", f"nDCG@{cutoff}", "MRR")


def _over_seeds(values: Sequence[float]) -> str:
    return _mean_and_sd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _mean_and_sd(mean: float, sd: float | None) -> str:
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ±{sd:.3f}"


def _size(queries: int, pairs: int) -> str:
    return f"{_count(queries, 'query', 'queries')}, {_count(pairs, 'pair', 'pairs')}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
