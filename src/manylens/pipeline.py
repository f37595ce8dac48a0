"""The pipeline: which stages there are, what each reads and writes, and when it runs again.

    data ─► judge ─► curate ─► tune ─► annotate ─► embed ─► distil ─► evaluate ─► export

What a stage does stands in `manylens.stages`; this file says in which order and when. ``tune``, ``annotate``
and ``export`` run where the recipe asks for them. A stage whose fingerprint has not changed is skipped. The
fingerprint covers the stage's version, its sections of the recipe, the content of its input files, and the
fingerprints of the stages before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from manylens import inputs, stages
from manylens.config import Config
from manylens.data import Pairs, load_pairs
from manylens.errors import ConfigError, StageError, nearest
from manylens.preflight import check, check_export
from manylens.progress import console
from manylens.recipe import Recipe, load_config
from manylens.run_folder import RunFolder, fingerprint


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A step of the pipeline.

    Attributes:
        name: Its name, and its folder's.
        version: Raised when its outputs change their form or meaning.
        sections: Fields of the recipe that it reads.
        needs: Stages whose outputs it reads, where they run.
        run: Does the work: gets the run and the stage's folder.
        inputs: What it reads from outside the run folder, as hashes or texts.
        active: Whether a recipe asks for it.
    """

    name: str
    version: int
    sections: tuple[str, ...]
    needs: tuple[str, ...]
    run: Callable[[RunFolder, Path], None]
    inputs: Callable[[Config], list[str]] = inputs.none
    active: Callable[[Config], bool] = lambda config: True


STAGES: tuple[Stage, ...] = (
    Stage(
        name="data",
        version=1,
        sections=("data", "labels"),
        needs=(),
        run=stages.data_stage,
        inputs=inputs.data,
    ),
    Stage(
        name="judge",
        version=2,
        sections=("teacher", "judge"),
        needs=("data",),
        run=stages.judge_stage,
        inputs=inputs.judge,
    ),
    Stage(
        name="curate",
        version=3,
        sections=("curate", "seed"),
        needs=("data", "judge"),
        run=stages.curate_stage,
        inputs=inputs.curate,
    ),
    Stage(
        name="tune",
        version=1,
        sections=("tune", "seed"),
        needs=("data", "curate"),
        run=stages.tune_stage,
        inputs=inputs.tune,
        active=lambda config: config.tune is not None,
    ),
    Stage(
        name="annotate",
        version=1,
        sections=("annotate",),
        needs=("data", "judge", "curate", "tune"),
        run=stages.annotate_stage,
        inputs=inputs.annotate,
        active=lambda config: config.annotates,
    ),
    Stage(
        name="embed",
        version=2,
        sections=("embed", "seed"),
        needs=("data", "curate", "tune", "annotate"),
        run=stages.embed_stage,
        inputs=inputs.embed,
    ),
    Stage(
        name="distil",
        version=1,
        sections=("student",),
        needs=("data", "embed"),
        run=stages.distil_stage,
        inputs=inputs.distil,
    ),
    Stage(
        name="evaluate", version=1, sections=("evaluate", "seed"), needs=("data", "distil"), run=stages.evaluate_stage
    ),
    Stage(
        name="export",
        version=1,
        sections=("export", "seed"),
        needs=("data", "distil", "evaluate"),
        run=stages.export_stage,
        active=lambda config: config.export is not None,
    ),
)


def stages_of(config: Config) -> list[Stage]:
    """Return the stages that a recipe asks for, in order."""
    return [stage for stage in STAGES if stage.active(config)]


def fingerprints(config: Config, until: str | None = None) -> dict[str, str]:
    """Return the fingerprint that each stage must have to be current.

    Args:
        config: The recipe.
        until: The last stage that is asked for; all by default.

    Raises:
        ManylensError: If an input file or a template is missing.
    """
    found: dict[str, str] = {}
    for stage in stages_of(config):
        found[stage.name] = _fingerprint(stage, config, [found[name] for name in stage.needs if name in found])
        if stage.name == until:
            break
    return found


def _fingerprint(stage: Stage, config: Config, upstream: Sequence[str]) -> str:
    tree = config.substance()
    sections = {name: tree[name] for name in stage.sections}
    return fingerprint(stage.name, stage.version, sections, stage.inputs(config), upstream)


