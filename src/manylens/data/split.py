"""Splitting by query: a query's split depends on the seed and on the query alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from manylens.data.arrow import Codes, codes, positions
from manylens.data.repeats import firsts, query_codes
from manylens.data.spill import gather
from manylens.errors import DataError, QueryLeakError
from manylens.records import SPLITS

_TRAIN, _DEV, _TEST = range(3)


def settle_splits(table: pa.Table, rows: Codes, *, dev_fraction: float, test_fraction: float, split_seed: int) -> Codes:
    """Give rows their splits.

    Splits of the source stand. Where it has no dev split, dev is split off train; where it has no splits
    at all, test is split off first. A query goes by `query_share`, so more rows never move an old query.

    Args:
        table: Rows with the columns of `CHECKED_SCHEMA`.
        rows: Those that count, at least one.
        dev_fraction: Share of the train queries that becomes dev.
        test_fraction: Share of all queries that becomes test.
        split_seed: Seed of the split.

    Returns:
        An index into `SPLITS` for each of `rows`.

    Raises:
        QueryLeakError: If the source has one query, by its id or by its text and locale, in two splits.
        DataError: If a split would be empty.
    """
    queries, keys = query_codes(table)
    queries = queries[rows]
    given = positions(table["split"], pa.array(SPLITS))[rows]
    for same in (codes(table["query_id"])[0][rows], queries):
        _refuse_leak(table, rows, given, firsts(same))
    splits = given
    if (given == -1).all():
        test = np.array([query_share(key, split_seed, "test") < test_fraction for key in keys])
        splits = np.where(test[queries], _TEST, _TRAIN)
    if not (given == _DEV).any():
        dev = np.array([query_share(key, split_seed, "dev") < dev_fraction for key in keys])
        splits = np.where((splits == _TRAIN) & dev[queries], _DEV, splits)
    _refuse_empty(splits, by_source=not (given == -1).all())
    return splits


def query_share(key: str, seed: int, purpose: str) -> float:
    """Return a number in [0, 1) that depends on its arguments alone, spread evenly over queries.

    Args:
        key: The query's `query_key`.
        seed: The split's seed.
        purpose: What is decided, so that two decisions on one query are independent.
    """
    hashed = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{key}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed) / 2**64


def _refuse_leak(table: pa.Table, rows: Codes, splits: Codes, first: Codes) -> None:
    leaks = np.flatnonzero(splits != splits[first])
    if len(leaks):
        here, there = gather(table, rows[[leaks[0], first[leaks[0]]]]).to_pylist()
        raise QueryLeakError(
            f"{here['file']}, row {here['row']}: the query {here['query']!r} (query_id {here['query_id']!r}, locale"
            f" {here['locale']!r}) is in the split {here['split']!r}, but in {there['split']!r} in row {there['row']}"
            f" of {there['file']} (query_id {there['query_id']!r}); {len(leaks)} rows in all; keep a query in one split"
        )


def _refuse_empty(splits: Codes, *, by_source: bool) -> None:
    for index, name in enumerate(SPLITS):
        if not (splits == index).any():
            if name == "test" and by_source:
                fix = "give test rows, or remove the split column so that manylens splits by query"
            elif name == "train":
                fix = "give more queries, or lower data.dev_fraction and data.test_fraction"
            else:
                fix = f"give more queries, raise data.{name}_fraction, or try another data.split_seed"
            raise DataError(f"the {name} split has no pairs; {fix}")
