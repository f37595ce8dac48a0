"""From a file's columns to the fields of a pair: which column is which field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manylens.data.arrow import Array
from manylens.data.raw import Problem, RawBatch
from manylens.data.readers import Chunk
from manylens.data.schema import PAIR_SCHEMA
from manylens.data.values import SCALARS, Fault, attributes_from, shown, to_attributes, to_text
from manylens.errors import BadRowError, UnknownNameError, nearest

#: From a field to its column; ``attributes`` may name several columns, each by the attribute's name.
Mapped = Mapping[str, str | Mapping[str, str]]

#: Fields that must be strings; the others, ids and labels, may be whole numbers in the source.
_ONLY_TEXT = ("query", "title", "brand", "description", "locale", "query_kind", "split")


def map_columns(
    columns: Mapping[str, str | Sequence[str]], present: Sequence[str], *, file: str, required: Sequence[str]
) -> dict[str, str | Mapping[str, str]]:
    """Settle which column holds which field.

    Args:
        columns: The recipe's mapping from field to column; fields that the file names as we do need no entry.
        present: The file's columns.
        file: The file as the user named it.
        required: Fields that must be there.

    Returns:
        From each field that the file has to its column (for ``attributes`` possibly several).

    Raises:
        UnknownNameError: If the mapping's key is no field of a pair.
        BadRowError: If a mapped column or a required field is absent.
    """
    mapped: dict[str, str | Mapping[str, str]] = {name: name for name in PAIR_SCHEMA.names if name in present}
    for name, wanted in columns.items():
        if name not in PAIR_SCHEMA.names:
            raise UnknownNameError("field in data.columns", name, PAIR_SCHEMA.names)
        several = () if isinstance(wanted, str) else tuple(wanted)
        if several and name != "attributes":
            raise BadRowError("only attributes can be made of several columns; name one", file=file, field=name)
        for column in several or (str(wanted),):
            if column not in present:
                problem = f"data.columns.{name} names this column, but there is none such{nearest(column, present)}"
                raise BadRowError(f"{problem}; columns: {', '.join(present)}", file=file, field=column)
        mapped[name] = {column: column for column in several} if several else str(wanted)
    for name in required:
        if name not in mapped:
            problem = f"a column for this field is required{nearest(name, present)}; set data.columns.{name} to one of"
            raise BadRowError(f"{problem}: {', '.join(present)}", file=file, field=name)
    return mapped


def columns_of(mapped: Mapped) -> list[str]:
    """Return the columns that a mapping reads."""
    return [
        column for wanted in mapped.values() for column in ([wanted] if isinstance(wanted, str) else wanted.values())
    ]


def to_fields(chunk: Chunk, mapped: Mapped, file: str) -> RawBatch:
    """Give a chunk's columns their meaning.

    Args:
        chunk: Rows as read.
        mapped: From field to column, as `map_columns` returns it.
        file: The file as the user named it.

    Returns:
        The rows with the mapped fields as text; a value that is no text becomes null and a problem.

    Raises:
        BadRowError: If a typed column (Parquet) cannot hold text at all.
    """
    fields: dict[str, Array] = {}
    faults: list[Fault] = []
    for name, wanted in mapped.items():
        if not isinstance(wanted, str):
            fields[name] = attributes_from(
                {
                    attribute: to_text(chunk.columns[column], column, SCALARS, file, faults)
                    for attribute, column in wanted.items()
                }
            )
        elif name == "attributes":
            fields[name] = to_attributes(chunk.columns[wanted], wanted, file, faults)
        else:
            fields[name] = to_text(chunk.columns[wanted], wanted, () if name in _ONLY_TEXT else (int,), file, faults)
    problems = [
        Problem(
            file=file,
            row=int(chunk.rows[fault.at]),
            field=fault.column,
            reason=fault.reason,
            message=fault.message,
            raw={column: shown(values, fault.at) for column, values in chunk.columns.items()},
        )
        for fault in faults
    ]
    names = {name: wanted for name, wanted in mapped.items() if isinstance(wanted, str)}
    return RawBatch(file=file, rows=chunk.rows, columns=fields, names=names, problems=[*chunk.problems, *problems])
