from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manylens.errors import BadRowError, MissingExtraError, StudentError, UnknownNameError
from manylens.records import ESCI
from manylens.serving import Scorer
from manylens.serving import catalogue as module
from manylens.serving.catalogue import model_fingerprint, score_catalogue
from manylens.serving.shards import CARD, ScoreCard, ShardFolder
from manylens.serving.workers import Part, Workers
from student.build import make_pairs

PAIRS = make_pairs(230)
COLUMNS = [
    "pair_id",
    "query_id",
    "product_id",
    "query",
    "title",
    "label",
    *(f"p_{name}" for name in ESCI.names),
    "score",
]
Write = Callable[..., Path]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART_ROWS", 16)


@pytest.fixture(scope="module")
def expected(exported: Path) -> np.ndarray:
    """The probabilities of all pairs, scored in one go."""
    with Scorer.load(exported, variant="onnx_fp32", threads=1) as scorer:
        return scorer.probabilities(PAIRS)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("table") / "pairs.parquet")


def write_source(path: Path, count: int = len(PAIRS)) -> Path:
    names = ("pair_id", "query_id", "product_id", "query", "title")
    table = pa.table({name: pa.array([getattr(pair, name) for pair in PAIRS[:count]], pa.string()) for name in names})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    else:
        options = pyarrow.csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
        pyarrow.csv.write_csv(table, path, options)
    return path


def score(exported: Path, source: Path, out: Path, **options: object) -> module.ScoreReport:
    return score_catalogue(exported, source, out, **{"variant": "onnx_fp32", "threads": 1, **options})


def assert_scored(table: pa.Table, expected: np.ndarray) -> None:
    count = len(table)
    assert table.column_names == COLUMNS
    assert table["pair_id"].to_pylist() == [pair.pair_id for pair in PAIRS[:count]]
    assert table["title"].to_pylist() == [pair.title for pair in PAIRS[:count]]
    found = np.column_stack([table[f"p_{name}"].to_numpy() for name in ESCI.names])
    np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    np.testing.assert_allclose(table["score"].to_numpy(), found @ np.array(ESCI.gain_vector()), atol=1e-5)
    assert table["label"].to_pylist() == [ESCI.names[place] for place in found.argmax(axis=1)]


@pytest.mark.parametrize("source", ["pairs.csv", "pairs.tsv", "pairs.jsonl", "pairs.parquet"])
@pytest.mark.parametrize("out", ["scores", "scores.parquet", "scores.csv"])
@pytest.mark.usefixtures("small_parts")
def test_every_format_is_scored_in_order(
    exported: Path, expected: np.ndarray, tmp_path: Path, source: str, out: str
) -> None:
    place = tmp_path / out
    report = score(exported, write_source(tmp_path / source), place, rows_per_shard=100)
    assert (report.rows, report.scored) == (230, 230)
    assert_scored(pyarrow.csv.read_csv(place) if place.suffix == ".csv" else pq.read_table(place), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([source, out])
    if out == "scores":
        shards = {file.name: pq.read_metadata(file).num_rows for file in place.glob("part-*")}
        assert shards == {"part-00000.parquet": 100, "part-00001.parquet": 100, "part-00002.parquet": 30}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows_per_shard=st.integers(1, 300),
    part_rows=st.integers(1, 300),
    batch_rows=st.integers(1, 300),
    count=st.integers(1, 230),
)
def test_any_size_of_shard_part_and_batch_gives_the_same_rows(
    exported: Path,
    table: Path,
    expected: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows_per_shard: int,
    part_rows: int,
    batch_rows: int,
    count: int,
) -> None:
    shutil.rmtree(tmp_path / "scores", ignore_errors=True)

    def batches(*_: object) -> Iterator[pa.RecordBatch]:
        for batch in iter_unlabelled(table):
            rows = batch.slice(0, count)
            yield from (rows.slice(start, batch_rows) for start in range(0, count, batch_rows))

    iter_unlabelled = module.iter_unlabelled
    with monkeypatch.context() as patch:
        patch.setattr(module, "iter_unlabelled", batches)
        patch.setattr(module, "_PART_ROWS", part_rows)
        report = score(exported, table, tmp_path / "scores", rows_per_shard=rows_per_shard)
    assert (report.rows, report.scored) == (count, count)
    shards = sorted((tmp_path / "scores").glob("part-*"))
    sizes = [pq.read_metadata(file).num_rows for file in shards]
    assert sizes[:-1] == [rows_per_shard] * (len(shards) - 1) and sizes[-1] <= rows_per_shard
    assert_scored(pq.read_table(tmp_path / "scores"), expected)


