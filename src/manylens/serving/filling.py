"""Filling a store of products' lower states: crash-safe, and going on where it was."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from manylens.errors import DataError, StudentError
from manylens.files import write_json
from manylens.serving.states import CARD, CREATE, FIND, INDEX, STATES, StoreCard


class Entry(NamedTuple):
    """A product of a catalogue: its id, its locale, and a digest of the text that the student reads of it."""

    product_id: str
    locale: str
    digest: bytes


class StateWriter:
    """A store that is being filled, by one process at a time; a context manager that closes it."""

    def __init__(self, path: str | Path, card: StoreCard) -> None:
        """Make a store, or go on with one.

        Args:
            path: The folder.
            card: What it shall hold.

        Raises:
            StudentError: If there is a store of another student or precision, or another process fills it.
        """
        self.folder, self.card = Path(path), card
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StudentError(f"another process is writing to {self.folder}; wait for it") from None
        try:
            self._start()
        except BaseException:
            self._lock.release()
            raise

    def _start(self) -> None:
        if (self.folder / CARD).exists():
            there = StoreCard.load(self.folder)
            if there != self.card:
                changed = [name for name, value in asdict(there).items() if value != getattr(self.card, name)]
                raise StudentError(
                    f"{self.folder} is a store of another {' and '.join(changed)}; "
                    "write to another folder, or remove it"
                )
        else:
            write_json(self.folder / CARD, asdict(self.card))
        self._index = sqlite3.connect(self.folder / INDEX)
        self._index.execute(CREATE)
        self._end, last = self._index.execute(
            "SELECT IFNULL(MAX(start + tokens), 0), IFNULL(MAX(written_by), 0) FROM products"
        ).fetchone()
        self._writer = last + 1
        self._states = (self.folder / STATES).open("ab")
        self._states.truncate(self._end * self.card.record.itemsize)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the files."""
        self._states.close()
        self._index.close()
        self._lock.release()

    def lacking(self, entries: Sequence[Entry]) -> list[int]:
        """Return the places of the products that the store lacks, or has with another text, each product once.

        Raises:
            DataError: If this writer has met a product with another text already.
        """
        met: dict[tuple[str, str], bytes] = {}
        lacking: list[int] = []
        unchanged: list[tuple[int, str, str]] = []
        for place, entry in enumerate(entries):
            key = entry.product_id, entry.locale
            _, _, stored, writer = self._index.execute(FIND, key).fetchone() or (0, 0, None, 0)
            before = met.get(key, stored if writer == self._writer else None)
            if before not in (None, entry.digest):
                raise DataError(
                    f"product {entry.product_id!r} in the locale {entry.locale!r} has two different texts in one "
                    "table; give each its own product_id, or keep one of them"
                )
            if key in met:
                continue
            met[key] = entry.digest
            if stored != entry.digest:
                lacking.append(place)
            elif writer != self._writer:
                unchanged.append((self._writer, *key))
        with self._index:
            self._index.executemany("UPDATE products SET written_by = ? WHERE product_id = ? AND locale = ?", unchanged)
        return lacking

    def add(self, entries: Sequence[Entry], states: NDArray[np.float32], lengths: Sequence[int]) -> None:
        """Add products, or replace those that have another text by now; they are safe when this returns.

        Args:
            entries: The products.
            states: (tokens, dim) of all of them, one after the other.
            lengths: The tokens of each.
        """
        starts = self._end + np.cumsum([0, *lengths])
        self._states.write(self.card.encode(states).tobytes())
        self._states.flush()
        os.fsync(self._states.fileno())
        rows = [
            (*entry, int(start), int(length), self._writer)
            for entry, start, length in zip(entries, starts, lengths, strict=False)
        ]
        with self._index:
            self._index.executemany("INSERT OR REPLACE INTO products VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._end = int(starts[-1])
