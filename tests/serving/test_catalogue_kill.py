"""kill -9, Ctrl-C and a worker's death: what is finished stays, and the same call ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens.serving.catalogue import ScoreReport, score_catalogue
from student.build import make_pairs

ROWS, ROWS_PER_SHARD, KILLS = 24_000, 800, 4
PATIENCE = 120.0
Start = Callable[..., subprocess.Popen[str]]
#: A shard's worth of parts, so that a kill falls within one.
CHILD = """
import sys
from pathlib import Path
from manylens.serving import catalogue as module
module._PART_ROWS = 200
module.score_catalogue(
    {model!r}, Path({table!r}), Path({out!r}), variant="onnx_fp32", workers={workers}, threads=1, rows_per_shard={rows}
)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = make_pairs(1000)
    columns = {name: [getattr(pair, name) for pair in pairs] for name in ("query", "title")}
    ids = [f"p{number}" for number in range(ROWS)]
    repeated = {name: values * (ROWS // len(pairs)) for name, values in columns.items()}
    path = tmp_path_factory.mktemp("table") / "pairs.parquet"
    pq.write_table(pa.table({"pair_id": ids, **repeated}), path)
    return path


@pytest.fixture(scope="module")
def undisturbed(exported: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "scores"
    finish(exported, table, out)
    return out


@pytest.fixture
def start(exported: Path, table: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts scoring in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(out: Path, workers: int = 1) -> subprocess.Popen[str]:
        script = CHILD.format(model=str(exported), table=str(table), out=str(out), workers=workers, rows=ROWS_PER_SHARD)
        command = [sys.executable, "-c", script]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def shards(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def has_shards(out: Path, wanted: int) -> bool:
    return shards(out) >= wanted


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.002)


def finish(exported: Path, table: Path, out: Path) -> ScoreReport:
    return score_catalogue(exported, table, out, variant="onnx_fp32", rows_per_shard=ROWS_PER_SHARD)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that score; a helper of multiprocessing is none."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("out", ["scores", "scores.parquet"])
def test_kill_9_at_any_moment_loses_no_finished_shard(
    exported: Path, table: Path, undisturbed: Path, tmp_path: Path, start: Start, out: str
) -> None:
    generator = random.Random(20261128)
    place = tmp_path / out
    folder = place if out == "scores" else tmp_path / "scores.parquet.parts"
    finished = [0]
    for _ in range(KILLS):
        process = start(place)
        wait_for(partial(has_shards, folder, finished[-1] + generator.randint(1, 5)), process)
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        finished.append(shards(folder))
    assert finished == sorted(finished) and 0 < finished[-1] < ROWS // ROWS_PER_SHARD
    report = finish(exported, table, place)
    assert report == ScoreReport(rows=ROWS, scored=ROWS - finished[-1] * ROWS_PER_SHARD)
    ours, theirs = pq.read_table(place), pq.read_table(undisturbed)
    assert ours["pair_id"].to_pylist() == [f"p{number}" for number in range(ROWS)]
    texts = [name for name in ours.column_names if not name.startswith("p_") and name not in ("label", "score")]
    assert ours.select(texts).equals(theirs.select(texts))
    # Batches differ, and with them the sums' last bits.
    assert max(abs(ours["score"].to_numpy() - theirs["score"].to_numpy())) < 1e-5
    assert folder.exists() == (out == "scores")


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path / "scores", workers=2)
    wait_for(lambda: shards(tmp_path / "scores") >= 1, process)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert not psutil.wait_procs(workers, timeout=PATIENCE)[1]


def test_the_death_of_a_worker_is_told_and_the_shards_stay(
    exported: Path, table: Path, tmp_path: Path, start: Start
) -> None:
    out = tmp_path / "scores"
    process = start(out, workers=2)
    wait_for(lambda: shards(out) >= 2, process)
    workers_of(process)[0].kill()
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "StudentError: a worker died before its pairs were scored" in told
    there = shards(out)
    assert 2 <= there < ROWS // ROWS_PER_SHARD and not (out / "_unfinished").exists()
    assert finish(exported, table, out).scored == ROWS - there * ROWS_PER_SHARD


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_all_processes(tmp_path: Path, start: Start, workers: int) -> None:
    out = tmp_path / "scores"
    process = start(out, workers=workers)
    wait_for(lambda: shards(out) >= 1, process)
    children = workers_of(process)
    assert len(children) == (0 if workers == 1 else workers)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, -signal.SIGINT)
    assert "spawn_main" not in told, told  # What a worker's traceback would begin with.
    assert not psutil.wait_procs(children, timeout=PATIENCE)[1]
    assert 1 <= shards(out) < ROWS // ROWS_PER_SHARD and not (out / "_unfinished").exists()