@pytest.mark.usefixtures("small_parts")
def test_two_processes_give_the_same_rows(exported: Path, table: Path, expected: np.ndarray, tmp_path: Path) -> None:
    report = score(exported, table, tmp_path / "scores", workers=2, rows_per_shard=100)
    assert (report.rows, report.scored) == (230, 230)
    assert_scored(pq.read_table(tmp_path / "scores"), expected)


def test_a_student_is_scored_with_torch(
    student_folder: Path, table: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    score_catalogue(student_folder, table, tmp_path / "scores.parquet")
    assert_scored(pq.read_table(tmp_path / "scores.parquet"), expected)


@pytest.mark.usefixtures("small_parts")
def test_what_is_finished_is_not_scored_again(
    exported: Path, table: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    score(exported, table, out, rows_per_shard=50)
    assert score(exported, table, out, rows_per_shard=50, workers=2, threads=2) == module.ScoreReport(
        rows=230, scored=0
    )
    written = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}
    (out / "part-00003.parquet").unlink()
    (out / "part-00004.parquet").unlink()
    (out / "_unfinished").write_bytes(b"half a shard")
    assert score(exported, table, out, rows_per_shard=50) == module.ScoreReport(rows=230, scored=80)
    assert_scored(pq.read_table(out), expected)
    now = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}
    assert [name for name in sorted(now) if now[name] != written[name]] == ["part-00003.parquet", "part-00004.parquet"]
    assert not (out / "_unfinished").exists()


def test_a_finished_folder_needs_no_row_of_the_table(
    exported: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(exported, table, tmp_path / "scores")
    monkeypatch.delattr(module, "iter_unlabelled")
    assert score(exported, table, tmp_path / "scores").scored == 0


@pytest.mark.usefixtures("small_parts")
def test_a_file_goes_on_from_its_shards(exported: Path, expected: np.ndarray, tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "pairs.csv"), tmp_path / "scores.csv"
    out.write_text("old")
    (tmp_path / "scores.csv.parts").mkdir()
    score(exported, source, tmp_path / "scores.csv.parts", rows_per_shard=100)
    assert score(exported, source, out, rows_per_shard=100) == module.ScoreReport(rows=230, scored=0)
    assert_scored(pyarrow.csv.read_csv(out), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pairs.csv", "scores.csv"]


def test_a_stop_while_joined_shards_are_removed_costs_nothing(
    exported: Path, table: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.parquet"
    for left in (3, 2, 0):
        with monkeypatch.context() as patch:
            patch.setattr(
                ShardFolder, "remove", lambda self, left=left: [file.unlink() for file in self.files()[left:]]
            )
            score(exported, table, out, rows_per_shard=100)
        assert score(exported, table, out, rows_per_shard=100) == module.ScoreReport(rows=230, scored=0)
        assert_scored(pq.read_table(out), expected)
        assert [file.name for file in tmp_path.iterdir()] == ["scores.parquet"]
    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "remove", lambda self: self.files()[1].unlink())
        score(exported, table, out, rows_per_shard=100)
    out.unlink()  # The user wants it anew.
    assert score(exported, table, out, rows_per_shard=100) == module.ScoreReport(rows=230, scored=100)
    assert_scored(pq.read_table(out), expected)


@pytest.mark.usefixtures("small_parts")
def test_a_full_disk_is_told_and_the_finished_shards_stay(
    exported: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "scores", os.replace

    def full(unfinished: Path, place: Path) -> None:
        if place.name == "part-00002.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(unfinished, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(
            StudentError, match=r"part-00002\.parquet cannot be written: .*No space left.*run the same again"
        ):
            score(exported, table, out, rows_per_shard=50)
    assert sorted(file.name for file in out.iterdir()) == [".lock", CARD, "part-00000.parquet", "part-00001.parquet"]
    assert score(exported, table, out, rows_per_shard=50) == module.ScoreReport(rows=230, scored=130)


@pytest.mark.parametrize("out", ["scores", "scores.csv", "scores.parquet"])
def test_a_table_without_rows_has_columns(exported: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "pairs.csv").write_text("query,title\n")
    assert score(exported, tmp_path / "pairs.csv", tmp_path / out) == module.ScoreReport(rows=0, scored=0)
    if out == "scores.csv":
        assert (tmp_path / out).read_text().replace('"', "").split() == [",".join(COLUMNS)]
    else:
        assert_scored(pq.read_table(tmp_path / out), np.empty((0, len(ESCI.names))))


def test_a_first_mistake_leaves_nothing(exported: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    with pytest.raises(BadRowError, match="field 'titel'"):
        score(exported, table, out, columns={"title": "titel"})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "scores").mkdir()
    with pytest.raises(BadRowError, match="field 'titel'"):
        score(exported, table, tmp_path / "scores", columns={"title": "titel"})
    assert score(exported, table, tmp_path / "scores").rows == 230


def test_half_a_surrogate_pair_is_no_crash(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        '{"query": "red", "title": "hat"}\n{"query": "red", "title": "hat \\ud800"}\n'
    )
    with pytest.raises(BadRowError, match="row 2, field 'title'"):
        score(exported, tmp_path / "pairs.jsonl", tmp_path / "scores.csv")


def test_any_text_survives(exported: Path, tmp_path: Path) -> None:
    titles = ['A "red"\nshoe, size 10; größe 42', "靴 \u200b", "x" * 5000, "[SEP]"]
    source = tmp_path / "pairs.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["search", "name"], *(["red, shoe", title] for title in titles)])
    columns = {"query": "search", "title": "name"}
    score(exported, source, tmp_path / "scores.csv", columns=columns)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["query"], row["title"]) for row in rows] == [("red, shoe", title) for title in titles]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("small_parts")
