"""One's own table of pairs: CSV, TSV, JSONL (each also as .gz) or Parquet, with a column mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from manylens.config import TableData
from manylens.data.arrow import constant
from manylens.data.columns import columns_of, map_columns, to_fields
from manylens.data.raw import RawBatch
from manylens.data.readers import open_table, require_file
from manylens.data.schema import PAIR_SCHEMA, PRODUCT_SCHEMA
from manylens.data.validate import check_rows
from manylens.records import LabelScale


def input_files(config: TableData) -> tuple[Path, ...]:
    """Return the table's file.

    Raises:
        BadRowError: If it is missing.
    """
    return (require_file(Path(config.path)),)


def read(config: TableData, folder: Path) -> Iterator[RawBatch]:
    """Yield the table's rows.

    Args:
        config: Where the table is, and which column is which field.
        folder: Unused: a table needs no temporary disk space.

    Yields:
        Rows by the numbers of the table.

    Raises:
        BadRowError: If the file or its columns are unusable.
    """
    return _rows(Path(config.path), config.columns, required=("query", "title", "label"))


def iter_unlabelled(
    path: Path, columns: Mapping[str, str | Sequence[str]] | None = None, scale: LabelScale | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream a table of pairs that need no label, for scoring.

    Args:
        path: CSV, TSV, JSONL or Parquet.
        columns: From our field to the table's column, as in the recipe's ``data.columns``.
        scale: With a scale, labels that the table has are read; without, they are left aside.

    Yields:
        Batches with the columns of `PAIR_SCHEMA`, every row of the table in its order; the split, which does
        not matter here, is ``test``.

    Raises:
        BadRowError: At the first bad row, or if the file or its columns are unusable.
    """
    aside = ("split",) if scale is not None else ("split", "label")
    for raw in _rows(path, columns or {}, required=("query", "title"), aside=aside):
        checked, problems = check_rows(raw, scale, labelled=False)
        for problem in problems:
            raise problem.error()
        splits = constant("test", checked.num_rows)
        yield pa.RecordBatch.from_arrays(
            [splits if name == "split" else checked[name] for name in PAIR_SCHEMA.names], schema=PAIR_SCHEMA
        )


def iter_products(path: Path, columns: Mapping[str, str | Sequence[str]] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream a table of products, or the products of a table of pairs.

    Args:
        path: CSV, TSV, JSONL or Parquet, with at least a product_id and a title.
        columns: From our field to the table's column, as in the recipe's ``data.columns``.

    Yields:
        Batches with the columns of `PRODUCT_SCHEMA`, every row of the table in its order.

    Raises:
        BadRowError: At the first bad row, or if the file or its columns are unusable.
    """
    aside = [name for name in PAIR_SCHEMA.names if name not in PRODUCT_SCHEMA.names]
    for raw in _rows(path, columns or {}, required=PRODUCT_SCHEMA.names[:2], aside=aside):
        # The checks are those of pairs, which have a query.
        checked, problems = check_rows(raw.with_columns(query=constant("-", len(raw.rows))), None, labelled=False)
        for problem in problems:
            raise problem.error()
        yield pa.RecordBatch.from_arrays([checked[name] for name in PRODUCT_SCHEMA.names], schema=PRODUCT_SCHEMA)


def _rows(
    path: Path, columns: Mapping[str, str | Sequence[str]], *, required: Sequence[str], aside: Sequence[str] = ()
) -> Iterator[RawBatch]:
    """Yield the rows with every field that the table has, except those left aside."""
    table = open_table(path)
    mapped = map_columns(columns, table.columns, file=str(path), required=required)
    mapped = {name: column for name, column in mapped.items() if name not in aside}
    return (to_fields(chunk, mapped, str(path)) for chunk in table.chunks(columns_of(mapped)))
