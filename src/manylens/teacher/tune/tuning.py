"""Tuning the teacher: supervised fine-tuning on right rationales, then preference optimisation on conflicts.

    folder/
      base.parquet                   judgements of the untuned model on dev pairs
      judgements.sqlite              every answer that was given for measuring
      report.json                    `TuneReport`
      <teacher>/model                the tuned teacher: a plain Hugging Face folder
      <teacher>/<phase>/model        the teacher after the phase
      <teacher>/<phase>/trained      the LoRA adapter, and TRL's log in training.json
      <teacher>/<phase>/dev.parquet  its judgements on dev pairs
      <teacher>/<phase>/done.json    the phase's fingerprint, written last

A phase whose fingerprint is current is not trained again; one that was killed goes on from its last
checkpoint. The method is that of Thinking Broad, Acting Fast (arXiv 2601.21611).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from manylens.config import TransformersTeacher, TuneConfig, VllmTeacher
from manylens.errors import TeacherError
from manylens.files import write_json
from manylens.progress import console
from manylens.records import LabelScale, Pair, Perspective
from manylens.teacher.backends import Backend, build_backend
from manylens.teacher.store import JudgementStore
from manylens.teacher.tune.hardware import release_memory
from manylens.teacher.tune.measure import Measure, average, measure, sample_pairs, score
from manylens.teacher.tune.merge import publish
from manylens.teacher.tune.options import Phase, check_tuning, phases_of
from manylens.teacher.tune.phase import PhaseReport, prepare, train_phase

#: The only teacher where perspectives are pooled.
UNIFIED = "unified"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedPhase:
    """What a phase did to one teacher.

    Attributes:
        training: The training.
        dev: The teacher on dev pairs after the phase; ``None`` where there are none.
    """

    training: PhaseReport
    dev: Measure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneReport:
    """What tuning came to.

    Attributes:
        model: The model that was tuned.
        base: The model on dev pairs before any tuning; ``None`` where there are none.
        teachers: The phases of each teacher, in order, by the teacher's name.
        ensemble: With one teacher a perspective: their averaged labels on dev pairs, after each phase.
    """

    model: str
    base: Measure | None
    teachers: Mapping[str, Mapping[Phase, TunedPhase]]
    ensemble: Mapping[Phase, Measure]


def tune(
    config: TuneConfig,
    *,
    model: str,
    sft: pa.Table,
    preferences: pa.Table,
    dev: Iterable[Pair],
    scale: LabelScale,
    prompt: Perspective,
    folder: Path,
    seed: int,
) -> TuneReport:
    """Tune one teacher, or one a perspective, and measure it on dev pairs before and after each phase.

    Args:
        config: Phases, adapter, options of TRL and PEFT, and how answers are generated.
        model: The model to tune, by id or path.
        sft: Rows of `rows.SFT_SCHEMA`.
        preferences: Rows of `rows.PREFERENCE_SCHEMA`.
        dev: Pairs to measure on; those without a gold label are left out.
        scale: The labels.
        prompt: The prompt that the rows were made with, and under which the teacher is measured.
        folder: Where models, answers and the report go.
        seed: Of training, and of the choice of dev pairs.

    Returns:
        The report, also written to ``report.json``.

    Raises:
        ConfigError: If `options.check_tuning` finds something wrong.
        TeacherError: If there is nothing to train on, a row is too long, the chat template does not fit, or a
            training process failed.
        MissingExtraError: If the extra is not installed.
    """
    check_tuning(config, model)
    folder.mkdir(parents=True, exist_ok=True)
    # Everything that can be wrong with the rows is found before the first training.
    rows = {
        name: [
            prepare(config, phase, table, model=model, folder=folder / name, seed=seed)
            for phase, table in _rows_of(config, name, sft, preferences)
        ]
        for name in _teachers(config, sft)
    }
    pairs = sample_pairs(dev, config.measure_pairs, seed)
    teachers: dict[str, dict[Phase, TunedPhase]] = {}
    labels: dict[Phase, list[list[str | None]]] = {}
    with JudgementStore(folder / "judgements.sqlite") as store:

        def measured(place: str | Path, predictions: Path) -> tuple[Measure, list[str | None]] | tuple[None, None]:
            if not pairs:
                return None, None
            console.print(f"measure {place} on {len(pairs):,} dev pairs", soft_wrap=True, markup=False)
            try:
                return measure(_backend(config, place), pairs, scale, prompt, store, predictions)
            finally:
                release_memory()  # What trains next needs it.

        base, _ = measured(model, folder / "base.parquet")
        for name, phases in rows.items():
            teachers[name] = {}
            current = model
            for prepared in phases:
                training = train_phase(prepared, current)
                current = str(prepared.folder / "model")
                figures, predicted = measured(current, prepared.folder / "dev.parquet")
                teachers[name][prepared.phase] = TunedPhase(training=training, dev=figures)
                if predicted is not None:
                    labels.setdefault(prepared.phase, []).append(predicted)
            publish(Path(current), folder / name / "model")
    gold = [pair.label for pair in pairs]
    ensemble = {
        phase: score(gold, average(members), scale)
        for phase, members in labels.items()
        if config.teachers == "per_perspective"
    }
    report = TuneReport(model=model, base=base, teachers=teachers, ensemble=ensemble)
    write_json(folder / "report.json", asdict(report))
    if base is not None:
        console.print(tune_table(report))
    return report


def tuned_backends(config: TuneConfig, folder: Path) -> dict[str, Backend]:
    """Return the tuned teachers as backends, by name.

    Args:
        config: As it was given to `tune`.
        folder: As it was given to `tune`.

    Raises:
        TeacherError: If `tune` has not come to its end there.
    """
    try:
        names = json.loads((folder / "report.json").read_text(encoding="utf-8"))["teachers"]
    except OSError as error:
        raise TeacherError(f"{folder}: expected the report of a finished tuning: {error}; run it first") from error
    return {name: _backend(config, folder / name / "model") for name in names}


def tune_table(report: TuneReport) -> Table:
    """Draw what tuning came to: a row for the base and for each teacher after each phase."""
    table = Table("teacher", "after", *(("rows", "steps", "accuracy", "macro-F1", "no label")), title="Tuned teachers")
    for column in table.columns[2:]:
        column.justify = "right"

    def row(name: str, after: str, training: PhaseReport | None, dev: Measure | None) -> None:
        rows, steps = ("", "") if training is None else (f"{training.rows:,}", f"{training.steps:,}")
        figures = () if dev is None else (dev.accuracy, dev.macro_f1, dev.unparsed)
        table.add_row(name, after, rows, steps, *(f"{100 * figure:.1f}" for figure in figures))

    row(Path(report.model).name, "", None, report.base)
    for name, phases in report.teachers.items():
        for phase, tuned in phases.items():
            row(name, phase, tuned.training, tuned.dev)
    for phase, dev in report.ensemble.items():
        row("ensemble", phase, None, dev)
    return table


def _teachers(config: TuneConfig, sft: pa.Table) -> list[str]:
    if config.teachers == "unified":
        return [UNIFIED]
    return [str(name) for name in sft["perspective"].unique().to_pylist()]


def _rows_of(config: TuneConfig, name: str, sft: pa.Table, preferences: pa.Table) -> Iterator[tuple[Phase, pa.Table]]:
    for phase, _ in phases_of(config):
        table, column = (sft, "perspective") if phase == "sft" else (preferences, "chosen_perspective")
        yield phase, table if config.teachers == "unified" else table.filter(pc.field(column) == name)


def _backend(config: TuneConfig, model: str | Path) -> Backend:
    options: dict[str, Any] = {**config.generate.model_dump(), "model": str(model)}
    section = TransformersTeacher if config.generate.backend == "transformers" else VllmTeacher
    return build_backend(section(**options))
