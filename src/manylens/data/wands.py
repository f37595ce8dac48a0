"""The Wayfair Annotation Dataset (Chen et al., ECIR 2022) in its original layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from manylens.config import WandsData
from manylens.data.arrow import constant
from manylens.data.columns import Mapped, columns_of, to_fields
from manylens.data.lookup import Lookup
from manylens.data.raw import RawBatch
from manylens.data.readers import TableFile, open_table, require_file
from manylens.data.schema import ATTRIBUTES_TYPE
from manylens.data.text import strip_html

_LABEL_FIELDS: Mapped = {"query_id": "query_id", "product_id": "product_id", "label": "label"}
_QUERY_FIELDS: Mapped = {"query_id": "query_id", "query": "query", "query_kind": "query_class"}
_PRODUCT_FIELDS: Mapped = {
    "product_id": "product_id",
    "title": "product_name",
    "class": "product_class",
    "category": "category hierarchy",
    "description": "product_description",
    "features": "product_features",
}


def input_files(config: WandsData) -> tuple[Path, ...]:
    """Return the dataset's files: labels, queries and products.

    Raises:
        BadRowError: If one is missing.
    """
    return tuple(require_file(Path(config.path) / name) for name in ("label.csv", "query.csv", "product.csv"))


def read(config: WandsData, folder: Path) -> Iterator[RawBatch]:
    """Yield the labels, joined with their queries and products.

    The category comes first among the attributes, then the product's features; the query's kind is its
    class. The dataset has no splits.

    Args:
        config: Where the dataset is.
        folder: Where temporary disk space is taken.

    Yields:
        Rows by the numbers of ``label.csv``.

    Raises:
        BadRowError: If a file is unusable.
    """
    # The files are called .csv, but tabs separate their cells.
    labels, queries, products = (open_table(path, "tsv") for path in input_files(config))
    labels.require(columns_of(_LABEL_FIELDS))
    queries.require(columns_of(_QUERY_FIELDS))
    products.require(columns_of(_PRODUCT_FIELDS))
    of_query = Lookup(
        _rows(queries, _QUERY_FIELDS),
        key=("query_id",),
        fields=("query", "query_kind"),
        file=queries.path,
        folder=folder,
    )
    of_product = Lookup(
        (_product(raw) for raw in _rows(products, _PRODUCT_FIELDS)),
        key=("product_id",),
        fields=("title", "description", "attributes"),
        file=products.path,
        folder=folder,
    )
    for raw in _rows(labels, _LABEL_FIELDS):
        for with_query in of_query.join(raw):
            for joined in of_product.join(with_query):
                yield joined.with_columns(locale=constant("us", len(joined.rows)))


def _rows(table: TableFile, fields: Mapped) -> Iterator[RawBatch]:
    return (to_fields(chunk, fields, str(table.path)) for chunk in table.chunks(columns_of(fields)))


def _product(raw: RawBatch) -> RawBatch:
    columns = (raw.columns[name].to_pylist() for name in ("category", "class", "features"))
    attributes = [
        list({**({"Category": category or kind} if category or kind else {}), **_features(features or "")}.items())
        for category, kind, features in zip(*columns, strict=True)
    ]
    return raw.with_columns(
        description=strip_html(raw.columns["description"]),
        attributes=pa.array(attributes, ATTRIBUTES_TYPE),
    )


def _features(text: str) -> dict[str, str]:
    """Parse ``"colour : blue|colour : grey|legs : 4"``; a feature that comes several times has several values."""
    features: dict[str, list[str]] = {}
    for part in text.split("|"):
        name, _, value = (piece.strip() for piece in part.partition(":"))
        if name and value and value not in features.setdefault(name, []):
            features[name].append(value)
    return {name: ", ".join(values) for name, values in features.items()}