def load_or_read_pairs(config: Config, folder: str | Path | None = None) -> Pairs:
    """Return a recipe's pairs: its run's where they are current, else loaded for this once; nothing is kept.

    Args:
        config: The recipe.
        folder: The run folder; ``runs/NAME`` by default.

    Raises:
        DataError: If the data cannot be loaded.
    """
    run_folder = RunFolder.of(config, folder)
    if run_folder.state("data", fingerprints(config, until="data")["data"]) == "done":
        return Pairs.read(run_folder.path / "data" / "pairs.parquet")
    with tempfile.TemporaryDirectory() as temporary:
        load_pairs(config.data, config.labels.build(), Path(temporary))
        return Pairs.read(Path(temporary) / "pairs.parquet")


def run(
    recipe: Recipe, overrides: Sequence[str] = (), *, folder: str | Path | None = None, until: str | None = None
) -> RunFolder:
    """Run a recipe: every stage that is not current, in order.

    Args:
        recipe: A YAML file, the name of a packaged recipe, a mapping, or a `Config`.
        overrides: ``"path.to.key=value"``.
        folder: The run folder; ``runs/NAME`` by default.
        until: The last stage to run; all by default.

    Returns:
        The run folder.

    Raises:
        ManylensError: Whatever the recipe, the data or a stage has to say.
    """
    config = load_config(recipe, overrides)
    asked = stages_of(config)
    names = [stage.name for stage in asked]
    if until is not None and until not in names:
        off = f"this recipe leaves out stage {until!r}" if until in {stage.name for stage in STAGES} else ""
        raise StageError(f"{off or f'unknown stage {until!r}{nearest(until, names)}'}; its stages: {', '.join(names)}")
    check(config)
    run_folder = RunFolder.of(config, folder)
    with run_folder.locked():
        wanted = fingerprints(config)
        run_folder.start(wanted)
        for stage in asked[: names.index(until) + 1 if until else None]:
            if run_folder.state(stage.name, wanted[stage.name]) == "done":
                console.print(f"[dim]{stage.name}: current, skipped[/]")
                continue
            # What follows, asked for or not, was made of what is about to be replaced.
            run_folder.unmark(later.name for later in STAGES[STAGES.index(stage) :])
            _run_stage(stage, run_folder, wanted[stage.name])
    return run_folder


def export(folder: str | Path, overrides: Sequence[str] = ()) -> RunFolder:
    """Export the student of a finished run; no other stage runs, and none of their input files is read.

    Args:
        folder: The run folder.
        overrides: ``"export.key=value"``.

    Returns:
        The run folder, its recipe with the section ``export``.

    Raises:
        StageError: If the run did not come to its end.
        ConfigError: If an override is wrong, or of another section.
        StudentError: If a variant is too far from PyTorch.
        MissingExtraError: If an extra is not installed.
    """
    run_folder = RunFolder.open(folder)
    tree = run_folder.config.model_dump(mode="json")
    config = load_config({**tree, "export": tree["export"] or {}}, overrides)
    if strange := [override for override in overrides if not override.startswith("export.")]:
        raise ConfigError(
            f"an export takes settings of its own section alone, such as export.calibration_pairs=500, "
            f"got {', '.join(strange)}; for another: manylens run {run_folder.path / 'config.yaml'} --set ..."
        )
    run_folder.require("evaluate")
    check_export(config)
    run_folder = RunFolder(folder, config)
    with run_folder.locked():
        stage = STAGES[-1]
        before = [done["fingerprint"] for name in stage.needs if (done := run_folder.done(name)) is not None]
        wanted = _fingerprint(stage, config, before)
        run_folder.start(run_folder.record()["wanted"] | {stage.name: wanted})
        if run_folder.state(stage.name, wanted) == "done":
            console.print(f"[dim]{stage.name}: current, skipped[/]")
        else:
            _run_stage(stage, run_folder, wanted)
    return run_folder


def _run_stage(stage: Stage, run_folder: RunFolder, wanted: str) -> None:
    console.print(f"[bold]{stage.name}[/] ─► {escape(str(run_folder.path))}/{stage.name}", soft_wrap=True)
    with run_folder.running(stage.name, wanted) as place:
        stage.run(run_folder, place)
