"""Measures on a tiny shop's real upstream; the students' states are written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens import pipeline
from manylens.data import Pairs
from manylens.errors import StageError
from manylens.evaluation import PREDICTION_SCHEMA
from manylens.records import ESCI
from manylens.study import Arm, Study
from manylens.study.job import Job, Places, jobs_of
from manylens.study.measures import MEASURES
from manylens.study.measures.lines import Measured
from manylens.study.report import where
from tiny import TinyShop

ARMS = (
    Arm(name="bert", title="BERT", method="bert"),
    Arm(name="lrkd", title="LRKD"),
    Arm(name="wide", title="LRKD, wide", overrides=("student.extractor_options.width=64",)),
)
STUDY = Study(name="tiny", title="Tiny", arms=ARMS[:2], baseline="bert")
SEEDS = [1, 2]


@pytest.fixture(scope="module")
def recipe(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A shop whose rationales of exact pairs alone say "suitable"."""
    shop = TinyShop.make(tmp_path_factory.mktemp("shop"), models, queries=40, samples=1)
    path = shop.folder / "judgements.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["rationale"] += ", suitable" if line["product_id"].endswith("-e") else ""
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return shop.recipe()


@pytest.fixture(scope="module")
def places(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Students whose r is the gold label, and whose [CLS] is noise; the student is right on every pair."""
    places = Places(tmp_path_factory.mktemp("out"))
    for job in (job for jobs in jobs_of(STUDY, recipe, [], SEEDS).values() for job in jobs):
        pipeline.run(job.config, folder=places.upstream(job), until="embed")
        _keep(job, places)
    return places


def _keep(job: Job, places: Places) -> None:
    pairs = Pairs.read(places.upstream(job) / "data" / "pairs.parquet")
    gold = np.eye(4, dtype=np.float16)[[ESCI.index(str(pair.label)) for pair in pairs]]
    folder = places.kept(job)
    folder.mkdir(parents=True)
    noise = np.random.default_rng(job.seed).normal(size=(len(pairs), 32)).astype(np.float16)
    latents = {"latents": np.pad(gold, ((0, 0), (0, 28)))[:, None]} if job.config.student.method == "lrkd" else {}
    np.savez(folder / "vectors.npz", pair_ids=np.array([pair.pair_id for pair in pairs]), pooled=noise, **latents)
    columns = pairs.table.select([name for name in PREDICTION_SCHEMA.names if name != "logits"])
    logits = pa.array(list(5.0 * gold.astype(np.float32)), type=PREDICTION_SCHEMA.field("logits").type)
    pq.write_table(columns.append_column("logits", logits).cast(PREDICTION_SCHEMA), folder / "predictions.parquet")


def measure(name: str, study: Study, recipe: dict[str, Any], places: Places) -> Measured:
    return MEASURES[name](study, jobs_of(study, recipe, [], SEEDS), places)


def test_the_probe_finds_what_r_knows_and_cls_does_not(recipe: dict[str, Any], places: Places) -> None:
    found = measure("probe", STUDY, recipe, places)
    rows = {row["arm"]: row for row in where(found.figures, metric="keyword_f1")}
    assert list(rows) == ["bert.h", "lrkd.r", "lrkd.h"]
    assert rows["lrkd.r"]["values"] == [1.0, 1.0] and rows["lrkd.h"]["mean"] < 0.7
    # Only dev pairs were judged: 8 queries of 4 pairs.
    assert (rows["lrkd.r"]["split"], rows["lrkd.r"]["queries"], rows["lrkd.r"]["pairs"]) == ("dev+test", 8, 32)
    (contrast,) = where(found.contrasts, metric="keyword_f1", treatment="lrkd.r", baseline="lrkd.h")
    assert contrast["verdict"] == "gain" and contrast["low"] > 0
    assert {row["metric"] for row in found.figures} >= {"keyword_f1", "keyword_f1_pca"}


def test_without_rationales_of_unseen_pairs_the_probe_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    places, train_only = Places(tmp_path), {**recipe, "judge": {"splits": ["train"]}}
    for jobs in jobs_of(STUDY, train_only, [], SEEDS).values():
        pipeline.run(jobs[0].config, folder=places.upstream(jobs[0]), until="embed")
    with pytest.raises(StageError, match=r"judge\.splits=\[train,dev,test\]"):
        measure("probe", STUDY, train_only, places)


def test_rationales_near_r_agree_with_a_student_whose_r_is_the_label(recipe: dict[str, Any], places: Places) -> None:
    found = measure("explanations", STUDY, recipe, places)
    rows = where(found.figures, metric="agrees_with_gold_at_1", split="test")
    assert [row["arm"] for row in rows] == ["bert.h", "bert.text", "lrkd.r", "lrkd.h", "lrkd.text"]
    assert {(row["queries"], row["pairs"]) for row in rows} == {(8, 32)}
    by_arm = {row["arm"]: row["values"] for row in rows}
    # Retrieval by text does not depend on the student; this student's prediction is the gold label.
    assert by_arm["bert.text"] == by_arm["lrkd.text"] == [by_arm["lrkd.text"][0]] * 2
    for row in where(found.figures, metric="agrees_with_prediction_at_1"):
        assert row["values"] == by_arm[row["arm"]]
    assert {(row["treatment"], row["baseline"]) for row in found.contrasts} == {
        ("bert.h", "bert.text"),
        ("lrkd.r", "lrkd.text"),
        ("lrkd.h", "lrkd.text"),
    }


def test_latency_is_timed_once_a_shape(recipe: dict[str, Any], places: Places) -> None:
    same = Arm(name="same", title="another lambda", overrides=("student.guide.weight=1",))
    study = Study(name="tiny", title="Tiny", arms=(*ARMS, same), baseline="bert")
    found = measure("latency", study, recipe, places)
    ratios = {row["arm"]: row["mean"] for row in where(found.figures, metric="latency_ratio", slice="products=10")}
    assert set(ratios) == {"bert", "lrkd", "wide", "same"}
    assert ratios["bert"] == 1.0 and ratios["same"] == ratios["lrkd"] != ratios["wide"]
    assert {row["slice"] for row in found.figures} == {"products=1", "products=10", "products=50"}
    assert found.contrasts == []


def test_states_that_were_not_kept_are_named(recipe: dict[str, Any], places: Places) -> None:
    study = Study(name="tiny", title="Tiny", arms=ARMS, baseline="bert")
    with pytest.raises(StageError, match=r"vectors\.npz is not there"):
        measure("probe", study, recipe, places)