def test_a_bad_row_is_named_and_the_finished_shards_stay(exported: Path, tmp_path: Path, workers: int) -> None:
    lines = ["query,title", *["red,hat"] * 8192, *["red,hat"] * 808, ",hat"]
    source, out = tmp_path / "pairs.csv", tmp_path / "scores.csv"
    source.write_text("\n".join(lines))
    out.write_text("old")
    with pytest.raises(BadRowError, match=r"pairs\.csv, row 9001, field 'query'"):
        score(exported, source, out, rows_per_shard=4000, workers=workers)
    assert out.read_text() == "old"
    left = sorted(file.name for file in (tmp_path / "scores.csv.parts").iterdir())
    assert left == [".lock", CARD, "part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("model", "model"),
        ("variant", "model"),
        ("source", "source"),
        ("columns", "columns"),
        ("shards", "rows_per_shard"),
    ],
)
def test_scores_are_never_mixed(exported: Path, tmp_path: Path, change: str, name: str) -> None:
    source, out = write_source(tmp_path / "pairs.csv", 20), tmp_path / "scores"
    score(exported, source, out)
    model, options = exported, {}
    if change == "model":
        model = shutil.copytree(exported, tmp_path / "other")
        with (model / "classes" / "onnx" / "model.onnx").open("ab") as file:
            file.write(b"\x7a\x00")  # An empty field that no reader knows.
    elif change == "variant":
        options = {"variant": "onnx_int8"}
    elif change == "source":
        os.utime(source, ns=(0, 0))
    elif change == "columns":
        options = {"columns": {"title": "query"}}
    else:
        options = {"rows_per_shard": 10}
    with pytest.raises(StudentError, match=f"holds scores with another {name}; remove it, or write to another place"):
        score(model, source, out, **options)


