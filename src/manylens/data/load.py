"""From a source to ``pairs.parquet``: read, check, split, write."""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manylens.config import DataConfig
from manylens.data.arrow import Codes, codes, positions, texts_of
from manylens.data.raw import Problem, RawBatch
from manylens.data.repeats import find_repeats
from manylens.data.schema import BATCH_ROWS, CHECKED_SCHEMA, PAIR_SCHEMA
from manylens.data.spill import gather, spill
from manylens.data.split import settle_splits
from manylens.data.validate import check_rows
from manylens.data.withhold import Withheld, withhold
from manylens.errors import BadRowError, DataError, UnknownNameError
from manylens.progress import meter
from manylens.records import SPLITS, LabelScale


class Loader(Protocol):
    """What a loader's module offers; `manylens.data.table` is the shortest example."""

    def input_files(self, config: DataConfig) -> tuple[Path, ...]:
        """Return the files that `read` will read; raise `BadRowError` if one is missing."""

    def read(self, config: DataConfig, folder: Path) -> Iterator[RawBatch]:
        """Yield the rows; `folder` is for temporary disk space."""


#: Modules by the name of the loader: a new one is one file, one entry here and one section in `manylens.config`.
LOADERS = {
    "demo": "manylens.data.demo",
    "esci": "manylens.data.esci",
    "wands": "manylens.data.wands",
    "table": "manylens.data.table",
    "hub": "manylens.data.hub",
    "world": "manylens.data.world",
}


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What came of loading.

    Attributes:
        pairs: Pairs with a label, by split and label.
        queries: Queries by split.
        rows_read: Rows of the source, good and bad.
        skipped: Bad rows by reason; they stand in ``skipped.jsonl``.
        duplicates: Rows dropped because an earlier row says the same.
        unlabelled: Training pairs without a label, those with a hidden one included.
        hidden_labels: Training pairs whose label ``hide_labels`` takes away.
        unmeasurable: Pairs of dev and test that were left out because they have no label.
        held_out: Pairs of train and dev that were left out because of ``held_out_locales``.
    """

    pairs: dict[str, dict[str, int]]
    queries: dict[str, int]
    rows_read: int
    skipped: dict[str, int]
    duplicates: int
    unlabelled: int = 0
    hidden_labels: int = 0
    unmeasurable: int = 0
    held_out: int = 0


def load_pairs(config: DataConfig, scale: LabelScale, folder: Path) -> LoadReport:
    """Load, check and split the pairs into ``pairs.parquet``, and the skipped rows into ``skipped.jsonl``.

    Rows stand in the order train, dev, test, and within a split as in the source, so that a split is a
    slice. Memory holds a batch of rows and some numbers for each row; texts go through a temporary file in
    `folder`.

    Args:
        config: The recipe's data section.
        scale: The label scale.
        folder: Where the two files go; it is made if need be.

    Returns:
        The counts.

    Raises:
        DataError: If the source is unusable, a row is bad and ``on_bad_row`` is ``fail``, or nothing that counts is
            left of a split.
        QueryLeakError: If a query stands in two splits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _replacing(folder / "skipped.jsonl") as skipped, skipped.open("w", encoding="utf-8") as stream:
        log = _SkipLog(stream, skip=config.on_bad_row == "skip")
        checked = spill(_checked(config, scale, folder, log), CHECKED_SCHEMA, folder)
        if not checked.num_rows:
            raise DataError(f"data.loader {config.loader}: no usable rows among {log.rows_read}; expected pairs")
        repeats = find_repeats(checked)
        log.add(repeats.problems)
        splits = np.full(checked.num_rows, -1)
        splits[repeats.keep] = settle_splits(
            checked,
            repeats.keep,
            dev_fraction=config.dev_fraction,
            test_fraction=config.test_fraction,
            split_seed=config.split_seed,
        )
        left = withhold(checked, splits, config)
        with _replacing(folder / "pairs.parquet") as path:
            _write(checked, left, path)
    counts = _label_counts(checked, left, scale)
    return LoadReport(
        pairs=counts,
        queries=_query_counts(checked, left.splits),
        rows_read=log.rows_read,
        skipped=dict(sorted(log.reasons.items())),
        duplicates=repeats.duplicates,
        unlabelled=int((left.splits == SPLITS.index("train")).sum()) - sum(counts["train"].values()),
        hidden_labels=int(left.hidden.sum()),
        unmeasurable=left.unmeasurable,
        held_out=left.held_out,
    )


