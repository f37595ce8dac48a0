"""The Shopping Queries Dataset (Reddy et al., 2022, arXiv 2206.06588) in its original layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from manylens.config import EsciData
from manylens.data.arrow import Array, ChunkedArray, equals, filled, joined, positions, texts_of, trimmed, true
from manylens.data.columns import Mapped, columns_of, to_fields
from manylens.data.lookup import Lookup, key_column
from manylens.data.raw import RawBatch
from manylens.data.readers import TableFile, open_table, require_file
from manylens.data.text import strip_html
from manylens.data.values import attributes_from
from manylens.errors import BadRowError

_EXAMPLES = "shopping_queries_dataset_examples.parquet"
_PRODUCTS = "shopping_queries_dataset_products.parquet"
_SOURCES = "shopping_queries_dataset_sources.csv"

_EXAMPLE_FIELDS: Mapped = {
    "query_id": "query_id",
    "product_id": "product_id",
    "query": "query",
    "locale": "product_locale",
    "label": "esci_label",
    "split": "split",
}
_PRODUCT_FIELDS: Mapped = {
    "product_id": "product_id",
    "locale": "product_locale",
    "title": "product_title",
    "brand": "product_brand",
    "description": "product_description",
    "bullet_points": "product_bullet_point",
    "colour": "product_color",
}
_KEY = ("locale", "product_id")
#: Rows without long texts are narrow, so many go into one look-up.
_NARROW_ROWS = 65_536


def input_files(config: EsciData) -> tuple[Path, ...]:
    """Return the dataset's files: examples, products and, where it is there, sources.

    Raises:
        BadRowError: If the examples or the products are missing.
    """
    folder = Path(config.path)
    needed = [require_file(folder / name) for name in (_EXAMPLES, _PRODUCTS)]
    return (*needed, *(path for path in [folder / _SOURCES] if path.exists()))


def read(config: EsciData, folder: Path) -> Iterator[RawBatch]:
    """Yield the examples of the wanted version and locales, joined with their products.

    A description is the bullet points, which nearly every product has, then the description proper, both
    without HTML; the colour is an attribute; the query's kind is its source.

    Args:
        config: Where the dataset is, and what of it is wanted.
        folder: Where temporary disk space is taken.

    Yields:
        Rows by the numbers of the examples file.

    Raises:
        BadRowError: If a file is unusable, or no example is of the wanted version and locales.
    """
    examples_path, products_path, *sources_path = input_files(config)
    examples, products = open_table(examples_path), open_table(products_path)
    examples.require([*columns_of(_EXAMPLE_FIELDS), _version(config)])
    products.require(columns_of(_PRODUCT_FIELDS))
    kinds = _query_kinds(open_table(sources_path[0])) if sources_path else {}
    keys = [key_column(raw, _KEY) for raw in _examples(examples, config)]
    wanted = pa.chunked_array(keys, pa.string()).unique()
    if not len(wanted):
        problem = (
            f"no example of the locales {', '.join(config.locales)} has 1 here; change data.version or data.locales"
        )
        raise BadRowError(problem, file=str(examples_path), field=_version(config))
    lookup = Lookup(
        _products(products, wanted),
        key=_KEY,
        fields=("title", "brand", "description", "attributes"),
        file=products_path,
        folder=folder,
    )
    for raw in _examples(examples, config):
        for batch in lookup.join(raw):
            of_query = [kinds.get(str(name), "") for name in batch.columns["query_id"].to_pylist()]
            yield batch.with_columns(query_kind=texts_of(of_query))


def _version(config: EsciData) -> str:
    return f"{config.version}_version"


def _examples(table: TableFile, config: EsciData) -> Iterator[RawBatch]:
    """Yield the examples of the wanted version and locales."""
    fields = {**_EXAMPLE_FIELDS, "version": _version(config)}
    for chunk in table.chunks(columns_of(fields), _NARROW_ROWS):
        raw = to_fields(chunk, fields, str(table.path))
        in_version = equals(raw.columns["version"], "1")
        in_locales = positions(raw.columns["locale"], texts_of(config.locales)) >= 0
        yield raw.filter(in_version & in_locales)


def _products(table: TableFile, wanted: ChunkedArray | Array) -> Iterator[RawBatch]:
    """Yield the products whose key is `wanted`."""
    # Looked up in one go before any text is read: a look-up hashes all of `wanted` first.
    fields = {name: _PRODUCT_FIELDS[name] for name in _KEY}
    narrow = (to_fields(chunk, fields, str(table.path)) for chunk in table.chunks(columns_of(fields), _NARROW_ROWS))
    keys: ChunkedArray = pa.chunked_array([key_column(raw, _KEY) for raw in narrow], pa.string())
    # A null key stays, for the look-up to refuse.
    keep = (positions(keys, wanted) >= 0) | true(keys.is_null())
    for chunk in table.chunks(columns_of(_PRODUCT_FIELDS)):
        raw = to_fields(chunk, _PRODUCT_FIELDS, str(table.path))
        raw = raw.filter(keep[raw.rows - 1])
        points, description = (filled(strip_html(raw.columns[name])) for name in ("bullet_points", "description"))
        yield raw.with_columns(
            description=trimmed(joined(points, description, "\n")),
            attributes=attributes_from({"Color": raw.columns["colour"]}),
        )


def _query_kinds(table: TableFile) -> dict[str, str]:
    """Return the source of every query."""
    table.require(["query_id", "source"])
    kinds: dict[str, str] = {}
    for chunk in table.chunks(["query_id", "source"]):
        for problem in chunk.problems:
            raise problem.error()
        kinds.update(zip(chunk.columns["query_id"], chunk.columns["source"], strict=True))
    return kinds
