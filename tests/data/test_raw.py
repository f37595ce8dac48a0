import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.raw import Problem, RawBatch


def problem(row: int) -> Problem:
    return Problem(file="pairs.csv", row=row, field="title", reason="type", message="wrong", raw={})


def batch(rows: list[int], bad: list[int]) -> RawBatch:
    return RawBatch(
        file="pairs.csv",
        rows=np.array(rows, dtype=np.int64),
        columns={"title": pa.array([str(row) for row in rows], pa.string())},
        names={"title": "name"},
        problems=[problem(row) for row in bad],
    )


def test_a_problem_speaks_as_the_file_does() -> None:
    found = batch([4, 6], []).problem(1, "title", "empty_title", "the title is empty")
    assert str(found.error()) == "pairs.csv, row 6, field 'name': the title is empty"
    assert found.raw == {"title": "6"}


def test_filter_takes_the_problems_along() -> None:
    left = batch([1, 3, 4], [2, 3, 4]).filter(np.array([True, False, True]))
    assert left.columns["title"].to_pylist() == ["1", "4"]
    # Row 2 could not be read, so nobody knows whether the filter would have dropped it.
    assert [one.row for one in left.problems] == [2, 4]


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.integers(1, 7))
def test_slices_lose_nothing(rows: set[int], bad: set[int], length: int) -> None:
    parts = batch(sorted(rows), sorted(bad)).slices(length)
    assert [row for part in parts for row in part.rows] == sorted(rows)
    assert [one.row for part in parts for one in part.problems] == sorted(bad)
    assert all(len(part.rows) <= length for part in parts)
    for part in parts:
        assert part.columns["title"].to_pylist() == [str(row) for row in part.rows]
        own = {one.row for one in part.problems}
        assert own & rows <= set(part.rows.tolist())
