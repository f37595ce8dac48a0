"""Small sources in the original layouts, for the tests of this folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manylens.config import TableData

Row = dict[str, Any]

#: One query of each split, a pair each.
ROWS: list[Row] = [
    {
        "query_id": "q1",
        "query": "red shoes",
        "product_id": "p1",
        "title": "Red shoe",
        "label": "exact",
        "split": "train",
    },
    {"query_id": "q2", "query": "blue hat", "product_id": "p2", "title": "Blue cap", "label": "S", "split": "dev"},
    {"query_id": "q3", "query": "sofa", "product_id": "p3", "title": "Cushion", "label": "Complement", "split": "test"},
]


def changed(row: int, **fields: object) -> list[Row]:
    """Return `ROWS` with some fields of one row (from 1) changed."""
    return [{**one, **fields} if number == row else one for number, one in enumerate(ROWS, start=1)]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows in the format that the suffix names."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


def table(path: Path, **options: object) -> TableData:
    """Return the data section for one table."""
    return TableData.model_validate({"loader": "table", "path": str(path), **options})


def example(number: int, query_id: int, label: str, **fields: object) -> Row:
    """Return a row of the ESCI examples file."""
    row = {
        "example_id": number,
        "query": f"query {query_id}",
        "query_id": query_id,
        "product_id": f"B{number}",
        "product_locale": "us",
        "esci_label": label,
        "small_version": 1,
        "large_version": 1,
        "split": "train",
    }
    return {**row, **fields}


def product(number: int, **fields: object) -> Row:
    """Return a row of the ESCI products file."""
    row = {
        "product_id": f"B{number}",
        "product_title": f"Product {number}",
        "product_description": None,
        "product_bullet_point": None,
        "product_brand": "Brand",
        "product_color": None,
        "product_locale": "us",
    }
    return {**row, **fields}


def write_esci(folder: Path, examples: Sequence[Row], products: Sequence[Row], sources: str | None = None) -> Path:
    """Write the files of the Shopping Queries Dataset."""
    write(folder / "shopping_queries_dataset_examples.parquet", examples)
    # Descriptions are strings even where all are null.
    text = [name for name in products[0] if name != "product_id"]
    schema = pa.schema([("product_id", pa.string()), *((name, pa.large_string()) for name in text)])
    pq.write_table(pa.Table.from_pylist(list(products), schema), folder / "shopping_queries_dataset_products.parquet")
    if sources is not None:
        (folder / "shopping_queries_dataset_sources.csv").write_text(sources)
    return folder
