"""A dataset of the Hugging Face hub, or of a local folder in its layout, one row a pair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from manylens.config import HubData
from manylens.data.arrow import Array, ChunkedArray, constant, texts_of
from manylens.data.columns import columns_of, map_columns, to_fields
from manylens.data.raw import RawBatch
from manylens.data.readers import Chunk
from manylens.data.schema import BATCH_ROWS
from manylens.errors import BadRowError, MissingExtraError


def input_files(config: HubData) -> tuple[Path, ...]:
    """Return the files of a local dataset folder; none for a dataset on the hub."""
    folder = Path(config.path)
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file())) if folder.is_dir() else ()


def read(config: HubData, folder: Path) -> Iterator[RawBatch]:
    """Stream the dataset's rows.

    The dataset's own splits give each pair's split, unless ``data.columns`` maps a column for it or all
    rows lie in a single ``train``: that is what the `datasets` library calls data without splits.

    Args:
        config: Which dataset, and which column is which field.
        folder: Unused: the dataset is streamed.

    Yields:
        Rows by their number within a split.

    Raises:
        BadRowError: If the dataset cannot be read, or its columns are unusable.
        MissingExtraError: If `datasets` is not installed.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "datasets", "train") from None
    try:
        splits = datasets.load_dataset(config.path, config.name, revision=config.revision, streaming=True)
        for name, rows in splits.items():
            given = None if list(splits) == ["train"] else str(name)
            yield from _split_rows(rows, f"{config.path} ({name})", config, given)
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError, ValueError) as error:
        raise BadRowError(f"this dataset cannot be read: {error}", file=config.path) from error


def _split_rows(rows: Any, file: str, config: HubData, split: str | None) -> Iterator[RawBatch]:  # noqa: ANN401 - datasets is untyped
    first = 1
    mapped = None
    for table in rows.with_format("arrow").iter(BATCH_ROWS):
        if mapped is None:
            mapped = map_columns(config.columns, table.column_names, file=file, required=("query", "title", "label"))
        columns = {name: _values(table[name], rows.features, name) for name in columns_of(mapped)}
        numbers = np.arange(first, first + table.num_rows, dtype=np.int64)
        raw = to_fields(Chunk(rows=numbers, columns=columns), mapped, file)
        if split is not None and "split" not in config.columns:
            raw = raw.with_columns(split=constant(split, table.num_rows))
        yield raw
        first += table.num_rows


def _values(column: ChunkedArray, features: Any, name: str) -> Array:  # noqa: ANN401 - datasets is untyped
    values = column.combine_chunks()
    if features is not None and hasattr(features[name], "int2str"):
        # A ClassLabel is stored as a number; the dataset holds the names.
        return texts_of(features[name].names).take(values)
    return values
