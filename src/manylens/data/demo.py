"""The demo store: an invented shop that ships with manylens."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pyarrow as pa

from manylens.config import DemoData
from manylens.data.columns import Mapped, columns_of, to_fields
from manylens.data.lookup import Lookup
from manylens.data.raw import RawBatch
from manylens.data.readers import TableFile, open_table
from manylens.data.schema import ATTRIBUTES_TYPE

_STORE = Path(str(resources.files("manylens.data"))) / "demo_store"

_LABEL_FIELDS: Mapped = {"query_id": "query_id", "product_id": "product_id", "label": "label"}
_QUERY_FIELDS: Mapped = {
    "query_id": "query_id",
    "query": "query",
    "locale": "locale",
    "query_kind": "kind",
    "split": "split",
}
_PRODUCT_FIELDS: Mapped = {
    "product_id": "product_id",
    "title": "title",
    "brand": "brand",
    "description": "description",
    "category": "category",
    "attributes": "attributes",
}


def input_files(config: DemoData) -> tuple[Path, ...]:
    """Return the store's files: labels, queries and products."""
    return tuple(_STORE / name for name in ("labels.jsonl", "queries.jsonl", "products.jsonl"))


def read(config: DemoData, folder: Path) -> Iterator[RawBatch]:
    """Yield the labels, joined with their queries and products; the category is the first attribute.

    Args:
        config: Nothing but the common options.
        folder: Where temporary disk space is taken.

    Yields:
        Rows by the numbers of ``labels.jsonl``.
    """
    labels, queries, products = (open_table(path) for path in input_files(config))
    of_query = Lookup(
        _rows(queries, _QUERY_FIELDS),
        key=("query_id",),
        fields=("query", "locale", "query_kind", "split"),
        file=queries.path,
        folder=folder,
    )
    of_product = Lookup(
        (_product(raw) for raw in _rows(products, _PRODUCT_FIELDS)),
        key=("product_id",),
        fields=("title", "brand", "description", "attributes"),
        file=products.path,
        folder=folder,
    )
    for raw in _rows(labels, _LABEL_FIELDS):
        for with_query in of_query.join(raw):
            yield from of_product.join(with_query)


def _rows(table: TableFile, fields: Mapped) -> Iterator[RawBatch]:
    return (to_fields(chunk, fields, str(table.path)) for chunk in table.chunks(columns_of(fields)))


def _product(raw: RawBatch) -> RawBatch:
    columns = (raw.columns[name].to_pylist() for name in ("category", "attributes"))
    attributes = [[("Category", category), *others] for category, others in zip(*columns, strict=True)]
    return raw.with_columns(attributes=pa.array(attributes, ATTRIBUTES_TYPE))
