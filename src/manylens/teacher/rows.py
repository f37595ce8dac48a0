"""Rows made of judgements: rationales to distil, and what TRL trains on, under TRL's own column names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manylens.records import Judgement, Pair

_MESSAGES = pa.list_(
    pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])
)


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in types.items()])


#: Every rationale that has a label; ``consistent`` says whether it is the pair's `accepted_label`, ``rationalized``
#: whether the teacher was given that label.
RATIONALE_SCHEMA: pa.Schema = _schema(
    pair_id=pa.string(),
    perspective=pa.string(),
    sample=pa.int32(),
    label=pa.string(),
    rationale=pa.string(),
    consistent=pa.bool_(),
    rationalized=pa.bool_(),
)
#: Rows of TRL's conversational prompt-completion format.
SFT_SCHEMA: pa.Schema = _schema(prompt=_MESSAGES, completion=_MESSAGES, pair_id=pa.string(), perspective=pa.string())
#: Rows of TRL's conversational preference format with an explicit prompt.
PREFERENCE_SCHEMA: pa.Schema = _schema(
    prompt=_MESSAGES,
    chosen=_MESSAGES,
    rejected=_MESSAGES,
    pair_id=pa.string(),
    chosen_perspective=pa.string(),
    rejected_perspective=pa.string(),
)


class Rows:
    """A table that grows by rows, held as Arrow batches so that a million rows stay small."""

    def __init__(self, schema: pa.Schema, batch: int = 4096) -> None:
        """Begin an empty table.

        Args:
            schema: Its columns.
            batch: Rows that are held as Python objects at a time.
        """
        self._schema, self._batch = schema, batch
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, **row: object) -> None:
        """Add one row."""
        self._rows.append(row)
        if len(self._rows) >= self._batch:
            self._flush()

    def table(self) -> pa.Table:
        """Return all rows."""
        self._flush()
        return pa.Table.from_batches(self._batches, schema=self._schema)

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def accepted_label(pair: Pair, panel: Sequence[Judgement]) -> str | None:
    """Return the label that the rationales worth distilling argue for.

    Args:
        pair: The judged pair.
        panel: All judgements of it.

    Returns:
        The gold label. Where there is none, the label of more than half of the judgements that have one; ``None``
        where no label has so many.
    """
    if pair.label is not None:
        return pair.label
    labels = [judgement.label for judgement in panel if judgement.label is not None]
    return next((label for label, count in Counter(labels).most_common(1) if 2 * count > len(labels)), None)


def rationale_row(judgement: Judgement, accepted: str | None, *, rationalized: bool = False) -> dict[str, object]:
    """Return the row of `RATIONALE_SCHEMA` for a judgement that has a label.

    Args:
        judgement: What the teacher said.
        accepted: The pair's `accepted_label`.
        rationalized: Whether the teacher was given the gold label.
    """
    return {
        "pair_id": judgement.pair_id,
        "perspective": judgement.perspective,
        "sample": judgement.sample,
        "label": judgement.label,
        "rationale": judgement.rationale,
        "consistent": judgement.label == accepted,
        "rationalized": rationalized,
    }
