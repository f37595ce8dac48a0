"""The latency of a study's arms, timed in turns on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from manylens.evaluation.latency import latencies
from manylens.study.arms import Arm, Study
from manylens.study.job import Job, Places
from manylens.study.measures.lines import Measured, upstream_pairs
from manylens.study.rows import Row, figure_row

if TYPE_CHECKING:
    from manylens.student.predict import Student


def measure_latency(study: Study, jobs: Mapping[str, Sequence[Job]], places: Places) -> Measured:
    """Time every arm on requests made of test pairs, single-threaded.

    Arms of the same shape, which differ in weights alone, are timed once, and on new weights: latency does not depend
    on what was learnt. Metrics, for the slice ``products=K``: ``latency_ms``, the median with tokenisation,
    ``latency_p95_ms``, and ``latency_ratio``, the model's time over that of the study's first arm.
    """
    first = jobs[study.arms[0].name][0]
    shapes = {arm.name: _shape(jobs[arm.name][0], places) for arm in study.arms}
    distinct = {shape: name for name, shape in reversed(shapes.items())}
    students = {
        name: _student(jobs[name][0], places) for name in (distinct[shape] for shape in dict.fromkeys(shapes.values()))
    }
    pairs = list(upstream_pairs(first, places).split("test"))
    found = {(each.student, each.products): each for each in latencies(students, pairs)}
    measured = Measured()
    for arm in study.arms:
        for (name, products), timed in found.items():
            if name == distinct[shapes[arm.name]]:
                figures = {"latency_ms": timed.p50, "latency_p95_ms": timed.p95, "latency_ratio": timed.ratio}
                measured.figures.extend(_row(study, arm, products, figures, len(pairs)))
    return measured


def _row(study: Study, arm: Arm, products: int, figures: Mapping[str, float], pairs: int) -> list[Row]:
    return [
        figure_row(
            study.name,
            arm.name,
            arm.title,
            split="latency",
            part=f"products={products}",
            metric=metric,
            values=[value],
            queries=0,
            pairs=pairs,
        )
        for metric, value in figures.items()
    ]


def _shape(job: Job, places: Places) -> str:
    """Return what a student's latency depends on."""
    student = job.config.student
    same = student.backbone, student.backbone_options, student.max_length, student.product_template
    return repr((*same, _extractor_options(job, places)))


def _extractor_options(job: Job, places: Places) -> dict[str, Any]:
    """Return the extractor that is left after training, and the sizes of its latents."""
    from manylens.student.methods import get_method
    from manylens.student.targets import Targets

    student, how = job.config.student, get_method(job.config.student.method)
    if not (how.extractor and how.head_reads_latents):
        return {"extractor": None}
    targets = Targets.load(places.upstream(job) / "embed")
    return {
        "extractor": student.extractor,
        "extractor_options": student.extractor_options,
        "latent_dim": targets.dim,
        "latent_names": targets.names,
    }


def _student(job: Job, places: Places) -> Student:
    """Return a student of the job's shape, with new layers of random weights."""
    from manylens.student import LatentReasoningForSequenceClassification
    from manylens.student.encoding import PairEncoder
    from manylens.student.predict import Student
    from manylens.student.pretrained import resolve_pretrained

    config = job.config.student
    backbone = resolve_pretrained(config.backbone)
    encoder = PairEncoder.from_backbone(backbone, config.product_template, config.max_length)
    model = LatentReasoningForSequenceClassification.from_backbone(
        backbone,
        job.config.labels.build(),
        encoder.tokenizer.sep_token_id,
        backbone_options=config.backbone_options,
        **_extractor_options(job, places),
    )
    return Student(model, encoder)
