"""Reading one file of rows, whatever its format: CSV, TSV, JSONL (each also as .gz) and Parquet.

A reader knows rows and columns, not what they mean; `manylens.data.columns` gives them meaning.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manylens.data.arrow import Array, Codes
from manylens.data.raw import Problem
from manylens.data.schema import BATCH_ROWS
from manylens.errors import BadRowError, nearest

#: A column as its format has it: Arrow values, or Python objects.
Column: TypeAlias = "Array | list[Any]"

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows of a file.

    Attributes:
        rows: Their numbers, counted from 1 after any header.
        columns: Their values by column.
        problems: Rows that could not be read and stand in no column.
    """

    rows: Codes
    columns: Mapping[str, Column]
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """A file of rows.

    Attributes:
        path: Where it is.
        format: One of the values of `FORMATS`.
        columns: Its columns; for JSONL the keys of all its lines.
    """

    path: Path
    format: str
    columns: tuple[str, ...]

    def require(self, columns: Sequence[str]) -> None:
        """Check that the file has `columns`.

        Raises:
            BadRowError: If one is absent; it names the nearest there is.
        """
        for name in columns:
            if name not in self.columns:
                problem = f"this column is required{nearest(name, self.columns)}; columns: {', '.join(self.columns)}"
                raise BadRowError(problem, file=str(self.path), field=name)

    def chunks(self, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[Chunk]:
        """Yield the file's rows, `rows` at a time.

        Args:
            columns: The columns to read, out of `TableFile.columns`.
            rows: Rows in a chunk.

        Yields:
            The chunks in order.

        Raises:
            BadRowError: If the file as a whole cannot be read to its end.
        """
        wanted = list(dict.fromkeys(columns))
        with _readable(self.path, self.format):
            if self.format == "parquet":
                yield from _parquet_chunks(self.path, wanted, rows)
            elif self.format == "jsonl":
                yield from _chunks_of(_jsonl_rows(self.path, wanted), wanted, rows)
            else:
                yield from _chunks_of(_csv_rows(self.path, _DELIMITERS[self.format], wanted), wanted, rows)


def open_table(path: Path, file_format: str | None = None) -> TableFile:
    """Look into a file of rows.

    Args:
        path: The file.
        file_format: One of the values of `FORMATS`; ``None`` goes by the suffix.

    Returns:
        The file with its columns.

    Raises:
        BadRowError: If it is missing, no file, empty, of an unknown format, or its header is unusable.
    """
    require_file(path)
    if file_format is None:
        suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
        if suffix.lower() not in FORMATS:
            raise BadRowError(
                f"expected a file named {', '.join(FORMATS)}, got {suffix or 'no suffix'!r}", file=str(path)
            )
        file_format = FORMATS[suffix.lower()]
    with _readable(path, file_format):
        columns = _columns(path, file_format)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise BadRowError(
            "the header has this column more than once; rename or remove one", file=str(path), field=twice[0]
        )
    return TableFile(path=path, format=file_format, columns=tuple(columns))


def require_file(path: Path) -> Path:
    """Return `path` if it is a file with something in it.

    Raises:
        BadRowError: If it is missing (it names the nearest name there is), no file, or empty.
    """
    if path.is_dir():
        raise BadRowError("expected a file, got a folder; name the file inside it", file=str(path))
    if not path.is_file():
        beside = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadRowError(f"there is no such file{nearest(str(path), beside)}", file=str(path))
    if path.stat().st_size == 0:
        raise BadRowError("the file is empty; expected rows", file=str(path))
    return path


@contextmanager
def _readable(path: Path, file_format: str) -> Iterator[None]:
    """Turn what a library says of a file that it cannot read into our error."""
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise BadRowError(
            f"not a whole, readable {file_format} file ({error}); fetch or write it again", file=str(path)
        ) from None


def _columns(path: Path, file_format: str) -> list[str]:
    if file_format == "parquet":
        return list(pq.read_schema(path).names)
    if file_format == "jsonl":
        return _jsonl_keys(path)
    with _open_text(path) as stream:
        header = next(csv.reader(stream, delimiter=_DELIMITERS[file_format], strict=True), [])
    if not header or any("\x00" in name or not name.isprintable() for name in header):
        raise BadRowError(f"expected a header line in UTF-8, got {header!a}; save the file as UTF-8", file=str(path))
    return header


def _open_text(path: Path) -> TextIO:
    # Broken bytes pass as surrogates, so that the row that holds them can be named later.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _csv_rows(path: Path, delimiter: str, wanted: list[str]) -> Iterator[list[str] | Problem]:
    with _open_text(path) as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header = next(reader)
        places = [header.index(name) for name in wanted]
        row = 0
        try:
            for line in filter(None, reader):
                row += 1
                if len(line) == len(header):
                    yield [line[place] for place in places]
                else:
                    message = (
                        f"expected {len(header)} cells as in the header, got {len(line)}; quote cells with delimiters"
                    )
                    yield Problem(
                        file=str(path), row=row, field=None, reason="cells", message=message, raw={"cells": line}
                    )
        except csv.Error as error:
            # After this the parser's place in the file is unknown, so no later row can be trusted.
            message = f"not readable from here on ({error}); look for a quote that is never closed"
            raise BadRowError(message, file=str(path), row=row + 1) from None


def _jsonl_keys(path: Path) -> list[str]:
    keys: dict[str, None] = {}
    with _open_bytes(path) as stream:
        for line in stream:
            try:
                keys.update(dict.fromkeys(json.loads(line)))
            except (ValueError, TypeError):
                continue  # reported with its row when the rows are read
    return list(keys)


def _jsonl_rows(path: Path, wanted: list[str]) -> Iterator[list[Any] | Problem]:
    with _open_bytes(path) as stream:
        for row, line in enumerate(filter(bytes.strip, stream), start=1):
            try:
                value = json.loads(line)
            except UnicodeDecodeError as error:
                yield _bad_line(path, row, "utf8", f"broken UTF-8 ({error.reason}); save the file as UTF-8", line)
            except ValueError as error:
                yield _bad_line(path, row, "json", f"expected a JSON object, got broken JSON ({error})", line)
            else:
                if isinstance(value, dict):
                    yield [value.get(name) for name in wanted]
                else:
                    yield _bad_line(path, row, "json", f"expected a JSON object, got {type(value).__name__}", line)


def _bad_line(path: Path, row: int, reason: str, message: str, line: bytes) -> Problem:
    raw = {"line": line.decode("utf-8", "backslashreplace")}
    return Problem(file=str(path), row=row, field=None, reason=reason, message=message, raw=raw)


def _chunks_of(results: Iterator[list[Any] | Problem], names: list[str], size: int) -> Iterator[Chunk]:
    """Gather what a format yields for each row, `size` rows at a time."""
    first = 1
    while taken := list(islice(results, size)):
        good = [index for index, result in enumerate(taken) if not isinstance(result, Problem)]
        columns = zip(*(taken[index] for index in good), strict=True) if good else ([] for _ in names)
        yield Chunk(
            rows=first + np.asarray(good, dtype=np.int64),
            columns={name: list(values) for name, values in zip(names, columns, strict=True)},
            problems=[result for result in taken if isinstance(result, Problem)],
        )
        first += len(taken)


def _parquet_chunks(path: Path, wanted: list[str], size: int) -> Iterator[Chunk]:
    first = 1
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=size, columns=wanted):
            yield Chunk(
                rows=np.arange(first, first + batch.num_rows, dtype=np.int64),
                columns={name: batch[name] for name in wanted},
            )
            first += batch.num_rows
