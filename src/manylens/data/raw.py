"""What a loader yields: batches of rows as the source has them, and what it found wrong with some."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manylens.data.arrow import Array, Codes, Mask
from manylens.errors import BadRowError


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Why a row cannot be used.

    Attributes:
        file: The file as the user named it.
        row: The row, counted from 1 after any header.
        field: The column, or ``None`` where the whole row is meant.
        reason: A word to count by, such as ``"unknown_label"``.
        message: What was expected, what came, and the fix.
        raw: The row's values as they came.
    """

    file: str
    row: int
    field: str | None
    reason: str
    message: str
    raw: Mapping[str, object]

    def error(self) -> BadRowError:
        """Return the problem as an error."""
        return BadRowError(self.message, file=self.file, row=self.row, field=self.field)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawBatch:
    """Some rows of one file, not yet checked.

    Attributes:
        file: The file as the user named it.
        rows: The rows' numbers, ascending, counted from 1 after any header.
        columns: By field of `Pair`: strings (``attributes``: maps), possibly null. A field that the source
            does not have is left out.
        names: What the file calls a field, where it is not our name; errors say it.
        problems: Rows that could not be read; those that still stand in `rows` will be dropped.
    """

    file: str
    rows: Codes
    columns: Mapping[str, Array]
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    problems: Sequence[Problem] = ()

    def problem(self, index: int, field: str, reason: str, message: str) -> Problem:
        """Return a problem of the row at `index`."""
        return Problem(
            file=self.file,
            row=int(self.rows[index]),
            field=self.names.get(field, field),
            reason=reason,
            message=message,
            raw={name: _plain(column[index].as_py()) for name, column in self.columns.items()},
        )

    def with_columns(self, **columns: Array) -> RawBatch:
        """Return the rows with some columns added or replaced."""
        return dataclasses.replace(self, columns={**self.columns, **columns})

    def filter(self, mask: Mask) -> RawBatch:
        """Return the rows where `mask` holds; problems of the others go with them."""
        gone = set(self.rows[~mask].tolist())
        keep = pa.array(mask)
        return dataclasses.replace(
            self,
            rows=self.rows[mask],
            columns={name: column.filter(keep) for name, column in self.columns.items()},
            problems=[problem for problem in self.problems if problem.row not in gone],
        )

    def slices(self, length: int) -> list[RawBatch]:
        """Cut into batches of at most `length` rows, each with its own problems."""
        starts = range(0, max(len(self.rows), 1), length)
        bounds = [0, *(int(self.rows[start]) for start in starts[1:]), np.inf]
        return [
            dataclasses.replace(
                self,
                rows=self.rows[start : start + length],
                columns={name: column.slice(start, length) for name, column in self.columns.items()},
                problems=[problem for problem in self.problems if bounds[number] <= problem.row < bounds[number + 1]],
            )
            for number, start in enumerate(starts)
        ]


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, list) else value
