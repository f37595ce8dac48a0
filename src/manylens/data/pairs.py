"""`Pairs`: a table of pairs as an immutable view that stays on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manylens.data.arrow import contains, equals, positions, texts_of
from manylens.data.schema import BATCH_ROWS, PAIR_SCHEMA
from manylens.data.spill import gather, spill
from manylens.errors import BadRowError, DataError, nearest
from manylens.records import Pair, Split

#: Pairs that exist as Python objects at a time while iterating.
_OBJECTS = 1024


class Pairs:
    """An immutable table of pairs, iterated as `Pair` records.

    The rows are Arrow columns, memory-mapped where they come from a file; records are made a batch at a
    time and only while somebody iterates.

    Attributes:
        table: The rows, with the columns of `PAIR_SCHEMA`.
    """

    def __init__(self, table: pa.Table) -> None:
        """Wrap a table.

        Args:
            table: Rows with exactly the columns of `PAIR_SCHEMA`.

        Raises:
            DataError: If the columns are others.
        """
        if not table.schema.equals(PAIR_SCHEMA):
            raise DataError(f"expected the columns of PAIR_SCHEMA {PAIR_SCHEMA.names}, got {table.schema.names}")
        self.table = table

    @classmethod
    def read(cls, path: Path) -> Pairs:
        """Open a Parquet file of pairs, as `manylens.data.load.load_pairs` writes it.

        Parquet cannot be mapped, so it is decoded once into a nameless temporary file beside it (or in
        the system's temporary folder, where the place is read-only).

        Args:
            path: The file.

        Returns:
            Its pairs, memory-mapped.

        Raises:
            DataError: If the file is missing, unreadable or has other columns.
        """
        try:
            with pq.ParquetFile(path) as file:
                folder = path.parent if os.access(path.parent, os.W_OK) else None
                return cls(spill(file.iter_batches(batch_size=BATCH_ROWS), file.schema_arrow, folder))
        except FileNotFoundError:
            raise DataError(f"there is no file of pairs at {path}; load them first") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise BadRowError(f"not a readable Parquet file: {error}", file=str(path)) from None

    @classmethod
    def from_records(cls, records: Iterable[Pair]) -> Pairs:
        """Make a table in memory of `records`."""
        stream = iter(records)
        batches = []
        while chunk := list(islice(stream, BATCH_ROWS)):
            columns = {name: [getattr(pair, name) for pair in chunk] for name in PAIR_SCHEMA.names}
            columns["attributes"] = [list(attributes.items()) for attributes in columns["attributes"]]
            batches.append(pa.RecordBatch.from_pydict(columns, schema=PAIR_SCHEMA))
        return cls(pa.Table.from_batches(batches, schema=PAIR_SCHEMA))

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.table.num_rows

    def __iter__(self) -> Iterator[Pair]:
        """Yield the pairs in order."""
        for batch in self.table.to_batches(max_chunksize=_OBJECTS):
            for row in batch.to_pylist():
                yield Pair(**{**row, "attributes": dict(row["attributes"])})

    def split(self, *names: Split) -> Pairs:
        """Return the pairs of splits, in the order of `names`; without a copy of splits that stand together."""
        return Pairs(pa.concat_tables([self._split(name) for name in names]))

    def _split(self, name: Split) -> pa.Table:
        rows = np.flatnonzero(equals(self.table["split"], name))
        if not len(rows):
            return self.table.slice(0, 0)
        if rows[-1] - rows[0] + 1 == len(rows):
            return self.table.slice(rows[0], len(rows))
        return gather(self.table, rows)

    def get(self, pair_id: str) -> Pair:
        """Return one pair; this scans the ids, so fetch many with `select`.

        Args:
            pair_id: The pair's id.

        Returns:
            The pair.

        Raises:
            DataError: If there is no such pair; it names the nearest id.
        """
        return next(iter(self.select([pair_id])))

    def select(self, pair_ids: Iterable[str]) -> Pairs:
        """Return the pairs with the given ids, in the order given.

        Args:
            pair_ids: Ids of pairs.

        Returns:
            The pairs, copied into memory.

        Raises:
            DataError: If there is no such pair; it names the nearest id.
        """
        wanted = list(pair_ids)
        rows = positions(texts_of(wanted), self.table["pair_id"].combine_chunks())
        if (rows < 0).any():
            missing = wanted[int(np.argmin(rows))]
            raise DataError(f"no pair {missing!r}{nearest(missing, self._alike(missing))} among {len(self)} pairs")
        return Pairs(gather(self.table, rows))

    def _alike(self, pair_id: str) -> list[str]:
        """Return ids that could be meant: of the same query, else of a query or product that starts alike."""
        ids = self.table["pair_id"]
        query, _, product = pair_id.rpartition(":")
        for pattern in (f"{query}:", f":{product}", pair_id[:3]):
            found = ids.filter(pa.array(contains(ids, pattern)))
            if len(found):
                return [str(name) for name in found.slice(0, 1000).to_pylist()]
        return []
