"""The explanation study: do the teacher's rationales nearest to a student's state argue as the student decides?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manylens.config import Config
from manylens.evaluation.explanations import AgreementReport, neighbour_agreement
from manylens.evaluation.predictions import IntArray, Predictions
from manylens.records import Pair
from manylens.study.arms import Study
from manylens.study.job import Job, Places
from manylens.study.measures.lines import Line, Measured, States, Vectors, rows_of, upstream_pairs
from manylens.study.rows import RESAMPLES

#: Rationales that are retrieved for a pair.
_NEIGHBOURS = (1, 5)
#: The encoder of the pairs' own texts.
_TEXT_ENCODER = "minilm"
_WAYS = {
    "r": "r to the rationales' vectors",
    "h": "h to h of their pairs",
    "text": "text vector to text vector of their pairs",
}


def measure_explanations(study: Study, jobs: Mapping[str, Sequence[Job]], places: Places) -> Measured:
    """Retrieve training rationales for the pairs of test, and measure whether their pairs' labels agree.

    ``agrees_with_prediction_at_K`` is the mean share of the K rationales whose pair has the label that the student
    predicts, ``agrees_with_gold_at_K`` the same with the gold label. For each arm three ways to retrieve are
    compared: by the latents in the space of the targets, by h, and by the encoder's vector of query and title.

    Raises:
        StageError: If a student's states were not kept.
    """
    measured, texts = Measured(), _Texts(places.out / "texts.sqlite")
    for arm in study.arms:
        config = jobs[arm.name][0].config
        spaces = [_spaces(job, places, texts) for job in jobs[arm.name]]
        for k in _NEIGHBOURS:
            reports = {way: [each.report(way, k, config) for each in spaces] for way in spaces[0].ways}
            for metric in ("prediction", "gold"):
                lines = [
                    Line(
                        f"{arm.name}.{way}",
                        f"{arm.title}, {_WAYS[way]}",
                        [getattr(report, f"with_{metric}") for report in found],
                    )
                    for way, found in reports.items()
                ]
                rows = rows_of(
                    study,
                    lines,
                    [(f"{arm.name}.{way}", f"{arm.name}.text") for way in reports if way != "text"],
                    split="test",
                    metric=f"agrees_with_{metric}_at_{k}",
                    queries=len(set(spaces[0].queries_test)),
                    pairs=len(spaces[0].queries_test),
                    confidence=config.evaluate.confidence,
                    seed=config.seed,
                )
                measured.figures.extend(rows.figures)
                measured.contrasts.extend(rows.contrasts)
    return measured


@dataclass(frozen=True, kw_only=True)
class _Spaces:
    """The vectors of a student's test pairs and of the training rationales, by the way to retrieve."""

    ways: dict[str, tuple[Vectors, Vectors]]
    labels_train: IntArray
    queries_train: list[str]
    queries_test: list[str]
    predicted: IntArray
    gold: IntArray

    def report(self, way: str, k: int, config: Config) -> AgreementReport:
        unseen, train = self.ways[way]
        return neighbour_agreement(
            unseen,
            train,
            self.labels_train,
            self.predicted,
            self.gold,
            k,
            queries_unseen=self.queries_test,
            queries_train=self.queries_train,
            samples=RESAMPLES,
            confidence=config.evaluate.confidence,
            seed=config.seed,
        )


def _spaces(job: Job, places: Places, texts: _Texts) -> _Spaces:
    from manylens.student.targets import Targets

    scale, pairs = job.config.labels.build(), upstream_pairs(job, places)
    targets, states = Targets.load(places.upstream(job) / "embed"), States(job, places)
    row_of = {pair_id: row for row, pair_id in enumerate(targets.pair_ids) if targets.mask[row].any()}
    train = [pair for pair in pairs.split("train") if pair.pair_id in row_of and pair.label is not None]
    found = places.predictions(job)
    predictions = Predictions.from_table(found.filter(pc.equal(found["split"], pa.scalar("test"))), scale)
    by_id = {pair.pair_id: pair for pair in pairs.split("test")}
    test = [by_id[str(pair_id)] for pair_id in predictions.table["pair_id"].to_pylist()]
    train_ids, test_ids = [pair.pair_id for pair in train], [pair.pair_id for pair in test]
    ways: dict[str, tuple[Vectors, Vectors]] = {}
    if "r" in states.arrays:
        vectors = targets.vectors.reshape(len(targets.pair_ids), -1)
        ways["r"] = states.of("r", test_ids), vectors[[row_of[pair_id] for pair_id in train_ids]]
    ways["h"] = states.of("h", test_ids), states.of("h", train_ids)
    ways["text"] = texts.of(test), texts.of(train)
    return _Spaces(
        ways=ways,
        labels_train=np.array([scale.index(str(pair.label)) for pair in train]),
        queries_train=[pair.query_id for pair in train],
        queries_test=[pair.query_id for pair in test],
        predicted=predictions.predicted,
        gold=predictions.gold,
    )


class _Texts:
    """Vectors of pairs' own texts, each computed once."""

    def __init__(self, cache: Path) -> None:
        self._cache, self._known = cache, dict[str, Vectors]()

    def of(self, pairs: Sequence[Pair]) -> Vectors:
        from manylens.student.embed import RationaleEncoder

        texts = [f"{pair.query} {pair.title}" for pair in pairs]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            vectors = RationaleEncoder(_TEXT_ENCODER, self._cache).embed(new)
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])
