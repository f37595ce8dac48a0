from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from manylens.errors import DataError, StudentError
from manylens.records import ESCI
from manylens.student import Student
from manylens.student.score import score_table

from .build import make_pairs

PAIRS = make_pairs(2100)  # more than one part of rows
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


@pytest.fixture(scope="module")
def student(student_folder: Path) -> Student:
    return Student.load(student_folder, device="cpu")


def write_source(path: Path, count: int) -> Path:
    columns = {
        name: [getattr(pair, name) for pair in PAIRS[:count]] for name in ("pair_id", "query_id", "product_id", "query")
    }
    table = pa.table({**columns, "name": [pair.title for pair in PAIRS[:count]]})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pyarrow.csv.write_csv(table, path)
    return path


@pytest.mark.parametrize(("source", "out"), [("pairs.csv", "scores.parquet"), ("pairs.parquet", "scores.csv")])
def test_scores_are_the_students_predictions_in_order(student: Student, tmp_path: Path, source: str, out: str) -> None:
    count = score_table(student, write_source(tmp_path / source, 2100), tmp_path / out, {"title": "name"})
    assert count == 2100
    path = tmp_path / out
    table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    assert table.column_names == COLUMNS
    assert table["pair_id"].to_pylist() == [pair.pair_id for pair in PAIRS]
    assert table["title"].to_pylist() == [pair.title for pair in PAIRS]
    predictions = student.predict(PAIRS)
    assert table["label"].to_pylist() == [prediction.label for prediction in predictions]
    np.testing.assert_allclose(table["score"].to_numpy(), [p.score for p in predictions], rtol=1e-4)
    for name in ESCI.names:
        np.testing.assert_allclose(
            table[f"p_{name}"].to_numpy(), [p.probabilities[name] for p in predictions], rtol=1e-4
        )
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([source, out])


def test_text_that_needs_quotes_survives_csv(student: Student, tmp_path: Path) -> None:
    title = 'A "red"\nshoe, size 10; größe 42'
    source = tmp_path / "pairs.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["query", "title"], ["red, shoe", title]])
    score_table(student, source, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["query"], row["title"]) == ("red, shoe", title)


def test_a_failure_leaves_the_old_scores_and_no_litter(student: Student, tmp_path: Path) -> None:
    source, out = tmp_path / "pairs.csv", tmp_path / "scores.csv"
    out.write_text("old", encoding="utf-8")
    source.write_text("query,title\nred,hat\n,hat\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs\.csv, row 2, field 'query'"):
        score_table(student, source, out)
    assert out.read_text(encoding="utf-8") == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pairs.csv", "scores.csv"]


def test_another_ending_is_refused_before_anything_is_read(student: Student, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"scores are written as \.parquet or \.csv, got '\.xlsx'"):
        score_table(student, tmp_path / "missing.csv", tmp_path / "scores.xlsx")
