import pyarrow as pa
import pytest

from manylens.data.repeats import Repeats, find_repeats
from manylens.data.schema import CHECKED_SCHEMA


def find(*rows: tuple[str, ...]) -> Repeats:
    """Compare rows of query_id, product_id, label, query and (by default the joined) pair_id."""
    filled = [
        {
            **dict.fromkeys(CHECKED_SCHEMA.names, ""),
            "attributes": [],
            "file": "pairs.csv",
            "row": number,
            "query_id": query_id,
            "product_id": product_id,
            "label": label,
            "query": query,
            "pair_id": own[0] if own else f"{query_id}:{product_id}",
        }
        for number, (query_id, product_id, label, query, *own) in enumerate(rows, start=1)
    ]
    middle = len(filled) // 2
    tables = [pa.Table.from_pylist(part, schema=CHECKED_SCHEMA) for part in (filled[:middle], filled[middle:])]
    return find_repeats(pa.concat_tables(tables))


def test_an_exact_duplicate_is_dropped_and_counted() -> None:
    found = find(("q1", "p1", "exact", "a"), ("q1", "p2", "exact", "a"), ("q1", "p1", "exact", "A"))
    assert found.keep.tolist() == [0, 1]
    assert found.duplicates == 1
    assert found.problems == []


def test_a_duplicate_with_another_label_names_both_rows() -> None:
    found = find(("q1", "p1", "exact", "a"), ("q1", "p2", "exact", "a"), ("q1", "p1", "irrelevant", "a"))
    assert found.keep.tolist() == [0, 1]
    assert found.duplicates == 0
    (problem,) = found.problems
    assert (problem.file, problem.row, problem.field) == ("pairs.csv", 3, "label")
    assert "query 'q1' and product 'p1' are labelled 'irrelevant' here, but 'exact' in row 1" in problem.message


def test_one_query_id_for_two_queries() -> None:
    found = find(("q1", "p1", "exact", "red shoe"), ("q1", "p2", "exact", "Red  Shoe"), ("q1", "p3", "exact", "hat"))
    assert found.keep.tolist() == [0, 1]
    (problem,) = found.problems
    assert (problem.row, problem.field, problem.reason) == (3, "query_id", "query_id_reused")
    assert "'hat'" in problem.message
    assert "'red shoe'" in problem.message


@pytest.mark.parametrize("ids", [("x", "x"), ("x", "y")])
def test_own_pair_ids(ids: tuple[str, str]) -> None:
    found = find(("q1", "p1", "exact", "a", ids[0]), ("q1", "p2", "exact", "a", ids[1]))
    assert [problem.reason for problem in found.problems] == (["pair_id_reused"] if ids[0] == ids[1] else [])


def test_a_pair_under_two_ids_is_still_a_duplicate() -> None:
    found = find(("q1", "p1", "exact", "a", "x"), ("q1", "p1", "exact", "a", "y"))
    assert (found.keep.tolist(), found.duplicates) == ([0], 1)


def test_problems_come_by_row() -> None:
    found = find(
        ("q1", "p1", "exact", "a"),
        ("q1", "p1", "irrelevant", "a"),
        ("q1", "p2", "exact", "b"),
        ("q1", "p1", "substitute", "a"),
    )
    assert [(problem.row, problem.reason) for problem in found.problems] == [
        (2, "conflicting_labels"),
        (3, "query_id_reused"),
        (4, "conflicting_labels"),
    ]
