"""Joining: the products (or queries) that pairs name by id, found in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from manylens.data.arrow import Array, Mask, blank, filled, first_repeated, joined, positions
from manylens.data.raw import Problem, RawBatch
from manylens.data.schema import BATCH_ROWS, PAIR_SCHEMA
from manylens.data.spill import gather, spill
from manylens.errors import BadRowError


class Lookup:
    """Rows of one file by their key; the rows lie in a mapped file, only the keys in memory."""

    def __init__(
        self, batches: Iterable[RawBatch], *, key: tuple[str, ...], fields: tuple[str, ...], file: Path, folder: Path
    ) -> None:
        """Take in the rows.

        Args:
            batches: The file's rows.
            key: The fields that name a row; the last is the id proper.
            fields: The fields that `join` adds; the first must not be blank.
            file: The file, for errors.
            folder: Where temporary disk space is taken.

        Raises:
            BadRowError: If the file has no usable row, two rows of one key, or a row whose key cannot be read.
        """
        self._key, self._fields, self._file = key, fields, file
        self._unusable: dict[str, str] = {}
        schema = pa.schema([pa.field("key", pa.string()), *(PAIR_SCHEMA.field(name) for name in fields)])
        self._table = spill((self._usable(raw, schema) for raw in batches), schema, folder)
        self._keys = self._table["key"].combine_chunks()
        if not len(self._keys):
            why = next(iter(self._unusable.values()), "no row is one that the pairs name")
            raise BadRowError(f"expected at least one usable row, got none: {why}", file=str(file))
        twice = first_repeated(self._keys)
        if twice is not None:
            raise BadRowError(f"{_id(twice)!r} stands in more than one row; keep one", file=str(file), field=key[-1])

    def join(self, raw: RawBatch) -> Iterator[RawBatch]:
        """Add the fields to rows that name a key; a row whose key is unknown gets a problem.

        Args:
            raw: Rows with the key's fields.

        Yields:
            The rows in order, in batches small enough to hold the texts.
        """
        keys = key_column(raw, self._key)
        places = positions(keys, self._keys)
        problems = [self._missing(raw, index, keys[index].as_py()) for index in np.flatnonzero(places < 0).tolist()]
        # A row without a match carries the first product, but as it has a problem, it goes no further.
        places = places.clip(min=0)
        for number, part in enumerate(replace(raw, problems=[*raw.problems, *problems]).slices(BATCH_ROWS)):
            rows = gather(self._table, places[number * BATCH_ROWS : (number + 1) * BATCH_ROWS])
            yield part.with_columns(**{name: rows[name].combine_chunks() for name in self._fields})

    def _usable(self, raw: RawBatch, schema: pa.Schema) -> pa.RecordBatch:
        """Return the good rows, and remember why the others are not."""
        first, name = self._fields[0], self._key[-1]
        keys = key_column(raw, self._key)
        found = [
            *raw.problems,
            *_empty(raw, name, blank(keys)),
            *_empty(raw, first, blank(raw.columns[first])),
        ]
        keep = np.ones(len(raw.rows), dtype=np.bool_)
        for problem in found:
            index = int(np.searchsorted(raw.rows, problem.row))
            known = index < len(raw.rows) and raw.rows[index] == problem.row
            key = keys[index].as_py() if known else None
            if key is None:
                # Nobody can tell which pairs this row concerns.
                raise problem.error()
            self._unusable.setdefault(key, str(problem.error()))
            keep[index] = False
        columns = [raw.columns[name] for name in self._fields]
        texts = [column if pa.types.is_map(column.type) else filled(column) for column in columns]
        return pa.RecordBatch.from_arrays([keys, *texts], schema=schema).filter(pa.array(keep))

    def _missing(self, raw: RawBatch, index: int, key: str | None) -> Problem:
        name = self._key[-1]
        kind = name.removesuffix("_id")
        if key is None:
            return raw.problem(index, name, "empty_id", "the id is empty; give one, or remove the pair")
        if key in self._unusable:
            return raw.problem(index, name, f"bad_{kind}", f"its {kind} cannot be used: {self._unusable[key]}")
        message = f"no {kind} {_id(key)!r} in {self._file}; add it, or remove the pair"
        return raw.problem(index, name, f"no_{kind}", message)


def key_column(raw: RawBatch, key: tuple[str, ...]) -> Array:
    """Return the key of every row, its parts joined; null where a part is null."""
    parts = [raw.columns[name] for name in key]
    column: Array = parts[0]
    for part in parts[1:]:
        column = joined(column, part, "\x1f")
    return column


def _id(key: str) -> str:
    return key.rpartition("\x1f")[2]


def _empty(raw: RawBatch, field: str, mask: Mask) -> list[Problem]:
    message = f"the {field} is empty; every row needs one"
    return [raw.problem(index, field, f"empty_{field}", message) for index in np.flatnonzero(mask).tolist()]
