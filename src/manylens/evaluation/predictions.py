"""What a student says of pairs: the table, checked once and turned into arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manylens.errors import DataError, StudentError
from manylens.records import LabelScale

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: One row a pair. `label` is null where nobody judged the pair; `logits` follow the order of `LabelScale.names`.
PREDICTION_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("query_id", pa.string()),
        ("split", pa.string()),
        ("locale", pa.string()),
        ("query_kind", pa.string()),
        ("label", pa.string()),
        ("logits", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Predictions:
    """The judged rows of a prediction table, sorted by pair, so that no figure depends on the order of rows.

    Attributes:
        table: The rows, in `PREDICTION_SCHEMA`.
        query: Index of each row's query in ``range(queries)``, shape (pairs,).
        queries: Number of distinct queries.
        gold: Class index of the gold label, shape (pairs,).
        logits: Shape (pairs, classes).
        unjudged: Number of rows that were left out because they have no gold label.
    """

    table: pa.Table
    query: IntArray
    queries: int
    gold: IntArray
    logits: FloatArray
    unjudged: int

    def __len__(self) -> int:
        """Return the number of judged pairs."""
        return len(self.gold)

    @property
    def predicted(self) -> IntArray:
        """Index of the class with the highest logit, the first of equals, shape (pairs,)."""
        predicted: IntArray = self.logits.argmax(axis=1)
        return predicted

    @classmethod
    def from_table(cls, table: pa.Table, scale: LabelScale) -> Predictions:
        """Check a table of predictions.

        Args:
            table: Has at least the columns of `PREDICTION_SCHEMA`, in any order.
            scale: The scale of its labels and logits.

        Returns:
            The judged rows.

        Raises:
            DataError: For a missing or mistyped column, a missing value, a label off the scale or a pair
                that stands there twice.
            StudentError: For logits that are not one finite number for each class.
        """
        checked = _conform(table).sort_by("pair_id")
        _check_pairs(checked)
        judged = checked.filter(pc.is_valid(checked["label"]))
        return cls._encode(judged, scale, unjudged=len(checked) - len(judged))

    def where(self, column: str, value: str, scale: LabelScale) -> Predictions:
        """Return a part of the rows, its queries counted anew.

        Args:
            column: A column of text.
            value: What it must hold.
            scale: The scale of the labels.

        Returns:
            The rows whose `column` holds `value`.
        """
        return self._encode(self.table.filter(pc.equal(self.table[column], pa.scalar(value))), scale, unjudged=0)

    @classmethod
    def _encode(cls, judged: pa.Table, scale: LabelScale, *, unjudged: int) -> Predictions:
        query = judged["query_id"].combine_chunks().dictionary_encode()
        return cls(
            table=judged,
            query=query.indices.to_numpy().astype(np.int64),
            queries=len(query.dictionary),
            gold=_gold(judged, scale),
            logits=_logits(judged, scale),
            unjudged=unjudged,
        )


def _conform(table: pa.Table) -> pa.Table:
    missing = [name for name in PREDICTION_SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(
            f"predictions lack the columns {missing}; expected {PREDICTION_SCHEMA.names}, got {table.column_names}"
        )
    try:
        return table.select(PREDICTION_SCHEMA.names).cast(PREDICTION_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"predictions do not fit the schema {PREDICTION_SCHEMA.names}: {error}") from None


def _check_pairs(table: pa.Table) -> None:
    """Refuse missing values and repeated pairs; the table is sorted by pair."""
    for name in PREDICTION_SCHEMA.names:
        if name != "label" and table[name].null_count:
            raise DataError(
                f"predictions: column {name!r} has {table[name].null_count} missing values; only 'label' may be missing"
            )
    repeated = pc.equal(table["pair_id"][1:], table["pair_id"][:-1])
    if pc.any(repeated).as_py():
        pair_id = table["pair_id"][pc.index(repeated, True).as_py()]
        raise DataError(f"predictions: pair {pair_id} stands there more than once; predict each pair once")


def _gold(table: pa.Table, scale: LabelScale) -> IntArray:
    gold = pc.index_in(table["label"], pa.array(scale.names))
    if gold.null_count:
        row = pc.index(pc.is_null(gold), True).as_py()
        raise DataError(
            f"predictions: pair {table['pair_id'][row]} has the label {table['label'][row].as_py()!r}, "
            f"expected one of {list(scale.names)}"
        )
    return gold.to_numpy().astype(np.int64)


def _logits(table: pa.Table, scale: LabelScale) -> FloatArray:
    column, classes = table["logits"].combine_chunks(), len(scale.names)
    lengths = pc.list_value_length(column).to_numpy()
    wrong = np.flatnonzero(lengths != classes)
    if wrong.size:
        row = int(wrong[0])
        raise StudentError(
            f"pair {table['pair_id'][row]} has {lengths[row]} logits, "
            f"expected {classes}: one for each of {list(scale.names)}"
        )
    flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    logits: FloatArray = flat.astype(np.float64).reshape(-1, classes)
    infinite = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if infinite.size:
        raise StudentError(
            f"{infinite.size} of {len(logits)} pairs have logits that are not finite, the first {logits[infinite[0]]} "
            f"at pair {table['pair_id'][int(infinite[0])]}; the training diverged: lower the learning rate or lambda"
        )
    return logits
