"""Checking rows: from what a loader yields to rows that can be trusted, and the problems of the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyarrow as pa

from manylens.data.arrow import (
    Array,
    Mask,
    blank,
    codes,
    constant,
    contains,
    filled,
    joined,
    map_contains,
    texts_of,
    true,
)
from manylens.data.raw import Problem, RawBatch
from manylens.data.schema import ATTRIBUTES_TYPE, CHECKED_SCHEMA
from manylens.data.text import digest, query_key
from manylens.errors import nearest
from manylens.records import LabelScale

#: What sources call the splits.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
    "testing": "test",
}

_TEXT_FIELDS = ("query", "title", "brand", "description", "locale", "query_kind")


def check_rows(
    raw: RawBatch, scale: LabelScale | None, *, labelled: bool = True
) -> tuple[pa.RecordBatch, list[Problem]]:
    """Check some rows.

    Args:
        raw: Rows as the source has them, with at least ``query`` and ``title``. Ids that the source does
            not have are derived: ``query_id`` from the query and its locale, ``product_id`` from the
            product's fields, ``pair_id`` as ``"query_id:product_id"``.
        scale: The labels; ``None`` leaves all rows without one.
        labelled: Whether every row must have a label.

    Returns:
        The good rows with the columns of `CHECKED_SCHEMA`, and one problem for each of the others, by row.
    """
    findings = _Findings(raw)
    fields = dict(raw.columns)
    texts = {name: _text(raw, name) for name in _TEXT_FIELDS}
    for name in ("query", "title"):
        findings.add(blank(texts[name]), name, "empty_" + name, f"the {name} is empty; every pair needs one")
    for name in ("pair_id", "query_id", "product_id"):
        if name in fields:
            findings.add(blank(fields[name]), name, "empty_id", "the id is empty; give one, or do not map the column")
    for name, column in fields.items():
        holds = map_contains if name == "attributes" else contains
        findings.add(holds(column, "\x00"), name, "nul", "the text holds a NUL byte; remove it")
    labels = _label_column(raw, scale, findings, labelled=labelled)
    splits = _split_column(raw, findings)
    attributes = fields.get("attributes", pa.array([[]] * len(raw.rows), ATTRIBUTES_TYPE))
    query_ids = fields["query_id"] if "query_id" in fields else _query_ids(texts["query"], texts["locale"])
    product_ids = fields["product_id"] if "product_id" in fields else _product_ids(texts, attributes)
    pair_ids = fields["pair_id"] if "pair_id" in fields else joined(query_ids, product_ids, ":")
    checked = {
        "pair_id": pair_ids,
        "query_id": query_ids,
        "product_id": product_ids,
        **texts,
        "attributes": attributes,
        "label": labels,
        "split": splits,
        "row": pa.array(raw.rows),
        "file": constant(raw.file, len(raw.rows)),
    }
    keep = pa.array(~findings.bad)
    # Filtered before the batch is made: a bad row may be null where the schema allows none.
    arrays = [checked[name].filter(keep) for name in CHECKED_SCHEMA.names]
    return pa.RecordBatch.from_arrays(arrays, schema=CHECKED_SCHEMA), findings.by_row()


class _Findings:
    """The first problem of every bad row of a batch."""

    def __init__(self, raw: RawBatch) -> None:
        self._raw = raw
        self._problems: dict[int, Problem] = {}
        for problem in raw.problems:
            self._problems.setdefault(problem.row, problem)
        self.bad: Mask = np.isin(raw.rows, list(self._problems))

    def add(self, mask: Mask, field: str, reason: str, message: str | Callable[[object], str]) -> None:
        """Note a problem for the rows of `mask` that have none yet; `message` may depend on the value that came."""
        for index in np.flatnonzero(mask & ~self.bad).tolist():
            text = message if isinstance(message, str) else message(self._raw.columns[field][index].as_py())
            problem = self._raw.problem(index, field, reason, text)
            self._problems[problem.row] = problem
        self.bad |= mask

    def by_row(self) -> list[Problem]:
        return [problem for _, problem in sorted(self._problems.items())]


def _text(raw: RawBatch, name: str) -> Array:
    if name in raw.columns:
        return filled(raw.columns[name])
    return constant("", len(raw.rows))


def _translated(texts: Array, translate: Callable[[str], str | None]) -> Array:
    """Apply `translate` to every distinct text; null and untranslatable ones become null."""
    numbers, words = codes(pa.chunked_array([texts]))
    translated = [*(translate(str(word)) for word in words.to_pylist()), None]
    return texts_of([translated[number] for number in numbers.tolist()])


def _label_column(raw: RawBatch, scale: LabelScale | None, findings: _Findings, *, labelled: bool) -> Array:
    if scale is None or "label" not in raw.columns:
        return texts_of([None] * len(raw.rows))
    came = raw.columns["label"]
    empty = blank(came)
    if labelled:
        findings.add(empty, "label", "empty_label", "the label is empty; label the pair, or leave it out")
    spellings = [*scale.names, *scale.aliases]

    def message(value: object) -> str:
        return f"unknown label {value!r}{nearest(str(value), spellings)}; expected one of {', '.join(scale.names)}"

    labels = _translated(came, scale.parse)
    findings.add(true(labels.is_null()) & ~empty, "label", "unknown_label", message)
    return labels


def _split_column(raw: RawBatch, findings: _Findings) -> Array:
    if "split" not in raw.columns:
        return texts_of([None] * len(raw.rows))

    def message(value: object) -> str:
        return f"unknown split {value!r}{nearest(str(value), SPLIT_NAMES)}; expected train, dev or test"

    splits = _translated(raw.columns["split"], lambda text: SPLIT_NAMES.get(text.strip().casefold()))
    findings.add(true(splits.is_null()), "split", "unknown_split", message)
    return splits


@lru_cache(maxsize=4096)
def _query_id(query: str, locale: str) -> str:
    return digest(query_key(query, locale))


def _query_ids(queries: Array, locales: Array) -> Array:
    ids = [_query_id(*key) for key in zip(queries.to_pylist(), locales.to_pylist(), strict=True)]
    return texts_of(ids)


def _product_ids(texts: dict[str, Array], attributes: Array) -> Array:
    columns = [texts[name].to_pylist() for name in ("locale", "title", "brand", "description")]
    rows = zip(*columns, attributes.to_pylist(), strict=True)
    return texts_of([digest(*row[:-1], repr(row[-1])) for row in rows])
