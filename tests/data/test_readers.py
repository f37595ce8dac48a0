from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from manylens.data.readers import open_table, require_file
from manylens.errors import BadRowError

from .build import write

ROWS = [{"a": f"a{number}", "b": 'x,\ty\n"z"', "c": "1"} for number in range(7)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_rows_are_numbered_and_only_the_wanted_columns_read(suffix: str, size: int, tmp_path: Path) -> None:
    table = open_table(write(tmp_path / f"t.{suffix}", ROWS))
    assert table.columns == ("a", "b", "c")
    chunks = list(table.chunks(["b", "a"], size))
    assert max(len(chunk.rows) for chunk in chunks) <= size
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(1, 8))
    assert [set(chunk.columns) for chunk in chunks] == [{"a", "b"}] * len(chunks)
    for name in ("a", "b"):
        values = [value for chunk in chunks for value in map(str, chunk.columns[name])]
        assert values == [row[name] for row in ROWS]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_numbers_count_bad_rows_and_skip_blank_lines(size: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,x\n\n2\n3,y\n4,z,?\n")
    chunks = list(open_table(tmp_path / "t.csv").chunks(["a"], size))
    assert [(row, value) for chunk in chunks for row, value in zip(chunk.rows, chunk.columns["a"], strict=True)] == [
        (1, "1"),
        (3, "3"),
    ]
    assert [problem.row for chunk in chunks for problem in chunk.problems] == [2, 4]


def test_the_keys_of_jsonl_are_those_of_all_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\nbroken\n{"b": null, "a": "x"}\n7\n')
    table = open_table(tmp_path / "t.jsonl")
    assert table.columns == ("a", "b")
    (chunk,) = table.chunks(["a", "b"])
    assert (chunk.rows.tolist(), chunk.columns) == ([1, 3], {"a": [1, "x"], "b": [None, None]})
    assert [problem.row for problem in chunk.problems] == [2, 4]


@pytest.mark.parametrize("name", ["t.CSV", "t.csv.gz"])
def test_suffixes(name: str, tmp_path: Path) -> None:
    data = b"a\n1\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert open_table(tmp_path / name).columns == ("a",)


def test_required_columns(tmp_path: Path) -> None:
    table = open_table(write(tmp_path / "t.csv", [{"query": "x", "label": "E"}]))
    table.require(["query"])
    with pytest.raises(BadRowError, match=r"t\.csv, field 'labels': .*did you mean 'label'\?\); columns: query, label"):
        table.require(["query", "labels"])


def test_a_file_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match=r"absent/t\.csv: there is no such file$"):
        require_file(tmp_path / "absent/t.csv")
