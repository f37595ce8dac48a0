"""Judgements as rows: their Parquet schema, writing, reading, and joining them to their pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manylens.errors import TeacherError
from manylens.records import Judgement, Pair

_FIELDS: list[pa.Field[Any]] = [
    pa.field("pair_id", pa.string(), nullable=False),
    pa.field("perspective", pa.string(), nullable=False),
    pa.field("sample", pa.int32(), nullable=False),
    pa.field("attempt", pa.int32(), nullable=False),
    pa.field("label", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("rationale", pa.string(), nullable=False),
    pa.field("raw", pa.string(), nullable=False),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("completion_tokens", pa.int32()),
    pa.field("finish_reason", pa.string()),
    pa.field("teacher", pa.string(), nullable=False),
    pa.field("sampling", pa.string(), nullable=False),
    pa.field("prompt_hash", pa.string(), nullable=False),
]
#: One row a judgement; the columns are the fields of `records.Judgement`.
JUDGEMENT_SCHEMA: pa.Schema = pa.schema(_FIELDS)

#: Rows held in memory at a time.
_BATCH = 4096


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> int:
    """Write judgements to a Parquet file, which appears only when it is whole.

    Args:
        path: The file; an old one is replaced.
        judgements: The rows, streamed.

    Returns:
        How many were written.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    stream, rows = iter(judgements), 0
    with pq.ParquetWriter(unfinished, JUDGEMENT_SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(stream, _BATCH)):
            columns = {name: [getattr(judgement, name) for judgement in chunk] for name in JUDGEMENT_SCHEMA.names}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=JUDGEMENT_SCHEMA))
            rows += len(chunk)
    os.replace(unfinished, path)
    return rows


def read_judgements(path: Path) -> Iterator[Judgement]:
    """Yield the judgements of a Parquet file in its order.

    Raises:
        TeacherError: If the file is missing or holds something else.
    """
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(JUDGEMENT_SCHEMA):
                raise TeacherError(
                    f"{path}: expected the columns {JUDGEMENT_SCHEMA.names}, got {file.schema_arrow.names}"
                )
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    yield Judgement(**row)
    except (OSError, pa.ArrowInvalid) as error:
        raise TeacherError(f"{path}: expected a Parquet file of judgements: {error}") from error


def by_pair(pairs: Iterable[Pair], judgements: Iterable[Judgement]) -> Iterator[tuple[Pair, list[Judgement]]]:
    """Join judgements to their pairs in one pass over both.

    Args:
        pairs: Any pairs; those without a judgement are left out.
        judgements: Judgements in the order of `pairs`, as `judge.judgements_of` yields them.

    Yields:
        A pair and its judgements, in their order.

    Raises:
        TeacherError: If a judgement's pair is not among the pairs, or comes too late.
    """
    stream = iter(judgements)
    upcoming = next(stream, None)
    for pair in pairs:
        panel = []
        while upcoming is not None and upcoming.pair_id == pair.pair_id:
            panel.append(upcoming)
            upcoming = next(stream, None)
        if panel:
            yield pair, panel
    if upcoming is not None:
        raise TeacherError(
            f"a judgement names pair {upcoming.pair_id!r}, which is not among the pairs or stands before the pair of "
            "an earlier judgement; give the pairs that were judged, and the judgements in their order"
        )
