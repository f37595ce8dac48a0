"""Values of a column as text, and what cannot be text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from manylens.data.arrow import Array, blank, decoded, texts_of
from manylens.data.readers import Column
from manylens.data.schema import ATTRIBUTES_TYPE
from manylens.errors import BadRowError

#: What attributes may hold besides strings.
SCALARS = (int, float, bool)


class Fault(NamedTuple):
    """A value that cannot be used: its place in the chunk, and why."""

    at: int
    column: str
    reason: str
    message: str


def attributes_from(columns: Mapping[str, Array]) -> Array:
    """Make a map of several columns in every row.

    Args:
        columns: Strings by the attribute's name.

    Returns:
        Maps from name to value, in the order of `columns`, without null and blank values.
    """
    count = len(next(iter(columns.values())))
    present = ~np.stack([blank(column) for column in columns.values()])
    row, column = np.nonzero(present.T)
    names, values = texts_of(list(columns)), pa.concat_arrays(list(columns.values()))
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=0))]).astype(np.int32)
    # The stubs know of 64-bit offsets only, pyarrow of 32-bit ones.
    return pa.MapArray.from_arrays(pa.array(offsets), names.take(column), values.take(column * count + row))  # type: ignore[call-overload,no-any-return]


def to_text(values: Column, column: str, accepted: tuple[type, ...], file: str, faults: list[Fault]) -> Array:
    """Return values as strings.

    Args:
        values: A column as its format has it.
        column: Its name.
        accepted: Types besides strings that may stand there; they are written as JSON writes them.
        file: The file as the user named it.
        faults: Takes the values that cannot be used.

    Returns:
        Strings, null where there was null or a fault.

    Raises:
        BadRowError: If a typed column (Parquet) holds something else.
    """
    if isinstance(values, pa.Array):
        values = _decoded(values)
        if isinstance(values, pa.Array):
            fits = (
                pa.types.is_null(values.type)
                or pa.types.is_string(values.type)
                or (int in accepted and pa.types.is_integer(values.type))
                or (float in accepted and (pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)))
            )
            if not fits:
                raise BadRowError(f"expected a column of strings, got {values.type}", file=file, field=column)
            return values.cast(pa.string())
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        texts: list[str | None] = []
        for index, value in enumerate(values):
            try:
                texts.append(_scalar_text(value, accepted))
            except UnicodeError:
                faults.append(Fault(index, column, "utf8", f"broken UTF-8 in {value!a}; save the file as UTF-8"))
                texts.append(None)
            except ValueError as error:
                faults.append(Fault(index, column, "type", str(error)))
                texts.append(None)
        return pa.array(texts, pa.string())


def _decoded(values: Array) -> Column:
    """Return an Arrow string array of any sort as plain strings, or as objects where it holds broken UTF-8."""
    if pa.types.is_dictionary(values.type):
        values = decoded(values)
    if not (
        pa.types.is_string(values.type) or pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type)
    ):
        return values
    texts = values.cast(pa.binary()).cast(pa.string(), safe=False)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return [raw and raw.decode("utf-8", "surrogateescape") for raw in texts.cast(pa.binary()).to_pylist()]
    return texts


def _scalar_text(value: object, accepted: tuple[type, ...]) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        value.encode()
        return value
    if type(value) in accepted:
        return json.dumps(value)
    raise ValueError(f"expected a string, got {json.dumps(value)}; quote it, or remove the row")


def to_attributes(values: Column, column: str, file: str, faults: list[Fault]) -> Array:
    """Return maps of a column of maps, structs, objects, or JSON objects as text.

    Args:
        values: A column as its format has it.
        column: Its name.
        file: The file as the user named it.
        faults: Takes the values that cannot be used.

    Returns:
        Maps from name to text; a list's parts are joined by commas, null and blank values left out.
    """
    if isinstance(values, pa.Array):
        if not pa.types.is_nested(values.type):
            values = to_text(values, column, (), file, faults)
        values = values.to_pylist()
    entries = []
    for index, value in enumerate(values):
        try:
            entries.append(_attribute_items(value))
        except ValueError as error:
            faults.append(Fault(index, column, "attributes", f"expected a JSON object of texts and numbers: {error}"))
            entries.append([])
    return pa.array(entries, ATTRIBUTES_TYPE)


def _attribute_items(value: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - whatever JSON or Arrow hold
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else {}
    if isinstance(value, list) and all(isinstance(item, tuple) for item in value):
        value = dict(value)
    if not isinstance(value, dict | None):
        raise ValueError(f"got {type(value).__name__}")
    items = []
    for name, content in (value or {}).items():
        several = content if isinstance(content, list) else [content]
        texts = [text for text in (_scalar_text(part, SCALARS) for part in several) if text and text.strip()]
        if texts:
            items.append((_scalar_text(name, ()) or "", ", ".join(texts)))
    return items


def shown(values: Column, index: int) -> object:
    """Return one value for a message, even where it is broken UTF-8."""
    value = values[index]
    if not isinstance(value, pa.Scalar):
        return value
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return value.cast(pa.binary()).as_py().decode("utf-8", "backslashreplace")
