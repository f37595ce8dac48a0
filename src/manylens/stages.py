"""What each stage does: the library's functions, mapped to files in a run folder.

A function gets the run and the stage's folder. `manylens.pipeline` has the table that orders them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from manylens import inputs
from manylens.artefacts import judged_pairs, judgement_store_path, predictions_on_test, rationales_path
from manylens.config import TUNED_TEACHER, Config
from manylens.data import Pairs, load_pairs, recorded_judgements
from manylens.evaluation import PREDICTION_SCHEMA, Evaluation, compare, evaluate
from manylens.files import write_json
from manylens.progress import Meter, meter
from manylens.run_folder import RunFolder, StudentPlace, fingerprint
from manylens.teacher import JudgementStore, build_backend, curate, judge, judgements_of, load_perspective
from manylens.teacher.annotate import annotate, rationalize
from manylens.teacher.backends import Backend
from manylens.teacher.judgements import read_judgements, write_judgements
from manylens.teacher.panel import panel_statistics
from manylens.teacher.questions import attempts_of, requests_of
from manylens.teacher.spending import UNPRICED, Budget, Tokens, left_of, price_of, tokens_of
from manylens.teacher.tune import tune, tuned_backends
from manylens.teacher.tune.tuning import UNIFIED

if TYPE_CHECKING:
    from manylens.student.predict import Student

#: Raised when a trained student changes its form or meaning.
_STUDENT_VERSION = 2
#: Pairs that a student scores at a time.
_PREDICT_ROWS = 1024


def data_stage(run: RunFolder, folder: Path) -> None:
    """Load, check and split the pairs."""
    report = load_pairs(run.config.data, run.config.labels.build(), folder)
    write_json(folder / "report.json", asdict(report))


def judge_stage(run: RunFolder, folder: Path) -> None:
    """Ask the teacher, and write down the judgements that this recipe is about."""
    config, scale, pairs = run.config, run.config.labels.build(), judged_pairs(run)
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    backend = build_backend(config.teacher, recorded_judgements(config.data))
    asked = {"samples": config.judge.samples, "retry_unparsed": config.judge.retry_unparsed}
    budget = Budget.parse(config.judge.budget) if config.judge.budget else None
    price = price_of(config.teacher)
    with JudgementStore(judgement_store_path(run)) as store:
        report = judge(pairs, perspectives, scale, backend, store, **asked, budget=budget, price=price)
        current = judgements_of(pairs, perspectives, scale, backend, store, **asked)
        write_judgements(folder / "judgements.parquet", current)
    write_json(folder / "report.json", asdict(report))


def curate_stage(run: RunFolder, folder: Path) -> None:
    """Filter the judgements, make tuning rows of them, and measure the panel."""
    config, scale, pairs = run.config, run.config.labels.build(), judged_pairs(run)
    judgements = run.path / "judge" / "judgements.parquet"
    curated = curate(pairs, read_judgements(judgements), scale, config.curate, config.seed)
    pq.write_table(curated.rationales, folder / "rationales.parquet")
    pq.write_table(curated.sft, folder / "sft.parquet")
    pq.write_table(curated.preferences, folder / "preferences.parquet")
    names = [load_perspective(name).name for name in config.judge.perspectives]
    write_json(folder / "report.json", asdict(curated.report))
    write_json(folder / "panel.json", asdict(panel_statistics(pairs, read_judgements(judgements), scale, names)))


def tune_stage(run: RunFolder, folder: Path) -> None:
    """Tune the teacher, and measure it on dev pairs."""
    config, curated = run.config, run.path / "curate"
    assert config.tune is not None and config.tuned_model is not None  # The stage only runs then.
    tune(
        config.tune,
        model=config.tuned_model,
        sft=pq.read_table(curated / "sft.parquet"),
        preferences=pq.read_table(curated / "preferences.parquet"),
        dev=Pairs.read(run.path / "data" / "pairs.parquet").split("dev"),
        scale=config.labels.build(),
        prompt=load_perspective(config.curate.prompt),
        folder=folder,
        seed=config.seed,
    )


def annotate_stage(run: RunFolder, folder: Path) -> None:
    """Have the tuned teacher judge, and rationalise where no judgement reached the gold label."""
    config, scale = run.config, run.config.labels.build()
    pairs = Pairs.read(run.path / "data" / "pairs.parquet")
    rationales = pq.read_table(run.path / "curate" / "rationales.parquet")
    reports = {}
    with JudgementStore(judgement_store_path(run)) as store:
        if config.tune is None:
            backend = build_backend(config.teacher, recorded_judgements(config.data))
        else:
            members = tuned_backends(config.tune, run.path / "tune")
            backend = next(iter(members.values()))
            wanted = pairs.split(*config.annotate.splits)
            prompt = load_perspective(config.curate.prompt)
            annotated = annotate(wanted, scale, prompt, members, store, config.annotate)
            rationales, reports = annotated.rationales, dict(annotated.reports)
        if config.annotate.rationalize:
            priced = config.tune is None  # A tuned teacher is a model of one's own.
            budget = _what_is_left(run, backend, store) if priced else None
            price = price_of(config.teacher) if priced else UNPRICED
            train = pairs.split("train")
            annotated = rationalize(train, rationales, scale, backend, store, budget=budget, price=price)
            rationales = pa.concat_tables([rationales, annotated.rationales])
            reports |= annotated.reports
    pq.write_table(rationales, folder / "rationales.parquet")
    write_json(folder / "report.json", {name: asdict(report) for name, report in reports.items()})


def _what_is_left(run: RunFolder, backend: Backend, store: JudgementStore) -> Budget | None:
    """Return what the judgements of this recipe have left of its budget."""
    config = run.config
    if config.judge.budget is None:
        return None
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    scale, form = config.labels.build(), backend.answer_format
    spent = Tokens()
    for request in requests_of(judged_pairs(run), perspectives, scale, config.judge.samples, answer_format=form):
        for judgement in attempts_of(request, backend, scale, store, config.judge.retry_unparsed):
            spent += tokens_of(request, judgement)
    return left_of(Budget.parse(config.judge.budget), spent, price_of(config.teacher))


def embed_stage(run: RunFolder, folder: Path) -> None:
    """Turn the rationales into target vectors."""
    from manylens.student.embedding import embed_rationales

    config, encoder, weights = run.config, run.config.embed.encoder, inputs.embed(run.config)
    if encoder == TUNED_TEACHER:
        encoder, tuned = str(run.path / "tune" / UNIFIED / "model"), run.done("tune")
        assert tuned is not None  # Stages run in order.
        weights = [tuned["fingerprint"]]
    targets, report = embed_rationales(
        pq.read_table(rationales_path(run)),
        Pairs.read(run.path / "data" / "pairs.parquet"),
        config.labels.build(),
        config.embed,
        encoder=encoder,
        cache_key=fingerprint(encoder, weights)[:8],
        panel=[load_perspective(name).name for name in config.judge.perspectives],
        seed=config.seed,
        folder=folder,
    )
    targets.save(folder)
    write_json(folder / "report.json", asdict(report))


def distil_stage(run: RunFolder, folder: Path) -> None:
    """Train every student that is not current."""
    from manylens.student.methods import get_method
    from manylens.student.targets import Targets
    from manylens.student.train import train_student

    config, scale = run.config.student, run.config.labels.build()
    pairs = Pairs.read(run.path / "data" / "pairs.parquet")
    upstream = {name: done["fingerprint"] for name in ("data", "embed") if (done := run.done(name)) is not None}
    for student in run.students():
        wanted = student_fingerprint(run.config, student, upstream)
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
                targets=Targets.load(run.path / "embed") if get_method(student.method).reads_targets else None,
            )


def student_fingerprint(config: Config, student: StudentPlace, upstream: Mapping[str, str]) -> str:
    """Cover what one student depends on, so that a new extractor does not train the baselines again.

    Args:
        config: The recipe.
        student: One of its students.
        upstream: The fingerprints of the stages data and embed.
    """
    from manylens.student.methods import get_method

    how = get_method(student.method)
    apart = {"method", "baselines", "seeds"} | ({"guide", "earlier"} - how.sections)
    if not how.extractor:
        apart |= {"extractor", "extractor_options"}
    options = {name: value for name, value in config.student.substance().items() if name not in apart}
    before = upstream["embed" if how.reads_targets else "data"]
    return fingerprint("student", _STUDENT_VERSION, asdict(student), options, inputs.distil(config), before)


def evaluate_stage(run: RunFolder, folder: Path) -> None:
    """Measure the students, and compare them with their baselines."""
    from manylens.student.predict import Student

    config, scale = run.config, run.config.labels.build()
    pairs = Pairs.read(run.path / "data" / "pairs.parquet")
    for student in run.students():
        place = folder / student.name
        place.mkdir(exist_ok=True)
        model = Student.load(run.path / student.place)
        with meter(f"evaluate {student.name}", len(pairs.split("dev")) + len(pairs.split("test"))) as bar:
            dev, test = (predictions_of(model, pairs.split(split), bar) for split in ("dev", "test"))
        pq.write_table(pa.concat_tables([dev, test]), place / "predictions.parquet")
        write_json(place / "evaluation.json", asdict(evaluate(dev, test, scale, config.evaluate, config.seed)))
    for baseline in config.student.baselines:
        sides = (predictions_on_test(run, config.student.method), predictions_on_test(run, baseline))
        comparison = compare(*sides, scale, config.evaluate, config.seed)
        write_json(folder / f"{config.student.method}-against-{baseline}.json", asdict(comparison))


def export_stage(run: RunFolder, folder: Path) -> None:
    """Export the wanted method's first student, calibrated, compared with PyTorch on dev, and its rationales."""
    from manylens.serving.export import export_student
    from manylens.serving.indexing import has_rationales, write_rationales
    from manylens.student.predict import Student
    from manylens.student.targets import Targets

    config, student = run.config, run.students()[0]
    assert config.export is not None  # The stage only runs then.
    pairs = Pairs.read(run.path / "data" / "pairs.parquet")
    text = (run.path / "evaluate" / student.name / "evaluation.json").read_text(encoding="utf-8")
    temperature = TypeAdapter(Evaluation).validate_json(text).temperature
    model = Student.load(run.path / student.place, device="cpu")
    export_student(
        model,
        pairs.split("train"),
        pairs.split("dev"),
        config.labels.build(),
        config.export,
        name=student.name,
        temperature=1.0 if temperature is None else temperature,
        ndcg_cutoff=config.evaluate.ndcg_cutoff,
        seed=config.seed,
        folder=folder,
    )
    if has_rationales(model, student.method, config.embed):
        write_rationales(
            model,
            pairs,
            Targets.load(run.path / "embed"),
            pq.read_table(rationales_path(run)),
            config.embed,
            name=student.name,
            seed=config.seed,
            folder=folder,
        )


def predictions_of(student: Student, pairs: Pairs, bar: Meter, *, zero_latents: bool = False) -> pa.Table:
    """Return a student's predictions in `PREDICTION_SCHEMA`, made a part of the pairs at a time.

    Args:
        student: The student.
        pairs: The pairs.
        bar: Advanced by every pair.
        zero_latents: Give the head zeros for the latents.
    """
    columns = [name for name in PREDICTION_SCHEMA.names if name != "logits"]
    batches = []
    for start in range(0, len(pairs), _PREDICT_ROWS):
        part = Pairs(pairs.table.slice(start, _PREDICT_ROWS))
        logits = pa.array(
            list(student.logits(list(part), zero_latents=zero_latents)), type=PREDICTION_SCHEMA.field("logits").type
        )
        batches.append(part.table.select(columns).append_column("logits", logits))
        bar.advance(len(part))
    return pa.concat_tables(batches).cast(PREDICTION_SCHEMA)
