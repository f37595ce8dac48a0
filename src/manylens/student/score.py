"""Scoring a table of pairs with a trained student, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manylens.data import Pairs, iter_unlabelled
from manylens.errors import StudentError
from manylens.progress import meter
from manylens.student.predict import Student

_ID_COLUMNS = ("pair_id", "query_id", "product_id", "query", "title")
_ROWS = 2048


def score_table(
    student: Student, source: Path, out: Path, columns: Mapping[str, str | Sequence[str]] | None = None
) -> int:
    """Score every row of a table, in its order.

    A failure leaves `out` as it was.

    Args:
        student: The student.
        source: CSV, TSV, Parquet or JSONL with at least a query and a title.
        out: A ``.parquet`` or ``.csv`` file; it appears only when it is whole. Its columns: ids, query
            and title; ``label``; one ``p_<class>`` a class; ``score``, the expected gain.
        columns: From our field to the table's column, as ``data.columns`` of a recipe.

    Returns:
        How many rows were scored.

    Raises:
        DataError: If the table cannot be read or a row is bad.
        StudentError: If `out` has another ending.
    """
    writers = {".parquet": pq.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
    if out.suffix not in writers:
        raise StudentError(f"{out}: scores are written as .parquet or .csv, got {out.suffix or 'no ending'!r}")
    schema = _schema(student)
    unfinished = out.with_name(out.name + ".unfinished")
    rows = 0
    try:
        with meter(f"score {source.name}", None) as bar, writers[out.suffix](str(unfinished), schema) as writer:
            for batch in iter_unlabelled(source, dict(columns or {})):
                for start in range(0, batch.num_rows, _ROWS):
                    part = Pairs(pa.Table.from_batches([batch.slice(start, _ROWS)]))
                    writer.write_table(_scored(student, part).cast(schema))
                    rows += len(part)
                    bar.advance(len(part))
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _schema(student: Student) -> pa.Schema:
    texts = [pa.field(name, pa.string()) for name in (*_ID_COLUMNS, "label")]
    numbers = [pa.field(name, pa.float32()) for name in (*(f"p_{label}" for label in student.labels), "score")]
    fields: list[pa.Field[Any]] = [*texts, *numbers]
    return pa.schema(fields)


def _scored(student: Student, pairs: Pairs) -> pa.Table:
    probabilities: NDArray[np.float64] = student.probabilities(list(pairs))
    table = pairs.table.select(list(_ID_COLUMNS))
    table = table.append_column("label", pa.array([student.labels[index] for index in probabilities.argmax(axis=1)]))
    for index, label in enumerate(student.labels):
        table = table.append_column(f"p_{label}", pa.array(probabilities[:, index]))
    return table.append_column("score", pa.array(probabilities @ student.gains))
