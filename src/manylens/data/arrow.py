"""The Arrow kernels in use, with the types that the stubs of `pyarrow.compute` lack; masks are numpy's."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

Array: TypeAlias = "pa.Array[Any]"
ChunkedArray: TypeAlias = "pa.ChunkedArray[Any]"
Mask: TypeAlias = NDArray[np.bool_]
#: Row numbers, or numbers that stand for texts.
Codes: TypeAlias = NDArray[np.int64]

_pc: Any = pyarrow.compute


def texts_of(values: object) -> Array:
    """Return Python strings (and ``None``) as an Arrow array, also where all are ``None`` or there are none."""
    array: Array = pa.array(values, pa.string())  # type: ignore[call-overload]
    return array


def constant(text: str, length: int) -> Array:
    """Return `text`, `length` times."""
    return texts_of([text] * length)


def true(mask: object) -> Mask:
    """Return an Arrow mask for numpy; null counts as false."""
    return np.asarray(_pc.fill_null(mask, False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def filled(texts: Array) -> Array:
    """Return texts with an empty one in the place of null."""
    array: Array = _pc.fill_null(texts, "")
    return array


def blank(texts: Array) -> Mask:
    """Return where texts are null, empty or white space."""
    return true(_pc.equal(_pc.utf8_trim_whitespace(filled(texts)), ""))


def trimmed(texts: Array) -> Array:
    """Return texts without white space at the ends."""
    array: Array = _pc.utf8_trim_whitespace(texts)
    return array


def replaced(texts: Array, pattern: str, replacement: str) -> Array:
    """Return texts with every match of the RE2 `pattern` replaced."""
    array: Array = _pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    return array


def contains(texts: Array | ChunkedArray, part: str) -> Mask:
    """Return where texts contain `part`."""
    return true(_pc.match_substring(texts, part))


def map_contains(maps: Array, part: str) -> Mask:
    """Return where a map's names or values contain `part`."""
    untyped: Any = maps
    if not any(contains(texts, part).any() for texts in (untyped.keys, untyped.items)):
        return np.zeros(len(maps), dtype=np.bool_)
    return np.array([any(part in text for item in entry for text in item) for entry in untyped.to_pylist()])


def equals(texts: Array | ChunkedArray, text: str) -> Mask:
    """Return where texts are `text`."""
    return true(_pc.equal(texts, text))


def positions(texts: Array | ChunkedArray, among: object) -> Codes:
    """Return where each text first stands in `among`, -1 where it does not."""
    return np.asarray(_pc.fill_null(_pc.index_in(texts, value_set=among), -1).to_numpy(), dtype=np.int64)


def joined(first: Any, second: Any, separator: str) -> Any:  # noqa: ANN401 - arrays or chunked arrays, as they come
    """Return two columns of texts joined row by row, null where one is null."""
    return _pc.binary_join_element_wise(first, second, separator)


def codes(column: ChunkedArray) -> tuple[Codes, Array]:
    """Return a number for every row, the same for equal texts, and the texts by number; -1 stands for null."""
    encoded: Any = column.dictionary_encode()
    if not encoded.num_chunks:
        return np.zeros(0, dtype=np.int64), texts_of([])
    numbers = np.concatenate([chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks])
    return numbers.astype(np.int64), encoded.chunk(0).dictionary


def decoded(encoded: Array) -> Array:
    """Return the values of a dictionary-encoded array."""
    untyped: Any = encoded
    array: Array = untyped.dictionary_decode()
    return array


def first_repeated(texts: Array) -> str | None:
    """Return a text that stands there more than once, or ``None``."""
    counts = _pc.value_counts(texts)
    twice = counts.field("values").filter(_pc.greater(counts.field("counts"), 1))
    return str(twice[0].as_py()) if len(twice) else None
