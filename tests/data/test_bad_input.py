"""Every kind of bad input ends in one clear error that names file, row and field."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens.config import DataConfig, EsciData, WandsData
from manylens.data import load_pairs
from manylens.errors import BadRowError
from manylens.records import ESCI

from .build import ROWS, changed, example, product, table, write, write_esci

Make = Callable[[Path], DataConfig]


def rows(*made: dict[str, object], suffix: str = "csv", **options: object) -> Make:
    return lambda folder: table(write(folder / f"pairs.{suffix}", made), **options)


def content(data: bytes, name: str = "pairs.csv", **options: object) -> Make:
    def make(folder: Path) -> DataConfig:
        (folder / name).write_bytes(data)
        return table(folder / name, **options)

    return make


def esci(examples: list[dict[str, object]], products: list[dict[str, object]]) -> Make:
    return lambda folder: EsciData(loader="esci", path=str(write_esci(folder, examples, products)))


def truncated(folder: Path) -> DataConfig:
    path = write(folder / "pairs.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-40])
    return table(path)


def corrupted(folder: Path) -> DataConfig:
    path = write(folder / "pairs.parquet", [{**ROWS[0], "title": f"{number * 7919}"} for number in range(5000)])
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\x00" * 1996
    path.write_bytes(data)
    return table(path)


def broken_parquet_text(folder: Path) -> DataConfig:
    made = pa.Table.from_pylist(ROWS)
    titles = pa.array([b"Red shoe", b"Caf\xe9", b"Cushion"]).cast(pa.string(), safe=False)
    pq.write_table(made.set_column(3, "title", titles), folder / "pairs.parquet")
    return table(folder / "pairs.parquet")


def truncated_gzip(folder: Path) -> DataConfig:
    text = "".join(json.dumps({**ROWS[0], "title": f"{number * 7919}"}) + "\n" for number in range(5000))
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-100])
    return table(folder / "pairs.jsonl.gz")


def folder_instead_of_file(folder: Path) -> DataConfig:
    (folder / "pairs.csv").mkdir()
    return table(folder / "pairs.csv")


def misspelled_path(folder: Path) -> DataConfig:
    write(folder / "pairs.csv", ROWS)
    return table(folder / "pears.csv")


def wands_without_products(folder: Path) -> DataConfig:
    (folder / "label.csv").write_text("id\tquery_id\tproduct_id\tlabel\n1\t1\t1\tExact\n")
    (folder / "query.csv").write_text("query_id\tquery\tquery_class\n1\tsofa\tSofas\n")
    return WandsData(loader="wands", path=str(folder))


HEADER = b"query_id,query,product_id,title,label,split\n"
GOOD = [example(1, 1, "E"), example(2, 2, "S", split="test")]

# id: (source, row, field, fragment of the message)
ROW_PROBLEMS: dict[str, tuple[Make, int, str | None, str]] = {
    "unknown label": (
        rows(*changed(2, label="substitut")),
        2,
        "label",
        "unknown label 'substitut' (did you mean 'substitute'?); expected one of exact, substitute, complement, irr",
    ),
    "empty label": (rows(*changed(2, label="")), 2, "label", "the label is empty"),
    "empty query": (rows(*changed(2, query="  ")), 2, "query", "the query is empty"),
    "empty title": (rows(*changed(3, title="")), 3, "title", "the title is empty"),
    "empty title under another name": (
        rows(
            *(
                {("name" if key == "title" else key): value for key, value in row.items()}
                for row in changed(3, title="")
            ),
            columns={"title": "name"},
        ),
        3,
        "name",
        "the title is empty",
    ),
    "empty id": (rows(*changed(1, product_id="")), 1, "product_id", "the id is empty"),
    "null id": (rows(*changed(1, query_id=None), suffix="parquet"), 1, "query_id", "the id is empty"),
    "duplicate pair with another label": (
        rows(*ROWS, {**ROWS[0], "label": "irrelevant"}),
        4,
        "label",
        "query 'q1' and product 'p1' are labelled 'irrelevant' here, but 'exact' in row 1",
    ),
    "one query id, two queries": (
        rows(*ROWS, {**ROWS[0], "query": "green shoes", "product_id": "p9"}),
        4,
        "query_id",
        "'green shoes' (locale '') here, but for 'red shoes' (locale '') in row 1",
    ),
    "one pair id, two pairs": (
        rows(*({**row, "pair_id": f"x{number % 2}"} for number, row in enumerate(ROWS))),
        3,
        "pair_id",
        "pair_id 'x0' is also that of another pair, in row 1",
    ),
    "unknown split": (rows(*changed(2, split="devel")), 2, "split", "unknown split 'devel'"),
    "empty split": (rows(*changed(2, split="")), 2, "split", "unknown split ''"),
    "NUL byte": (rows(*changed(2, title="Blue\x00cap")), 2, "title", "the text holds a NUL byte"),
    "NUL byte in an attribute": (
        rows(*changed(2, attributes={"Size": "9\x00"}), suffix="jsonl"),
        2,
        "attributes",
        "the text holds a NUL byte",
    ),
    "broken UTF-8 in CSV": (
        content(HEADER + b"q1,red shoes,p1,Red shoe,exact,train\nq2,caf\xe9,p2,Cap,exact,dev\n"),
        2,
        "query",
        "broken UTF-8 in 'caf\\udce9'",
    ),
    "broken UTF-8 in JSONL": (
        content(b'{"query": "red shoes", "title": "Shoe", "label": "E"}\n{"query": "caf\xe9"}\n', "pairs.jsonl"),
        2,
        None,
        "broken UTF-8",
    ),
    "broken UTF-8 in Parquet": (broken_parquet_text, 2, "title", "broken UTF-8 in 'Caf\\udce9'"),
    "lone surrogate in JSONL": (
        content(b'{"query": "red shoes", "title": "Shoe \\ud800", "label": "E"}\n', "pairs.jsonl"),
        1,
        "title",
        "broken UTF-8",
    ),
    "broken JSON line": (
        content(b'{"query": "red shoes", "title": "Shoe", "label": "E"}\n\n{"query": "hat", \n', "pairs.jsonl"),
        2,
        None,
        "expected a JSON object, got broken JSON",
    ),
    "JSON line that is no object": (
        content(b'{"query": "red shoes", "title": "Shoe", "label": "E"}\n["hat"]\n', "pairs.jsonl"),
        2,
        None,
        "expected a JSON object, got list",
    ),
    "number where a string is needed": (
        rows(*changed(2, title=7), suffix="jsonl"),
        2,
        "title",
        "expected a string, got 7",
    ),
    "list where a string is needed": (rows(*changed(2, query=["a"]), suffix="jsonl"), 2, "query", 'got ["a"]'),
    "broken attributes": (
        rows(*changed(2, attributes="{Size: 9}")),
        2,
        "attributes",
        "expected a JSON object of texts and numbers",
    ),
    "too few cells": (content(HEADER + b"q1,red shoes,p1,Red shoe,exact,train\nq2,hat,p2\n"), 2, None, "got 3"),
    "too many cells": (
        content(HEADER + b"q1,red, shoes,p1,Red shoe,exact,train\n"),
        1,
        None,
        "expected 6 cells as in the header, got 7",
    ),
    "product id without a product": (
        esci([*GOOD, example(9, 1, "E")], [product(1), product(2)]),
        3,
        "product_id",
        "no product 'B9' in",
    ),
    "product of another locale only": (
        esci(GOOD, [product(1, product_locale="es"), product(2)]),
        1,
        "product_id",
        "no product 'B1' in",
    ),
    "product without a title": (
        esci(GOOD, [product(2), product(1, product_title=" ")]),
        1,
        "product_id",
        "products.parquet, row 2, field 'product_title': the title is empty",
    ),
}

# id: (source, file's name, row, field, fragment of the message)
FILE_PROBLEMS: dict[str, tuple[Make, str, int | None, str | None, str]] = {
    "missing file": (misspelled_path, "pears.csv", None, None, "there is no such file (did you mean"),
    "folder instead of a file": (folder_instead_of_file, "pairs.csv", None, None, "expected a file, got a folder"),
    "empty file": (content(b""), "pairs.csv", None, None, "the file is empty"),
    "unknown suffix": (content(b"x", "pairs.xlsx"), "pairs.xlsx", None, None, "expected a file named .csv, .tsv"),
    "truncated Parquet": (truncated, "pairs.parquet", None, None, "not a whole, readable parquet file"),
    "corrupted Parquet": (corrupted, "pairs.parquet", None, None, "not a whole, readable parquet file"),
    "text that calls itself Parquet": (
        content(b"query,title", "pairs.parquet"),
        "pairs.parquet",
        None,
        None,
        "readable",
    ),
    "truncated gzip": (truncated_gzip, "pairs.jsonl.gz", None, None, "not a whole, readable jsonl file"),
    "UTF-16": (
        content("query,title,label\nhat,cap,E\n".encode("utf-16")),
        "pairs.csv",
        None,
        None,
        "expected a header line in UTF-8",
    ),
    "missing column": (
        rows(*({key: value for key, value in row.items() if key != "title"} for row in ROWS)),
        "pairs.csv",
        None,
        "title",
        "a column for this field is required",
    ),
    "mapped column that is absent": (
        rows(*ROWS, columns={"title": "titel"}),
        "pairs.csv",
        None,
        "titel",
        "there is none such (did you mean 'title'?)",
    ),
    "several columns for one text": (
        rows(*ROWS, columns={"title": ["title", "label"]}),
        "pairs.csv",
        None,
        "title",
        "only attributes can be made of several columns",
    ),
    "header with a column twice": (
        content(b"query,title,title,label\nhat,cap,cap,E\n"),
        "pairs.csv",
        None,
        "title",
        "more than once",
    ),
    "quote that is never closed": (
        content(HEADER + b'q1,red shoes,p1,Red shoe,exact,train\nq2,"hat,p2,Cap,exact,dev\nq3,sofa,p3,Sofa,E,test\n'),
        "pairs.csv",
        2,
        None,
        "look for a quote that is never closed",
    ),
    "numbers in a Parquet text column": (
        rows(*({**row, "title": 1} for row in ROWS), suffix="parquet"),
        "pairs.parquet",
        None,
        "title",
        "expected a column of strings, got int64",
    ),
    "ESCI without a column": (
        esci([{key: value for key, value in row.items() if key != "esci_label"} for row in GOOD], [product(1)]),
        "shopping_queries_dataset_examples.parquet",
        None,
        "esci_label",
        "this column is required",
    ),
    "ESCI product twice": (
        esci(GOOD, [product(1), product(2), product(1)]),
        "shopping_queries_dataset_products.parquet",
        None,
        "product_id",
        "'B1' stands in more than one row",
    ),
    "ESCI product without an id": (
        esci(GOOD, [product(1), product(2, product_id=None)]),
        "shopping_queries_dataset_products.parquet",
        2,
        "product_id",
        "the product_id is empty",
    ),
    "ESCI version that the files do not have": (
        esci([{**row, "small_version": 0} for row in GOOD], [product(1), product(2)]),
        "shopping_queries_dataset_examples.parquet",
        None,
        "small_version",
        "change data.version or data.locales",
    ),
    "WANDS without a file": (wands_without_products, "product.csv", None, None, "there is no such file"),
}


def failing(make: Make, folder: Path, **options: object) -> BadRowError:
    source = folder / "source"
    source.mkdir(exist_ok=True)
    config = make(source).model_copy(update=options)
    with pytest.raises(BadRowError) as caught:
        load_pairs(config, ESCI, folder / "out")
    assert sorted(path.name for path in (folder / "out").iterdir()) == [], "nothing half-written stays behind"
    return caught.value


@pytest.mark.parametrize("kind", ROW_PROBLEMS)
def test_a_bad_row_is_named(kind: str, tmp_path: Path) -> None:
    make, row, field, fragment = ROW_PROBLEMS[kind]
    error = failing(make, tmp_path)
    assert (error.row, error.field) == (row, field)
    assert Path(error.file).parent == tmp_path / "source"
    assert fragment in error.problem
    assert "data.on_bad_row: skip" in error.problem


@pytest.mark.parametrize("kind", FILE_PROBLEMS)
@pytest.mark.parametrize("on_bad_row", ["fail", "skip"])
def test_a_bad_file_always_fails(kind: str, on_bad_row: str, tmp_path: Path) -> None:
    make, name, row, field, fragment = FILE_PROBLEMS[kind]
    error = failing(make, tmp_path, on_bad_row=on_bad_row)
    assert (Path(error.file).name, error.row, error.field) == (name, row, field)
    assert fragment in error.problem
