"""Tables larger than memory: uncompressed Arrow files without a name, memory-mapped."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def spill(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path | None = None) -> pa.Table:
    """Write batches to a temporary file and return them as a table mapped from it.

    The file has no name in the file system, so it vanishes with the table, even after a crash. Its pages
    are the operating system's to drop and read again: the table costs address space, not memory.

    Args:
        batches: The rows.
        schema: Their schema.
        folder: Where the disk space is taken; ``None`` means the system's temporary folder. Often that is
            held in memory, so a folder on a disk is better for large tables.

    Returns:
        The table, one chunk for each batch.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


def gather(table: pa.Table, indices: NDArray[np.int64]) -> pa.Table:
    """Return the rows at `indices`, in that order, copying only them.

    ``pa.Table.take`` would first join the chunks of every column, which brings a mapped table into memory.

    Args:
        table: The table.
        indices: Row numbers from 0.

    Returns:
        A table of ``len(indices)`` rows in one chunk.
    """
    batches = table.to_batches()
    starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
    chunk = np.searchsorted(starts, indices, side="right") - 1
    order = np.argsort(chunk, kind="stable")
    numbers, first = np.unique(chunk[order], return_index=True)
    parts = [
        batches[number].take(rows - starts[number])
        for number, rows in zip(numbers, np.split(indices[order], first[1:]), strict=False)
    ]
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return pa.Table.from_batches(parts, schema=table.schema).combine_chunks().take(inverse)
