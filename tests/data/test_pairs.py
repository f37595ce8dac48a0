from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens.data.pairs import Pairs
from manylens.data.schema import PAIR_SCHEMA
from manylens.errors import BadRowError, DataError
from manylens.records import Pair


def pair(number: int, split: str = "train", **fields: object) -> Pair:
    ids = {"query_id": f"q{number % 3}", "product_id": f"p{number}", "pair_id": f"q{number % 3}:p{number}"}
    return Pair(**{**ids, "query": "red shoe", "title": f"Shoe {number}", "split": split, **fields})


MANY = [pair(0, attributes={"Size": "9", "Colour": "red"}, label="exact", locale="us"), pair(1, "dev"), pair(2, "test")]


def test_the_schema_has_the_fields_of_the_record_in_order() -> None:
    assert PAIR_SCHEMA.names == list(Pair.__slots__)


def test_records_come_back_in_order() -> None:
    pairs = Pairs.from_records(iter(MANY))
    assert len(pairs) == 3
    assert list(pairs) == MANY
    assert list(pairs) == MANY, "a second walk sees the same"


def test_a_file_is_mapped_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    big = Pairs.from_records(pair(number, description="x" * 1000) for number in range(20_000))
    pq.write_table(big.table, path)
    expected = list(big)
    del big
    before = pa.total_allocated_bytes()
    pairs = Pairs.read(path)
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert list(pairs) == expected


def test_split_is_a_slice_of_the_same_memory_where_rows_stand_together() -> None:
    pairs = Pairs.from_records([pair(0), pair(1), pair(2, "dev"), pair(3, "test")])
    part = pairs.split("train")
    assert [one.product_id for one in part] == ["p0", "p1"]
    assert part.table["title"].chunk(0).buffers()[2].address == pairs.table["title"].chunk(0).buffers()[2].address


def test_split_finds_rows_that_stand_apart_and_may_be_empty() -> None:
    pairs = Pairs.from_records([pair(0), pair(1, "dev"), pair(2)])
    assert [one.product_id for one in pairs.split("train")] == ["p0", "p2"]
    assert list(pairs.split("test")) == []


def test_get_and_select_go_by_id() -> None:
    pairs = Pairs.from_records(MANY)
    assert pairs.get("q1:p1") == MANY[1]
    assert list(pairs.select(["q2:p2", "q0:p0"])) == [MANY[2], MANY[0]]
    assert list(pairs.select([])) == []


@pytest.mark.parametrize("wanted", ["q1:p7", "q9:p1", "q1-p1"])
def test_an_unknown_id_names_the_nearest(wanted: str) -> None:
    with pytest.raises(DataError, match=rf"no pair '{wanted}' \(did you mean 'q1:p1'\?\) among 3 pairs"):
        Pairs.from_records(MANY).get(wanted)


def test_reading_what_is_no_table_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    with pytest.raises(DataError, match="no file of pairs at"):
        Pairs.read(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(BadRowError, match=r"pairs\.parquet: not a readable Parquet file"):
        Pairs.read(path)
    pq.write_table(pa.table({"query": ["a"]}), path)
    with pytest.raises(DataError, match=r"expected the columns of PAIR_SCHEMA .* got \['query'\]"):
        Pairs.read(path)
