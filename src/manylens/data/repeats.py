"""Checks across rows: ids that contradict each other, and pairs that stand there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from manylens.data.arrow import Codes, codes, joined
from manylens.data.raw import Problem
from manylens.data.schema import PAIR_SCHEMA
from manylens.data.spill import gather
from manylens.data.text import query_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """What comes of comparing the rows with each other.

    Attributes:
        keep: The rows to keep, ascending: of rows that agree the first, of rows that contradict the first. A row with
            a label goes before one without.
        duplicates: Rows that say again what an earlier row says.
        problems: Rows that contradict an earlier row.
    """

    keep: Codes
    duplicates: int
    problems: Sequence[Problem]


def query_codes(table: pa.Table) -> tuple[Codes, list[str]]:
    """Return a number for every row, the same for queries with the same `query_key`, and the keys by number."""
    of_row, texts = codes(joined(table["locale"], table["query"], "\x1f"))
    parts = (str(text).partition("\x1f") for text in texts.to_pylist())
    keys = [query_key(query, locale) for locale, _, query in parts]
    numbers: dict[str, int] = {}
    of_text = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    return of_text[of_row], list(numbers)


def firsts(values: Codes) -> Codes:
    """Return for every row the first row with the same code."""
    _, index, inverse = np.unique(values, return_index=True, return_inverse=True)
    return index[inverse]


def find_repeats(table: pa.Table) -> Repeats:
    """Compare the rows with each other.

    Args:
        table: Rows with the columns of `CHECKED_SCHEMA`, at least one.

    Returns:
        What to keep, and the problems of the rest, by row: a query id with two texts, a pair with two
        labels, a pair id for two pairs.
    """
    queries, _ = query_codes(table)
    query_ids, product_ids, pair_ids, labels = (
        codes(table[name])[0] for name in ("query_id", "product_id", "pair_id", "label")
    )
    keep = np.arange(table.num_rows)
    problems: list[Problem] = []

    first = firsts(query_ids)
    bad = queries != queries[first]
    problems += _problems(table, keep[bad], first[bad], "query_id", "query_id_reused")
    keep = keep[~bad]

    keep = keep[np.argsort(labels[keep] < 0, kind="stable")]
    first = keep[firsts(query_ids[keep] * (product_ids.max() + 1) + product_ids[keep])]
    again = first != keep
    bad = (labels[first] != labels[keep]) & (labels[keep] >= 0)
    problems += _problems(table, keep[bad], first[bad], "label", "conflicting_labels")
    duplicates = int((again & ~bad).sum())
    keep = np.sort(keep[~again])

    first = keep[firsts(pair_ids[keep])]
    bad = first != keep
    problems += _problems(table, keep[bad], first[bad], "pair_id", "pair_id_reused")
    return Repeats(keep=keep[~bad], duplicates=duplicates, problems=sorted(problems, key=lambda problem: problem.row))


_MESSAGES = {
    "query_id_reused": (
        "query_id {query_id!r} stands for the query {query!r} (locale {locale!r}) here, but for {other[query]!r}"
        " (locale {other[locale]!r}) in row {other[row]}; give every query its own id"
    ),
    "conflicting_labels": (
        "query {query_id!r} and product {product_id!r} are labelled {label!r} here, but {other[label]!r}"
        " in row {other[row]}; keep one"
    ),
    "pair_id_reused": (
        "pair_id {pair_id!r} is also that of another pair, in row {other[row]}; give every pair its own id"
    ),
}


def _problems(table: pa.Table, rows: Codes, others: Codes, field: str, reason: str) -> list[Problem]:
    here, there = (gather(table, indices).to_pylist() for indices in (rows, others))
    return [
        Problem(
            file=row["file"],
            row=row["row"],
            field=field,
            reason=reason,
            message=_MESSAGES[reason].format(other=other, **row),
            raw={name: row[name] for name in PAIR_SCHEMA.names},
        )
        for row, other in zip(here, there, strict=True)
    ]
