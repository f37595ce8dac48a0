"""Studies of tiny students, in worker processes."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

import manylens
from manylens.errors import ConfigError, StageError, UnknownNameError
from manylens.study import Arm, Study, run_study
from manylens.study.report import where
from tiny import TinyShop

ARMS = (
    Arm(name="bert", title="BERT", method="bert"),
    Arm(name="lrkd", title="LRKD"),
    Arm(name="zeroed", title="latents zeroed", inference="zero_latents"),
    Arm(name="joined", title="joined text", overrides=("embed.target=concat_text",)),
)
STUDY = Study(name="tiny", title="Tiny", arms=ARMS, baseline="bert")
PAIR = Study(name="pair", title="A pair", arms=ARMS[:2], baseline="bert")


@pytest.fixture(scope="module")
def recipe(shop: TinyShop) -> dict[str, Any]:
    tree = shop.recipe()
    tree["student"]["training"]["num_train_epochs"] = 1
    return tree


@pytest.fixture(scope="module")
def out(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    run_study(STUDY, recipe, seeds=[1], out=folder, workers=1)
    return folder


def marks(out: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in out.glob("jobs/*/job.json")}


def test_students_are_those_of_a_plain_run(out: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    records = {path: json.loads(path.read_text()) for path in out.glob("jobs/*/job.json")}
    assert sorted(record["method"] for record in records.values()) == ["bert", "lrkd", "lrkd"]
    alone = manylens.run(recipe, ["student.baselines=[]", "student.seeds=[1]"], folder=tmp_path / "run")
    lrkd = {path.parent: record for path, record in records.items() if record["method"] == "lrkd"}
    (job,) = (path for path, record in lrkd.items() if record["config"]["embed"]["target"] == "mean")
    plain = pq.read_table(alone.path / "evaluate" / "lrkd-seed1" / "predictions.parquet")
    mine = pq.read_table(job / "predictions.parquet")
    assert mine.drop_columns("logits").equals(plain.drop_columns("logits"))
    # Worker processes may have another number of threads, which rounds sums differently.
    logits = (np.array(table["logits"].to_pylist()) for table in (mine, plain))
    np.testing.assert_allclose(*logits, atol=0.02)
    assert not pq.read_table(job / "predictions-zero_latents.parquet").equals(mine)
    assert {path.name for path in job.iterdir()} == {
        "job.json",
        "predictions.parquet",
        "predictions-zero_latents.parquet",
        "training.json",
    }


def test_upstreams_are_shared_and_nothing_is_left_in_work(out: Path) -> None:
    assert len(list(out.glob("upstream/*"))) == 2
    assert list(out.glob("work/*")) == []
    rationales = list(out.glob("upstream/*/curate/rationales.parquet"))
    assert pq.read_table(rationales[0]).equals(pq.read_table(rationales[1]))


def test_more_seeds_train_only_what_is_new_and_studies_share_students(out: Path, recipe: dict[str, Any]) -> None:
    before = marks(out)
    done = run_study(PAIR, recipe, seeds=[1, 2], out=out, workers=1)
    after = marks(out)
    assert len(before) == 3 and len(after) == 5
    assert {path: after[path] for path in before} == before
    (row,) = where(done.figures.to_pylist(), arm="lrkd", split="test", metric="accuracy")
    assert row["seeds"] == 2
    assert done.page.read_text(encoding="utf-8").count("--seeds 2") == 1


@pytest.mark.slow
def test_a_failing_student_is_told_and_the_others_are_kept(recipe: dict[str, Any], tmp_path: Path) -> None:
    # The check cannot know that a learning rate makes the weights infinite.
    infinite = Arm(name="infinite", title="infinite", method="bert", overrides=("student.training.learning_rate=1e30",))
    broken = Study(name="broken", title="Broken", arms=(ARMS[0], infinite))
    with pytest.raises(StageError, match="1 of 2 students are not there, so no table is written") as raised:
        run_study(broken, recipe, seeds=[1], out=tmp_path, workers=1)
    assert "bert, seed 1: " in str(raised.value) and "not finite" in str(raised.value)
    assert len(marks(tmp_path)) == 1
    assert list(tmp_path.glob("*.parquet")) == []


@pytest.mark.slow
def test_a_wrong_arm_is_found_before_anything_is_trained(recipe: dict[str, Any], tmp_path: Path) -> None:
    arms = (ARMS[0], Arm(name="wrong", title="wrong", overrides=("student.guide.loss=l2",)))
    with pytest.raises(ConfigError, match="unknown guide loss 'l2'"):
        run_study(Study(name="wrong", title="Wrong", arms=arms), recipe, seeds=[1], out=tmp_path, workers=1)
    assert marks(tmp_path) == {} and list(tmp_path.glob("upstream/*")) == []


def test_what_cannot_start_says_so(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seeds that differ"):
        run_study(STUDY, recipe, seeds=[1, 1], out=tmp_path)
    measured = STUDY.model_copy(update={"measures": ("probes",)})
    with pytest.raises(UnknownNameError, match="unknown measure 'probes' \\(did you mean 'probe'\\?\\)"):
        run_study(measured, recipe, seeds=[1], out=tmp_path)
    with FileLock(tmp_path / ".lock"), pytest.raises(StageError, match="another study is running"):
        run_study(STUDY, recipe, seeds=[1], out=tmp_path)


def _study(recipe: dict[str, Any], out: Path) -> None:
    run_study(PAIR, recipe, seeds=[1], out=out, workers=1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_kill_9_and_the_same_study_goes_on(shop: TinyShop, tmp_path: Path) -> None:
    recipe, out = shop.recipe(), tmp_path / "out"
    recipe["student"]["training"]["num_train_epochs"] = 8
    context = multiprocessing.get_context("spawn")
    checkpoints = "work/*/distil/*/checkpoints/checkpoint-*/trainer_state.json"
    for seen in (checkpoints, "jobs/*/job.json"):  # Within the first student's training, then after it.
        process = context.Process(target=_study, args=(recipe, out))
        process.start()
        while not list(out.glob(seen)):
            assert process.is_alive(), f"the study ended with {process.exitcode} before there was {seen}"
            time.sleep(0.01)
        process.kill()
        process.join()
    before = marks(out)
    done = run_study(PAIR, recipe, seeds=[1], out=out, workers=1)
    assert before and {path: when for path, when in marks(out).items() if path in before} == before
    undisturbed = run_study(PAIR, recipe, seeds=[1], out=tmp_path / "undisturbed", workers=1)
    assert done.figures.equals(undisturbed.figures)
