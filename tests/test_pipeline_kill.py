"""kill -9 at random moments of judge, embed and distil; the same command then ends as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import manylens
from manylens.run_folder import RunFolder
from tiny import TinyShop

KILLS = 4
#: A stage that ends before the kill comes is begun anew, this often at most.
ATTEMPTS = 5 * KILLS
SEED = 20250301

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")


@pytest.fixture(scope="module")
def recipe(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe whose stages are long enough to be hit."""
    shop = TinyShop.make(tmp_path_factory.mktemp("shop"), models, queries=60, samples=5)
    tree = shop.recipe()
    tree["judge"] = {"samples": 5}
    tree["embed"]["batch_size"] = 2
    tree["student"]["training"]["num_train_epochs"] = 6
    return tree


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Processes of their own that need not import torch first."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["manylens.student.train", "manylens.pipeline", "sentence_transformers"])
    return forkserver


@pytest.fixture(scope="module")
def undisturbed(
    recipe: dict[str, Any], context: ForkServerContext, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    process = _started(context, recipe, folder)
    process.join()
    assert process.exitcode == 0
    return RunFolder.open(folder)


def _run(recipe: dict[str, Any], folder: Path) -> None:
    manylens.run(recipe, folder=folder)


def _started(context: ForkServerContext, recipe: dict[str, Any], folder: Path) -> ForkServerProcess:
    process = context.Process(target=_run, args=(recipe, folder))
    process.start()
    return process


def _rows(database: Path, table: str, key: str) -> list[tuple[object, ...]]:
    """Return the primary keys of a table, which may not be there yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        return connection.execute(f"SELECT {key} FROM {table} ORDER BY {key}").fetchall()


def _answers(run: Path) -> list[tuple[object, ...]]:
    key = "pair_id, perspective, sample, teacher, sampling, prompt_hash"
    return _rows(run / "judge" / "judgements.sqlite", "judgements", key)


def _saved(run: Path, stage: str) -> int:
    """Return how much of a stage's work a resumed run need not do again."""
    if stage == "judge":
        return len(_answers(run))
    if stage == "embed":
        return sum(len(_rows(cache, "vectors", "text_hash")) for cache in run.glob("embed/vectors-*.sqlite"))
    students, checkpoints = run.glob("distil/*/done.json"), run.glob("distil/*/checkpoints/*/trainer_state.json")
    return len([*students, *checkpoints])


def _kill_within(context: ForkServerContext, recipe: dict[str, Any], run: Path, stage: str, delay: float) -> bool:
    """Start the run, wait until it is within a stage, sleep, kill; return whether it still was."""
    process = _started(context, recipe, run)
    while not (run / stage).exists() or (run / stage / "done.json").exists():
        assert process.is_alive(), f"the run ended with {process.exitcode} before it came to {stage}"
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL and not (run / stage / "done.json").exists()


@pytest.mark.parametrize("stage", ["judge", pytest.param("embed", marks=pytest.mark.slow), "distil"])
def test_kill_9_and_the_same_command_end_as_an_undisturbed_run(
    stage: str, recipe: dict[str, Any], undisturbed: RunFolder, context: ForkServerContext, tmp_path: Path
) -> None:
    generator = random.Random(f"{SEED} {stage}")
    run, kills = tmp_path / "run", []
    done = undisturbed.done(stage)
    assert done is not None
    for _ in range(ATTEMPTS):
        delay = generator.uniform(0.0, 0.8 * done["seconds"])
        if not _kill_within(context, recipe, run, stage, delay):
            shutil.rmtree(run / stage)
            kills = []
            continue
        kills.append((round(delay, 3), _saved(run, stage)))
        if len(kills) >= KILLS and kills[-1][1]:
            break
    told = f"{stage} takes {done['seconds']} s; killed after so many seconds, with so much saved: {kills}"
    saved = [amount for _, amount in kills]
    assert len(kills) >= KILLS and saved[-1], told
    assert saved == sorted(saved) or stage == "distil", told  # Checkpoints rotate; answers and vectors only grow.

    process = _started(context, recipe, run)
    process.join()
    assert process.exitcode == 0, told
    _assert_same(run, undisturbed.path, told)
    if stage == "judge":
        counts = json.loads((run / "judge" / "report.json").read_text())
        # The last run asked what no run before it had an answer to, and nothing else.
        assert counts["reused"] == saved[-1], told
        assert counts["asked"] == counts["requested"] - saved[-1], told


def _assert_same(run: Path, undisturbed: Path, told: str) -> None:
    for table in ("judge/judgements.parquet", "curate/rationales.parquet", "embed/targets.parquet"):
        assert pq.read_table(run / table).equals(pq.read_table(undisturbed / table)), f"{table}: {told}"
    answers = _answers(run)
    assert answers == _answers(undisturbed) and len(set(answers)) == len(answers), told
    assert np.array_equal(np.load(run / "embed/targets.npy"), np.load(undisturbed / "embed/targets.npy")), told
    for student in ("lrkd-seed13", "bert-seed13"):
        table = f"evaluate/{student}/predictions.parquet"
        assert pq.read_table(run / table).equals(pq.read_table(undisturbed / table)), f"{table}: {told}"
        report = f"evaluate/{student}/evaluation.json"
        assert (run / report).read_text() == (undisturbed / report).read_text(), f"{report}: {told}"
