from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

import manylens
from manylens.records import ESCI
from manylens.run_folder import RunFolder
from manylens.serving.layout import EXPORT
from tiny import TinyShop

from .test_runs import assert_one_line

Cli = Callable[..., Result]
ROWS = [("red mug", "red mug for the home"), ("blue lamp", "green chair"), ("blue lamp", 'a "blue" lamp, orvel')]


@pytest.fixture
def exported(exported_run: RunFolder) -> Path:
    """A run folder that has an export; nothing is written to it."""
    return exported_run.path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    with (tmp_path / "to_score.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("search", "title"), *ROWS])
    return tmp_path / "to_score.csv"


def assert_figures(
    rows: list[dict[str, object]], model: manylens.Student | manylens.Scorer, tolerance: float = 1e-6
) -> None:
    """Check that rows hold what a student or its export predicts of them."""
    assert [(row["query"], row["title"]) for row in rows] == ROWS
    for row, prediction in zip(rows, model.predict(ROWS), strict=True):
        assert row["label"] == prediction.label
        assert float(row["score"]) == pytest.approx(prediction.score, abs=tolerance)
        found = [float(row[f"p_{name}"]) for name in ESCI.names]
        assert found == pytest.approx(list(prediction.probabilities.values()), abs=tolerance)


def test_a_run_or_a_student_gives_the_students_own_figures(
    cli: Cli, finished: RunFolder, table: Path, tmp_path: Path
) -> None:
    by_run = cli("score", finished.path, table, "--column", "query=search")
    assert (by_run.exit_code, by_run.stdout) == (0, "3 pairs ─► scores.csv\n"), by_run.output
    told = [line for line in by_run.stderr.splitlines() if line.startswith("scoring with PyTorch")]
    assert len(told) == 1 and told[0].endswith(f"manylens export {finished.path}")
    by_student = cli("score", finished.model, table, "--column", "query=search", "--out", "scores.parquet")
    assert by_student.exit_code == 0 and "scoring with PyTorch" not in by_student.stderr
    student = manylens.Student.load(finished.model, device="cpu")
    with (tmp_path / "scores.csv").open(newline="") as stream:
        assert_figures(list(csv.DictReader(stream)), student)
    assert_figures(pq.read_table(tmp_path / "scores.parquet").to_pylist(), student)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.parquet", "to_score.csv"]


def test_an_export_is_taken_where_there_is_one(cli: Cli, exported: Path, table: Path, tmp_path: Path) -> None:
    columns = ("--column", "query=search")
    student = manylens.Student.load(RunFolder.open(exported).model, device="cpu")
    for model, out, options, expected in (
        (exported, "by_run", (), manylens.Scorer.load(exported)),
        (
            exported / EXPORT,
            "by_export",
            ("--variant", "onnx_fp32"),
            manylens.Scorer.load(exported, variant="onnx_fp32"),
        ),
        (exported, "by_torch", ("--variant", "torch"), student),
    ):
        done = cli("score", model, table, *columns, "-o", out, *options)
        assert (done.exit_code, done.stdout) == (0, f"3 pairs ─► {out}\n"), done.output
        assert "scoring with PyTorch" not in done.stderr
        assert_figures(pq.read_table(tmp_path / out).to_pylist(), expected, tolerance=1e-5)


def test_shards_and_a_second_call(cli: Cli, exported: Path, table: Path, tmp_path: Path) -> None:
    command = ("score", exported, table, "--column", "query=search", "-o", "scores", "--rows-per-shard", 2)
    assert cli(*command, "--threads", 1).stdout == "3 pairs ─► scores\n"
    names = sorted(path.name for path in (tmp_path / "scores").glob("*.parquet"))
    assert names == ["part-00000.parquet", "part-00001.parquet"]
    again = cli(*command)
    assert (again.exit_code, again.stdout) == (0, "3 pairs ─► scores (3 of them scored before)\n")


def test_workers_are_processes(exported: Path, table: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("manylens")), "score", str(exported), str(table), "-o", "scores.csv"]
    command += ["--column", "query=search", "--workers", "2", "--rows-per-shard", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"})
    assert (done.returncode, done.stdout) == (0, "3 pairs ─► scores.csv\n"), done.stderr
    with (tmp_path / "scores.csv").open(newline="") as stream:
        assert_figures(list(csv.DictReader(stream)), manylens.Scorer.load(exported), tolerance=1e-5)


def test_score_tells_what_is_wrong(
    cli: Cli, finished: RunFolder, exported: Path, shop: TinyShop, table: Path, tmp_path: Path
) -> None:
    columns = ("--column", "query=search")
    assert_one_line(cli("score", tmp_path / "absent", table), "student", "absent")
    assert_one_line(cli("score", exported, table), "query")  # The table calls it "search".
    assert_one_line(cli("score", exported, tmp_path / "absent.csv"), "absent.csv")
    assert_one_line(cli("score", exported, table, "--column", "query"), "a column mapping looks like")
    assert_one_line(cli("score", exported, table, *columns, "--out", "scores.txt"), "as .parquet or .csv")
    assert_one_line(cli("score", exported, table, "--variant", "onnx_int4"), "unknown variant 'onnx_int4'")
    assert_one_line(cli("score", exported, table, "--variant", "onnx_int8"), "has no variant onnx_int8")
    assert_one_line(cli("score", finished.path, table, "--variant", "onnx_int8"), "manylens export RUN")
    assert not (tmp_path / "scores.csv").exists()
    manylens.run(shop.recipe(), folder=tmp_path / "begun", until="data")
    assert_one_line(cli("score", "begun", table), "stage distil is to do", "run its recipe again")


def test_a_bad_row_is_named_and_the_shards_before_it_stay(cli: Cli, exported: Path, tmp_path: Path) -> None:
    lines = ["query,title", *(f"red mug {number},blue lamp" for number in range(9000)), ",red mug"]
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n")
    result = cli("score", exported, "bad.csv", "-o", "scores", "--rows-per-shard", 100)
    assert_one_line(result, "bad.csv, row 9001, field 'query'")
    (shards,) = {len(list((tmp_path / "scores").glob("part-*.parquet")))}
    assert shards and pq.read_table(tmp_path / "scores").num_rows == 100 * shards


def test_an_export_is_scored_without_the_libraries_of_training(exported: Path, table: Path, tmp_path: Path) -> None:
    arguments = ["score", str(exported), str(table), "--column", "query=search"]
    block = "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'datasets', 'sklearn', 'scipy'])"
    script = f"{block}\nfrom manylens.cli import app; app({arguments})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and re.fullmatch(r"3 pairs ─► scores\.csv\n", done.stdout), done.stderr


def test_the_page_splits_a_table_and_reads_the_scores(
    cli: Cli, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/catalogue.md").read_text(encoding="utf-8")
    read, split = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"query": ["red mug"] * 9, "title": [f"blue lamp {n}" for n in range(9)]}), "pairs.parquet")
    exec(split.replace("100_000", "2").replace("2_500_000", "4"), {})
    pieces = sorted((tmp_path / "pieces").iterdir())
    assert [pq.read_metadata(piece).num_rows for piece in pieces] == [4, 4, 1]
    for number, piece in enumerate(pieces):
        assert cli("score", exported, piece, "-o", f"scores/{number}").exit_code == 0
    names: dict[str, pa.Table] = {}
    exec(read, names)
    assert names["scores"].num_rows == 9 and names["scores"].column_names == ["query_id", "product_id", "score"]


def test_a_missing_extra_is_one_line(finished: RunFolder, table: Path, tmp_path: Path) -> None:
    command = ["score", str(finished.model), str(table)]
    script = f"import sys; sys.modules['transformers'] = None\nfrom manylens.cli import app; app({command})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error transformers is not installed; run: pip install 'manylens[train]'\n"
