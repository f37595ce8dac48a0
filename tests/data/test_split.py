from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.schema import CHECKED_SCHEMA
from manylens.data.split import query_share, settle_splits
from manylens.errors import DataError, QueryLeakError
from manylens.records import SPLITS


def table(rows: list[dict[str, str | None]]) -> pa.Table:
    filled = [
        {
            **dict.fromkeys(CHECKED_SCHEMA.names, ""),
            "attributes": [],
            "file": "pairs.csv",
            "row": number,
            "query_id": row["query"],
            "split": None,
            **row,
        }
        for number, row in enumerate(rows, start=1)
    ]
    return pa.Table.from_pylist(filled, schema=CHECKED_SCHEMA)


def settle(rows: list[dict[str, str | None]], **options: object) -> list[str]:
    made = table(rows)
    defaults = {"dev_fraction": 0.15, "test_fraction": 0.2, "split_seed": 13}
    codes = settle_splits(made, np.arange(made.num_rows), **{**defaults, **options})
    return [SPLITS[code] for code in codes]


def queries(count: int, **fields: str) -> list[dict[str, str | None]]:
    return [{"query": f"query {number}", **fields} for number in range(count)]


def test_shares_come_close_to_the_fractions() -> None:
    counts = Counter(settle(queries(4000)))
    assert counts["test"] == pytest.approx(800, abs=80)
    assert counts["dev"] == pytest.approx(0.15 * 3200, abs=70)


def test_all_rows_of_a_query_go_together() -> None:
    rows = queries(300)
    once = settle(rows)
    assert settle([{**row, "query_id": f"{row['query']} again"} for row in rows] + rows) == once + once


def test_the_share_is_the_same_on_every_machine() -> None:
    assert query_share("red shoes\x1fus", 13, "dev") == 0x9840932B52DC669A / 2**64


@given(st.sets(st.text(st.characters(codec="utf-8"), min_size=1), max_size=20), st.integers(0, 5))
def test_more_rows_never_move_a_query(more: set[str], seed: int) -> None:
    rows = queries(200)
    before = settle(rows, split_seed=seed)
    names = {row["query"] for row in rows}
    after = settle([{"query": text} for text in sorted(more - names)] + rows, split_seed=seed)
    assert after[-200:] == before


def test_another_seed_splits_otherwise() -> None:
    assert settle(queries(200)) != settle(queries(200), split_seed=14)


def test_splits_of_the_source_stand() -> None:
    rows = [{"query": name, "split": split} for name, split in [("a", "train"), ("b", "dev"), ("c", "test")]]
    assert settle(rows) == ["train", "dev", "test"]


def test_only_train_gives_to_a_missing_dev() -> None:
    rows = queries(300)
    splits = settle([{**row, "split": "test" if number < 100 else "train"} for number, row in enumerate(rows)])
    assert splits[:100] == ["test"] * 100
    assert set(splits[100:]) == {"train", "dev"}


@pytest.mark.parametrize(
    "second",
    [{"query": "other words", "query_id": "q1"}, {"query": " RED  shoes", "query_id": "q2"}],
    ids=["same id", "same text"],
)
def test_a_query_in_two_splits_is_refused(second: dict[str, str | None]) -> None:
    rows = [
        {"query": "red shoes", "query_id": "q1", "split": "train"},
        {"query": "hats", "split": "dev"},
        {**second, "split": "test"},
    ]
    with pytest.raises(QueryLeakError, match=r"row 3: the query .* is in the split 'test', but in 'train' in row 1"):
        settle(rows)


def test_the_same_words_in_two_locales_are_two_queries() -> None:
    rows = [
        {"query": "sofa", "query_id": name, "locale": name, "split": split}
        for name, split in [("us", "train"), ("es", "dev"), ("de", "test")]
    ]
    assert settle(rows) == ["train", "dev", "test"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (queries(9, split="train"), "the test split has no pairs; give test rows, or remove the split column"),
        (queries(9, split="test"), "the train split has no pairs; give more queries"),
        ([*queries(1, split="train"), {"query": "x", "split": "test"}], "the dev split has no pairs; .*dev_fraction"),
        (queries(1), "split has no pairs"),
    ],
)
def test_an_empty_split_is_refused(rows: list[dict[str, str | None]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        settle(rows)