def input_files(config: DataConfig) -> tuple[Path, ...]:
    """Return the files that the loader will read; none where it reads from the hub.

    Raises:
        DataError: If one is missing.
    """
    return _loader(config.loader).input_files(config)


def recorded_judgements(config: DataConfig) -> Path | None:
    """Return the default place of recorded judgements: ``judgements.jsonl`` beside the data, there or not.

    Returns:
        The path; ``None`` where the data come from the hub.

    Raises:
        DataError: If the data themselves are missing.
    """
    files = input_files(config)
    return files[0].parent / "judgements.jsonl" if files and config.loader != "hub" else None


def _loader(name: str) -> Loader:
    if name not in LOADERS:
        raise UnknownNameError("loader", name, LOADERS)
    return cast(Loader, importlib.import_module(LOADERS[name]))


class _SkipLog:
    """Counts the rows, and stops at a bad one or writes it down."""

    def __init__(self, stream: TextIO, *, skip: bool) -> None:
        self._stream, self._skip = stream, skip
        self.reasons: Counter[str] = Counter()
        self.rows_read = 0

    def add(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            if not self._skip:
                raise BadRowError(
                    f"{problem.message} (or set data.on_bad_row: skip)",
                    file=problem.file,
                    row=problem.row,
                    field=problem.field,
                )
            self.reasons[problem.reason] += 1
            line = {
                "file": problem.file,
                "row": problem.row,
                "field": problem.field,
                "problem": problem.message,
                "raw": problem.raw,
            }
            # ASCII, so that even what is not Unicode can be written; default: values that JSON does not have.
            self._stream.write(json.dumps(line, default=str) + "\n")


def _checked(config: DataConfig, scale: LabelScale, folder: Path, log: _SkipLog) -> Iterator[pa.RecordBatch]:
    """Yield the good rows of the source; the log gets the others."""
    with meter("reading pairs", total=None) as progress:
        for raw in _loader(config.loader).read(config, folder):
            checked, problems = check_rows(raw, scale, labelled=config.unlabelled == "refuse")
            log.add(problems)
            log.rows_read += checked.num_rows + len(problems)
            progress.advance(checked.num_rows + len(problems))
            yield checked


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes `path` when the block ends well, and vanishes otherwise."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(checked: pa.Table, left: Withheld, path: Path) -> None:
    pairs = checked.select(PAIR_SCHEMA.names)
    with pq.ParquetWriter(path, PAIR_SCHEMA, compression="zstd") as writer:
        for number, name in enumerate(SPLITS):
            rows = np.flatnonzero(left.splits == number)
            for start in range(0, len(rows), BATCH_ROWS):
                chosen = rows[start : start + BATCH_ROWS]
                part = gather(pairs, chosen)
                labels = part["label"].to_pylist()
                shown = zip(labels, left.hidden[chosen].tolist(), strict=True)
                part = _with(part, "label", [None if hidden else label for label, hidden in shown])
                writer.write_table(_with(part, "split", [name] * part.num_rows))


def _with(pairs: pa.Table, name: str, texts: Sequence[str | None]) -> pa.Table:
    place = PAIR_SCHEMA.get_field_index(name)
    return pairs.set_column(place, PAIR_SCHEMA.field(place), texts_of(texts))


def _label_counts(checked: pa.Table, left: Withheld, scale: LabelScale) -> dict[str, dict[str, int]]:
    labels = positions(checked["label"], pa.array(scale.names))
    shown = (labels >= 0) & ~left.hidden
    counts = {
        name: np.bincount(labels[shown & (left.splits == number)], minlength=len(scale.names))
        for number, name in enumerate(SPLITS)
    }
    return {name: dict(zip(scale.names, count.tolist(), strict=True)) for name, count in counts.items()}


def _query_counts(checked: pa.Table, splits: Codes) -> dict[str, int]:
    query_ids, _ = codes(checked["query_id"])
    return {name: len(np.unique(query_ids[splits == number])) for number, name in enumerate(SPLITS)}
