"""The pipeline: which stages there are, what each reads and writes, and when it runs again.

    data ─► judge ─► curate ─► tune ─► annotate ─► embed ─► distil ─► evaluate

A stage is a plain function of the library; this file maps it to files in a run folder. ``tune`` and
``annotate`` run where the recipe asks for them. A stage whose fingerprint has not changed is skipped. The
fingerprint covers the stage's version, its sections of the recipe, the content of its input files, and the
fingerprints of the stages before it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.markup import escape

from manylens import inputs
from manylens.artefacts import judged_pairs, judgement_store_path, predictions_on_test, rationales_path
from manylens.config import Config
from manylens.data import Pairs, load_pairs, recorded_judgements
from manylens.errors import StageError, nearest
from manylens.evaluation import PREDICTION_SCHEMA, compare, evaluate
from manylens.preflight import check
from manylens.progress import Meter, console, meter
from manylens.recipe import Recipe, load_config
from manylens.run_folder import RunFolder, StudentPlace, fingerprint, write_json
from manylens.teacher import JudgementStore, build_backend, curate, judge, judgements_of, load_perspective
from manylens.teacher.judgements import read_judgements, write_judgements
from manylens.teacher.panel import panel_statistics

if TYPE_CHECKING:
    from manylens.student.predict import Student

#: Raised when a trained student changes its form or meaning.
_STUDENT_VERSION = 1
#: Pairs that a student scores at a time.
_PREDICT_ROWS = 1024


def _data(run: RunFolder, folder: Path) -> None:
    report = load_pairs(run.config.data, run.config.labels.build(), folder)
    write_json(folder / "report.json", asdict(report))


def _judge(run: RunFolder, folder: Path) -> None:
    config, scale, pairs = run.config, run.config.labels.build(), judged_pairs(run)
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    backend = build_backend(config.teacher, recorded_judgements(config.data))
    with JudgementStore(judgement_store_path(run)) as store:
        report = judge(pairs, perspectives, scale, backend, store, samples=config.judge.samples)
        current = judgements_of(pairs, perspectives, scale, backend, store, samples=config.judge.samples)
        write_judgements(folder / "judgements.parquet", current)
    write_json(folder / "report.json", asdict(report))


def _curate(run: RunFolder, folder: Path) -> None:
    config, scale, pairs = run.config, run.config.labels.build(), judged_pairs(run)
    judgements = run.path / "judge" / "judgements.parquet"
    curated = curate(pairs, read_judgements(judgements), scale, config.curate, config.seed)
    pq.write_table(curated.rationales, folder / "rationales.parquet")
    pq.write_table(curated.sft, folder / "sft.parquet")
    pq.write_table(curated.preferences, folder / "preferences.parquet")
    names = [load_perspective(name).name for name in config.judge.perspectives]
    write_json(folder / "report.json", asdict(curated.report))
    write_json(folder / "panel.json", asdict(panel_statistics(pairs, read_judgements(judgements), scale, names)))


def _tune(run: RunFolder, folder: Path) -> None:
    raise NotImplementedError


def _annotate(run: RunFolder, folder: Path) -> None:
    raise NotImplementedError


def _embed(run: RunFolder, folder: Path) -> None:
    from manylens.student.embed import RationaleEncoder
    from manylens.student.targets import build_targets

    config = run.config.embed
    # The cache goes by the encoder's name, so other weights under the same path need another cache.
    cache = folder / f"vectors-{fingerprint(config.encoder, inputs.embed(run.config))[:8]}.sqlite"
    table = pq.read_table(rationales_path(run))
    if config.use == "consistent":
        table = table.filter(pc.field("consistent"))
    columns = (table[name].to_pylist() for name in ("pair_id", "perspective", "rationale"))
    train = Pairs.read(run.path / "data" / "pairs.parquet").split("train")
    train_ids = {str(pair_id) for pair_id in train.table["pair_id"].to_pylist()}
    targets = build_targets(
        zip(*columns, strict=True),
        RationaleEncoder(config.encoder, cache, config.batch_size).embed,
        combine=config.target,
        perspectives=_in_order(table["perspective"], run.config.judge.perspectives),
        centre_on=frozenset(train_ids) if config.centre else frozenset(),
    )
    targets.save(folder)


def _distil(run: RunFolder, folder: Path) -> None:
    from manylens.student.methods import get_method
    from manylens.student.targets import Targets
    from manylens.student.train import train_student

    config, scale = run.config.student, run.config.labels.build()
    pairs = Pairs.read(run.path / "data" / "pairs.parquet")
    for student in run.students():
        guided = get_method(student.method).guide
        wanted = _student_fingerprint(run, student)
        if run.state(student.place, wanted) == "done":
            continue
        started = folder / student.name / "started"
        if started.parent.exists() and not (started.exists() and started.read_text(encoding="utf-8") == wanted):
            shutil.rmtree(started.parent)  # Checkpoints of another recipe must not be taken up again.
        with run.running(student.place, wanted) as place:
            started.write_text(wanted, encoding="utf-8")
            train_student(
                pairs.split("train"),
                pairs.split("dev"),
                scale,
                config,
                method=student.method,
                seed=student.seed,
                folder=place,
                targets=Targets.load(run.path / "embed") if guided else None,
            )


def _student_fingerprint(run: RunFolder, student: StudentPlace) -> str:
    """Cover what this one student depends on, so that a new extractor does not train the baselines again."""
    from manylens.student.methods import get_method

    guided = get_method(student.method).guide
    apart = {"method", "baselines", "seeds"} | (set() if guided else {"extractor", "extractor_options", "guide"})
    options = run.config.student.model_dump(mode="json", exclude=apart)
    upstream = run.done("embed" if guided else "data")
    assert upstream is not None  # Stages run in order.
    return fingerprint(
        "student", _STUDENT_VERSION, asdict(student), options, inputs.distil(run.config), upstream["fingerprint"]
    )


def _evaluate(run: RunFolder, folder: Path) -> None:
    from manylens.student.predict import Student

    config, scale = run.config, run.config.labels.build()
    pairs = Pairs.read(run.path / "data" / "pairs.parquet")
    for student in run.students():
        place = folder / student.name
        place.mkdir(exist_ok=True)
        model = Student.load(run.path / student.place)
        with meter(f"evaluate {student.name}", len(pairs.split("dev")) + len(pairs.split("test"))) as bar:
            dev, test = (_predictions(model, pairs.split(split), bar) for split in ("dev", "test"))
        pq.write_table(pa.concat_tables([dev, test]), place / "predictions.parquet")
        write_json(place / "evaluation.json", asdict(evaluate(dev, test, scale, config.evaluate, config.seed)))
    for baseline in config.student.baselines:
        sides = (predictions_on_test(run, config.student.method), predictions_on_test(run, baseline))
        comparison = compare(*sides, scale, config.evaluate, config.seed)
        write_json(folder / f"{config.student.method}-against-{baseline}.json", asdict(comparison))


def _predictions(student: Student, pairs: Pairs, bar: Meter) -> pa.Table:
    columns = [name for name in PREDICTION_SCHEMA.names if name != "logits"]
    batches = []
    for start in range(0, len(pairs), _PREDICT_ROWS):
        part = Pairs(pairs.table.slice(start, _PREDICT_ROWS))
        logits = pa.array(list(student.logits(list(part))), type=PREDICTION_SCHEMA.field("logits").type)
        batches.append(part.table.select(columns).append_column("logits", logits))
        bar.advance(len(part))
    return pa.concat_tables(batches).cast(PREDICTION_SCHEMA)


def _in_order(names: pa.ChunkedArray[pa.StringScalar], panel: Sequence[str]) -> list[str]:
    """Return the perspectives that rationales are of: the panel's in its order, then any others."""
    found = {str(name) for name in pc.unique(names).to_pylist()}
    known = [name for name in (load_perspective(perspective).name for perspective in panel) if name in found]
    return [*known, *sorted(found.difference(known))]


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
    Stage(name="data", version=1, sections=("data", "labels"), needs=(), run=_data, inputs=inputs.data),
    Stage(name="judge", version=2, sections=("teacher", "judge"), needs=("data",), run=_judge, inputs=inputs.judge),
    Stage(
        name="curate",
        version=2,
        sections=("curate", "seed"),
        needs=("data", "judge"),
        run=_curate,
        inputs=inputs.curate,
    ),
    Stage(
        name="tune",
        version=1,
        sections=("tune", "seed"),
        needs=("data", "curate"),
        run=_tune,
        inputs=inputs.tune,
        active=lambda config: config.tune is not None,
    ),
    Stage(
        name="annotate",
        version=1,
        sections=("annotate",),
        needs=("data", "judge", "curate", "tune"),
        run=_annotate,
        active=lambda config: config.annotates,
    ),
    Stage(
        name="embed",
        version=1,
        sections=("embed",),
        needs=("data", "curate", "annotate"),
        run=_embed,
        inputs=inputs.embed,
    ),
    Stage(name="distil", version=1, sections=("student",), needs=("data", "embed"), run=_distil, inputs=inputs.distil),
    Stage(name="evaluate", version=1, sections=("evaluate", "seed"), needs=("data", "distil"), run=_evaluate),
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
    tree = config.substance()
    for stage in stages_of(config):
        sections = {name: tree[name] for name in stage.sections}
        upstream = [found[name] for name in stage.needs if name in found]
        found[stage.name] = fingerprint(stage.name, stage.version, sections, stage.inputs(config), upstream)
        if stage.name == until:
            break
    return found