def test_the_fingerprint_covers_what_scores_follow_from(exported: Path, student_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(exported, tmp_path / "moved")
    own = model_fingerprint(exported, "onnx_int8")
    assert model_fingerprint(moved, "onnx_int8") == model_fingerprint(moved / "classes", "onnx_int8") == own
    (moved / "parity.json").write_text("{}")
    (moved / "classes" / "onnx" / "model.onnx").write_bytes(b"another variant")
    assert model_fingerprint(moved, "onnx_int8") == own
    others = {own, model_fingerprint(exported, "onnx_fp32"), model_fingerprint(exported, "openvino_int8")}
    for file in ("tokenizer.json", "tokenizer_config.json", "manylens.json", "onnx/model_int8.onnx"):
        with (moved / "classes" / file).open("ab") as stream:
            stream.write(b" ")
        others.add(model_fingerprint(moved, "onnx_int8"))
    student = shutil.copytree(student_folder, tmp_path / "student")
    others.add(model_fingerprint(student, "torch"))
    (student / "done.json").write_text("{}")
    others.add(model_fingerprint(student, "torch"))
    with (student / "model.safetensors").open("ab") as stream:
        stream.write(b" ")
    others.add(model_fingerprint(student, "torch"))
    assert len(others) == 3 + 4 + 2


def test_errors(exported: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"as \.parquet or \.csv, or to a folder, got '\.xlsx'"):
        score(exported, tmp_path / "missing.csv", tmp_path / "scores.xlsx")
    with pytest.raises(BadRowError, match="there is no such file"):
        score(exported, tmp_path / "missing.csv", tmp_path / "scores.csv")
    with pytest.raises(StudentError, match="workers must be at least 1, got 0"):
        score(exported, table, tmp_path / "scores", workers=0)
    with pytest.raises(StudentError, match="rows_per_shard must be at least 1, got 0"):
        score(exported, table, tmp_path / "scores", rows_per_shard=0)
    with pytest.raises(UnknownNameError, match="unknown variant 'onnx'"):
        score(exported, table, tmp_path / "scores", variant="onnx")
    with pytest.raises(StudentError, match="which is no folder"):
        score(tmp_path / "absent", table, tmp_path / "scores")
    with pytest.raises(BadRowError, match="not a whole, readable parquet file"):
        (tmp_path / "broken.parquet").write_bytes(b"PAR1")
        score(exported, tmp_path / "broken.parquet", tmp_path / "broken")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StudentError, match="cannot be made a folder"):
        score(exported, table, tmp_path / "taken")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(StudentError, match=f"holds other files, such as todo.txt, and no {CARD}"):
        score(exported, table, tmp_path / "notes")
    score(exported, table, tmp_path / "damaged", threads=2)
    (tmp_path / "damaged" / CARD).write_text("{")
    with pytest.raises(StudentError, match="is damaged"):
        score(exported, table, tmp_path / "damaged", threads=2)


def test_a_stop_before_the_first_shard_is_no_hindrance(exported: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    out.mkdir()
    (out / ".lock").touch()
    (out / "_unfinished").write_bytes(b"half a card")
    assert score(exported, table, out).scored == 230


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    card = ScoreCard(source=(1, 2), model="m", columns={}, rows_per_shard=3)
    with ShardFolder(tmp_path, card), pytest.raises(StudentError, match="another process is writing to"):
        ShardFolder(tmp_path, card)
    with ShardFolder(tmp_path, card) as folder:
        assert (folder.finished, folder.rows) == (frozenset(), None)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_is_read_ahead_than_the_window(exported: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Memory is constant: parts that were read and not yet written never exceed the window."""
    read: list[int] = []
    batch = pa.RecordBatch.from_pylist([])

    def parts() -> Iterator[Part]:
        for number in range(40):
            read.append(number)
            yield Part(shard=number, last=True, pairs=batch)

    with Workers(exported, workers=workers, threads=1, variant="onnx_fp32") as pool:
        started: list[Future[np.ndarray]] = []

        class Counting(ThreadPoolExecutor):
            def submit(self, *_: object) -> Future[np.ndarray]:  # type: ignore[override]
                future: Future[np.ndarray] = Future()
                future.set_result(np.zeros((0, 4), dtype=np.float32))
                started.append(future)
                return future

        monkeypatch.setattr(pool, "_executor", Counting(1))
        for done, (part, _) in enumerate(pool.score(parts())):
            assert part.shard == done
            assert len(read) - done <= pool.window and len(started) == len(read)
    assert len(read) == 40 and pool.window <= 4


def test_torch_is_not_needed(exported: Path, table: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'datasets'])\n"
        "from pathlib import Path\n"
        "from manylens.serving.catalogue import score_catalogue\n"
        f"score_catalogue({str(exported)!r}, Path({str(table)!r}), Path({str(tmp_path / 'scores')!r}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert len(pq.read_table(tmp_path / "scores")) == 230


def test_a_missing_engine_is_named(
    student_folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "manylens.serving.engines.torch", None)
    with pytest.raises(MissingExtraError):
        score_catalogue(student_folder, table, tmp_path / "scores")
