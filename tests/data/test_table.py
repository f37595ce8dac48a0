from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from manylens.data import PAIR_SCHEMA, Pairs, iter_products, iter_unlabelled, load_pairs
from manylens.errors import BadRowError, UnknownNameError
from manylens.records import ESCI, Pair

from .build import ROWS, table, write

OWN = [
    {
        "search": row["query"],
        "name": row["title"],
        "verdict": row["label"],
        "part": row["split"],
        "colour": "red",
        "size": "" if row["query"] == "sofa" else "9",
        "market": "uk",
    }
    for row in ROWS
]
COLUMNS = {
    "query": "search",
    "title": "name",
    "label": "verdict",
    "split": "part",
    "locale": "market",
    "attributes": ["colour", "size"],
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_own_columns_and_derived_ids(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"own.{suffix}", OWN)
    load_pairs(table(path, columns=COLUMNS), ESCI, tmp_path / "out")
    first, _, last = Pairs.read(tmp_path / "out/pairs.parquet")
    assert first == Pair(
        pair_id=f"{first.query_id}:{first.product_id}",
        query_id=first.query_id,
        product_id=first.product_id,
        query="red shoes",
        title="Red shoe",
        attributes={"colour": "red", "size": "9"},
        locale="uk",
        label="exact",
        split="train",
    )
    assert last.attributes == {"colour": "red"}
    assert len(first.query_id) == len(first.product_id) == 16


def test_derived_ids_go_by_query_and_product(tmp_path: Path) -> None:
    rows = [
        {"query": "Red  Shoes", "title": "Shoe", "size": "8"},
        {"query": "red shoes", "title": "Shoe", "size": "8"},
        {"query": "red shoes", "title": "Shoe", "size": "9"},
        {"query": "red shoe", "title": "Shoe", "size": "9"},
    ]
    path = write(tmp_path / "pairs.csv", rows)
    (batch,) = iter_unlabelled(path, {"attributes": ["size"]})
    one, two, three, four = batch["query_id"].to_pylist()
    assert one == two == three != four
    one, two, three, four = batch["product_id"].to_pylist()
    assert one == two != three == four


def test_an_own_pair_id_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [{**row, "id": f"x{number}"} for number, row in enumerate(ROWS)])
    load_pairs(table(path, columns={"pair_id": "id"}), ESCI, tmp_path / "out")
    assert [pair.pair_id for pair in Pairs.read(tmp_path / "out/pairs.parquet")] == ["x0", "x1", "x2"]


def test_compressed_text_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeff" + write(tmp_path / "pairs.csv", ROWS).read_text()
    (tmp_path / "pairs.csv.gz").write_bytes(gzip.compress(text.encode()))
    (batch,) = iter_unlabelled(tmp_path / "pairs.csv.gz")
    assert batch["query"].to_pylist() == ["red shoes", "blue hat", "sofa"]


def test_scoring_needs_no_label_and_keeps_every_row_in_order(tmp_path: Path) -> None:
    rows = [{"query": "hat", "title": f"Cap {number % 3}"} for number in range(20_000)]
    batches = list(iter_unlabelled(write(tmp_path / "pairs.csv", rows)))
    assert len(batches) == 3
    assert all(batch.schema.equals(PAIR_SCHEMA) for batch in batches)
    assert [title for batch in batches for title in batch["title"].to_pylist()] == [row["title"] for row in rows]
    assert batches[0]["label"].null_count == batches[0].num_rows
    assert set(batches[0]["split"].to_pylist()) == {"test"}


def test_scoring_reads_labels_only_with_a_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [{"query": "hat", "title": "Cap", "label": label} for label in ("S", "")])
    assert next(iter_unlabelled(path))["label"].to_pylist() == [None, None]
    assert next(iter_unlabelled(path, scale=ESCI))["label"].to_pylist() == ["substitute", None]
    write(path, [{"query": "hat", "title": "Cap", "label": "?"}])
    with pytest.raises(BadRowError, match=r"row 1, field 'label': unknown label '\?'"):
        next(iter_unlabelled(path, scale=ESCI))


def test_scoring_stops_at_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [{"query": "hat", "title": "Cap"}, {"query": "", "title": "Cap"}])
    with pytest.raises(BadRowError, match=r"pairs\.csv, row 2, field 'query': the query is empty"):
        list(iter_unlabelled(path))


def test_a_mapping_of_no_field_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", ROWS)
    with pytest.raises(UnknownNameError, match=r"unknown field in data\.columns 'titel' \(did you mean 'title'\?\)"):
        load_pairs(table(path, columns={"titel": "title"}), ESCI, tmp_path / "out")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_products_need_no_query_and_every_row_comes_in_its_order(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"sku": "2", "name": "Red shoe", "colour": "red", "query": ""},
        {"sku": "1", "name": "Sofa", "colour": "", "query": "\x00"},
        {"sku": "2", "name": "Red shoe", "colour": "red", "query": "red"},
    ]
    path = write(tmp_path / f"products.{suffix}", rows)
    (batch,) = iter_products(path, {"product_id": "sku", "title": "name", "attributes": ["colour"]})
    assert batch.schema.names == ["product_id", "title", "brand", "attributes", "description", "locale"]
    columns = batch.to_pydict()
    assert (columns["product_id"], columns["title"]) == (["2", "1", "2"], ["Red shoe", "Sofa", "Red shoe"])
    assert columns["attributes"] == [[("colour", "red")], [], [("colour", "red")]]


def test_a_product_needs_an_id_and_a_title(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match="field 'product_id': a column for this field is required"):
        list(iter_products(write(tmp_path / "own.csv", [{"title": "Shoe"}])))
    with pytest.raises(BadRowError, match="row 2, field 'title': the title is empty"):
        rows = [{"product_id": "1", "title": "Shoe"}, {"product_id": "2", "title": " "}]
        list(iter_products(write(tmp_path / "empty.csv", rows)))
