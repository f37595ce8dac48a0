"""Reading a finished run: its students' figures, its comparisons, and the tables that show them."""

from __future__ import annotations

from datetime import datetime

from pydantic import TypeAdapter
from rich.markup import escape
from rich.table import Table

from manylens.artefacts import predictions_on_test
from manylens.evaluation import (
    Comparison,
    Evaluation,
    compare,
    comparison_table,
    evaluation_table,
    per_class_table,
)
from manylens.pipeline import fingerprints
from manylens.run_folder import RunFolder
from manylens.serving.layout import PARITY
from manylens.teacher.panel import PanelStatistics, panel_table
from manylens.teacher.tune import TuneReport, tune_table


def evaluations(run: RunFolder) -> dict[str, list[Evaluation]]:
    """Return the evaluation of every student, by method and in the order of the seeds.

    Raises:
        StageError: If the run did not come to its end.
    """
    run.require("evaluate")
    found: dict[str, list[Evaluation]] = {}
    for student in run.students():
        text = (run.path / "evaluate" / student.name / "evaluation.json").read_text(encoding="utf-8")
        found.setdefault(student.method, []).append(TypeAdapter(Evaluation).validate_json(text))
    return found


def result_tables(run: RunFolder) -> list[Table]:
    """Return the tables of a finished run: the teacher's panel and tuning, the students, their classes, comparisons.

    Raises:
        StageError: If the run did not come to its end.
    """
    config = run.config
    titled = {_title(run, method): found for method, found in evaluations(run).items()}
    panel = TypeAdapter(PanelStatistics).validate_json((run.path / "curate" / "panel.json").read_text(encoding="utf-8"))
    tables = [panel_table(panel, config.labels.build()), *_tuned(run)]
    tables += [evaluation_table(titled), per_class_table(titled)]
    for baseline in config.student.baselines:
        place = run.path / "evaluate" / f"{config.student.method}-against-{baseline}.json"
        comparison = TypeAdapter(Comparison).validate_json(place.read_text(encoding="utf-8"))
        names = {"treatment": _title(run, config.student.method), "baseline": _title(run, baseline)}
        tables.append(comparison_table(comparison, **names))
    return tables if config.export is None else [*tables, parity_of(run)]


def parity_of(run: RunFolder) -> Table:
    """Return the table of an export's figures against PyTorch.

    Raises:
        StageError: If the run's recipe exports nothing, or the export did not come to its end.
    """
    from manylens.serving.parity import Parity, parity_table

    run.require("export")
    return parity_table(TypeAdapter(Parity).validate_json((run.path / "export" / PARITY).read_bytes()))


def compare_runs(treatment: RunFolder, baseline: RunFolder) -> Comparison:
    """Compare the wanted students of two runs on their common test pairs.

    Raises:
        StageError: If a run did not come to its end.
        DataError: If the runs do not have the same test pairs and labels, or as many seeds.
    """
    for run in (treatment, baseline):
        run.require("evaluate")
    config = treatment.config
    return compare(
        predictions_on_test(treatment, config.student.method),
        predictions_on_test(baseline, baseline.config.student.method),
        config.labels.build(),
        config.evaluate,
        config.seed,
    )


def status_table(run: RunFolder) -> Table:
    """Return a table of the stages: whether each is current, when it ended, what it took, where it lies.

    Raises:
        ManylensError: If the recipe's files are not there any more.
    """
    wanted = fingerprints(run.config)
    table = Table(title=escape(str(run.path)), title_justify="left")
    for heading in ("stage", "state", "finished", "seconds", "peak MiB", "output"):
        table.add_column(heading, justify="right" if heading in ("seconds", "peak MiB") else "left")
    colours = {"done": "green", "stale": "yellow", "to do": "dim"}
    for name, fingerprint in wanted.items():
        state, done = run.state(name, fingerprint), run.done(name)
        cells = ["", "", ""]
        if done is not None:
            finished = datetime.fromisoformat(done["finished"]).astimezone()
            cells = [f"{finished:%Y-%m-%d %H:%M:%S}", f"{done['seconds']:.1f}", f"{done['peak_memory_mib']:.0f}"]
        table.add_row(name, f"[{colours[state]}]{state}[/]", *cells, f"{name}/" if done else "")
    return table


def _tuned(run: RunFolder) -> list[Table]:
    """Return what tuning the teacher came to, where it was tuned."""
    if run.config.tune is None:
        return []
    text = (run.path / "tune" / "report.json").read_text(encoding="utf-8")
    return [tune_table(TypeAdapter(TuneReport).validate_json(text))]


def _title(run: RunFolder, method: str) -> str:
    from manylens.student.methods import get_method

    how = get_method(method)
    return f"{how.title} ({run.config.student.extractor})" if how.extractor else how.title