def load_or_read_pairs(config: Config, folder: str | Path | None = None) -> Pairs:
    """Return a recipe's pairs: its run's where they are current, else loaded for this once; nothing is kept.

    Args:
        config: The recipe.
        folder: The run folder; ``runs/NAME`` by default.

    Raises:
        DataError: If the data cannot be loaded.
    """
    run_folder = _run_folder(config, folder)
    if run_folder.state("data", fingerprints(config, until="data")["data"]) == "done":
        return Pairs.read(run_folder.path / "data" / "pairs.parquet")
    with tempfile.TemporaryDirectory() as temporary:
        load_pairs(config.data, config.labels.build(), Path(temporary))
        return Pairs.read(Path(temporary) / "pairs.parquet")


def _run_folder(config: Config, folder: str | Path | None) -> RunFolder:
    return RunFolder(folder or Path("runs") / config.name, config)


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
    stages = stages_of(config)
    names = [stage.name for stage in stages]
    if until is not None and until not in names:
        off = f"this recipe leaves out stage {until!r}" if until in {stage.name for stage in STAGES} else ""
        raise StageError(f"{off or f'unknown stage {until!r}{nearest(until, names)}'}; its stages: {', '.join(names)}")
    check(config)
    run_folder = _run_folder(config, folder)
    with run_folder.locked():
        wanted = fingerprints(config)
        run_folder.start(wanted)
        for index, stage in enumerate(stages[: names.index(until) + 1 if until else None]):
            if run_folder.state(stage.name, wanted[stage.name]) == "done":
                console.print(f"[dim]{stage.name}: current, skipped[/]")
                continue
            console.print(f"[bold]{stage.name}[/] ─► {escape(str(run_folder.path))}/{stage.name}", soft_wrap=True)
            run_folder.unmark(names[index:])  # What follows was made of what is about to be replaced.
            with run_folder.running(stage.name, wanted[stage.name]) as place:
                stage.run(run_folder, place)
    return run_folder
