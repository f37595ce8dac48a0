from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.raw import Problem, RawBatch
from manylens.data.schema import CHECKED_SCHEMA
from manylens.data.validate import SPLIT_NAMES, check_rows
from manylens.records import ESCI


def raw(**columns: list[str | None]) -> RawBatch:
    count = len(next(iter(columns.values())))
    defaults: dict[str, list[str | None]] = {"query": ["hat"] * count, "title": ["Cap"] * count, "label": ["E"] * count}
    arrays = {name: pa.array(values, pa.string()) for name, values in {**defaults, **columns}.items()}
    return RawBatch(file="pairs.csv", rows=np.arange(1, count + 1), columns=arrays)


def test_good_rows_carry_all_columns() -> None:
    checked, problems = check_rows(raw(query_id=["q1"], product_id=["p1"], split=["Validation "]), ESCI)
    assert problems == []
    assert checked.schema.equals(CHECKED_SCHEMA)
    assert checked.to_pylist() == [
        {
            "pair_id": "q1:p1",
            "query_id": "q1",
            "product_id": "p1",
            "query": "hat",
            "title": "Cap",
            "brand": "",
            "attributes": [],
            "description": "",
            "locale": "",
            "query_kind": "",
            "label": "exact",
            "split": "dev",
            "row": 1,
            "file": "pairs.csv",
        }
    ]


def test_a_row_has_one_problem_and_rows_keep_their_numbers() -> None:
    checked, problems = check_rows(raw(query=["", "hat", "hat"], label=["?", "S", "?"]), ESCI)
    assert [(problem.row, problem.reason) for problem in problems] == [(1, "empty_query"), (3, "unknown_label")]
    assert (checked["row"].to_pylist(), checked["label"].to_pylist()) == ([2], ["substitute"])


def test_what_the_loader_found_comes_first() -> None:
    batch = raw(query=["", "hat"])
    found = Problem(file="pairs.csv", row=1, field="query", reason="utf8", message="broken", raw={})
    checked, problems = check_rows(
        RawBatch(file=batch.file, rows=batch.rows, columns=batch.columns, problems=[found]), ESCI
    )
    assert problems == [found]
    assert checked.num_rows == 1


@pytest.mark.parametrize("label", ["exact", "EXACT", " Exact ", "e"])
def test_labels_are_read_as_the_scale_reads_them(label: str) -> None:
    assert check_rows(raw(label=[label]), ESCI)[0]["label"].to_pylist() == ["exact"]


def test_labels_are_optional_only_where_said() -> None:
    assert check_rows(raw(label=[""]), ESCI)[1][0].reason == "empty_label"
    assert check_rows(raw(label=[None]), ESCI, labelled=False)[0]["label"].to_pylist() == [None]
    assert check_rows(raw(label=["?"]), ESCI, labelled=False)[1][0].reason == "unknown_label"
    assert check_rows(raw(label=["?"]), None)[0]["label"].to_pylist() == [None]


def test_a_nul_byte_in_any_map_is_found_in_its_row() -> None:
    batch = raw(query=["a", "b", "c"])
    maps = pa.array([[("Size", "9")], [], [("Si\x00ze", "9")]], pa.map_(pa.string(), pa.string()))
    _, problems = check_rows(batch.with_columns(attributes=maps), ESCI)
    assert [(problem.row, problem.field, problem.reason) for problem in problems] == [(3, "attributes", "nul")]


@given(st.lists(st.tuples(*[st.none() | st.text(st.characters(codec="utf-8"))] * 4), min_size=1, max_size=6))
def test_every_row_is_either_good_or_named(rows: list[tuple[str | None, ...]]) -> None:
    query, title, label, split = (list(column) for column in zip(*rows, strict=True))
    checked, problems = check_rows(raw(query=query, title=title, label=label, split=split), ESCI)
    checked.validate(full=True)
    bad = [problem.row for problem in problems]
    assert sorted(checked["row"].to_pylist() + bad) == list(range(1, len(rows) + 1))
    for number, row in enumerate(rows, start=1):
        fine = (
            all(text and text.strip() and "\x00" not in text for text in row[:2])
            and ESCI.parse(row[2] or "") is not None
            and (row[3] or "").strip().casefold() in SPLIT_NAMES
        )
        assert fine == (number not in bad)
