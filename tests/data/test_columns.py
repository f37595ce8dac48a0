from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from manylens.data.columns import columns_of, map_columns, to_fields
from manylens.data.readers import Chunk
from manylens.errors import BadRowError, UnknownNameError

PRESENT = ("query", "name", "label", "colour", "size")


def test_names_of_ours_need_no_entry_and_entries_win() -> None:
    columns = {"title": "name", "label": "size", "attributes": ["colour", "size"]}
    mapped = map_columns(columns, PRESENT, file="t.csv", required=("query", "title"))
    assert mapped == {
        "query": "query",
        "title": "name",
        "label": "size",
        "attributes": {"colour": "colour", "size": "size"},
    }
    assert columns_of(mapped) == ["query", "size", "name", "colour", "size"]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"titel": "name"}, UnknownNameError, "did you mean 'title'"),
        ({"title": "nme"}, BadRowError, r"t\.csv, field 'nme': data\.columns\.title .*did you mean 'name'"),
        ({"attributes": ["color"]}, BadRowError, "field 'color': .*did you mean 'colour'"),
        ({"title": ["name", "size"]}, BadRowError, "only attributes"),
        (
            {},
            BadRowError,
            "field 'title': a column for this field is required; set data.columns.title to one of: query",
        ),
    ],
)
def test_mappings_that_do_not_fit(columns: dict[str, str | list[str]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        map_columns(columns, PRESENT, file="t.csv", required=("title",))


def test_values_get_their_meaning_and_faults_their_row() -> None:
    chunk = Chunk(
        rows=np.array([4, 9]),
        columns={"id": pa.array([7, 8]), "name": ["Cap", 3], "colour": ["red", None], "size": [9.5, ""]},
    )
    raw = to_fields(chunk, {"query_id": "id", "title": "name", "attributes": {"Colour": "colour", "Size": "size"}}, "t")
    assert raw.columns["query_id"].to_pylist() == ["7", "8"]
    assert raw.columns["title"].to_pylist() == ["Cap", None]
    assert raw.columns["attributes"].to_pylist() == [[("Colour", "red"), ("Size", "9.5")], []]
    (problem,) = raw.problems
    assert (problem.row, problem.field, problem.raw) == (9, "name", {"id": 8, "name": 3, "colour": None, "size": ""})
