"""The store of products' lower states, which a split student's upper layers read in place of the product.

STORE/
store.json       the card: whose states they are, and how they are kept; written first
products.sqlite  which tokens are a product's
states.bin       a record a token: float16 values, or int8 values with their scale; memory-mapped

A batch of products is in the store once its rows are committed, which is after its states are on the disk. So after
``kill -9``, or a power cut, the store holds whole products; `manylens.serving.filling` fills it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from manylens.errors import DataError, StudentError

Precision = Literal["fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
#: The version of the store's layout.
FORMAT = 1
CARD, INDEX, STATES = "store.json", "products.sqlite", "states.bin"
CREATE = """
CREATE TABLE IF NOT EXISTS products (
    product_id TEXT NOT NULL,
    locale TEXT NOT NULL,
    digest BLOB NOT NULL,
    start INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    written_by INTEGER NOT NULL,
    PRIMARY KEY (product_id, locale)
) WITHOUT ROWID
"""
FIND = "SELECT start, tokens, digest, written_by FROM products WHERE product_id = ? AND locale = ?"
_FIND_ANYWHERE = "SELECT start, tokens FROM products WHERE product_id = ? LIMIT 2"
_FIND_TEXT = "SELECT start, tokens FROM products WHERE product_id = ? AND digest = ?"


@dataclass(frozen=True, kw_only=True)
class StoreCard:
    """What ``store.json`` says.

    Attributes:
        format: Version of the layout.
        student: Fingerprint of the student's lower layers, tokenizer and template.
        split_layers: Layers that lie behind a state.
        dim: Values of a state.
        precision: ``fp16``, or ``int8`` with a scale a token, the largest absolute value over 127.
    """

    format: int = FORMAT
    student: str
    split_layers: int
    dim: int
    precision: Precision = "fp16"

    @classmethod
    def load(cls, folder: Path) -> StoreCard:
        """Read a store's card.

        Raises:
            StudentError: If there is none, or it is of another format.
        """
        path = folder / CARD
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise StudentError(f"{path}: expected format {FORMAT}, got {values['format']!r}; make the store anew")
            return cls(**values)
        except FileNotFoundError:
            raise StudentError(
                f"{folder} is no store of states: it has no {CARD}; make one with: manylens precompute"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise StudentError(f"{path} is damaged ({error}); make the store anew") from None

    @property
    def record(self) -> np.dtype[Any]:
        """A token in ``states.bin``."""
        if self.precision == "fp16":
            return np.dtype([("values", "<f2", (self.dim,))])
        return np.dtype([("scale", "<f4"), ("values", "i1", (self.dim,))])

    def encode(self, states: NDArray[np.float32]) -> NDArray[Any]:
        """Return the records of states (tokens, dim)."""
        records = np.empty(len(states), self.record)
        if self.precision == "int8":
            scale = np.abs(states).max(axis=1) / np.float32(127.0)
            records["scale"] = scale
            # A state of zeros has the scale 0, and its values are 0 whatever they are divided by.
            states = np.rint(states / np.where(scale > 0, scale, 1.0)[:, None])
        records["values"] = states
        return records

    def decode(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """Return the states (tokens, dim) of records."""
        values: NDArray[np.float32] = records["values"].astype(np.float32)
        return values * records["scale"][:, None] if self.precision == "int8" else values


class StateStore:
    """An open store, to read; a context manager that closes it. Threads may share it.

    Attributes:
        folder: Where it is.
        card: What it holds.
    """

    def __init__(self, folder: Path, card: StoreCard, index: sqlite3.Connection) -> None:
        """Put the parts together; see `open` for a folder."""
        self.folder, self.card = folder, card
        self._index, self._lock = index, threading.Lock()
        self._records = self._map()

    @classmethod
    def open(cls, path: str | Path, *, student: str | None = None) -> StateStore:
        """Open a store.

        Args:
            path: The folder that ``manylens precompute`` wrote.
            student: The fingerprint of the student that will read it; ``None`` checks nothing.

        Raises:
            StudentError: If there is no store, or it is another student's.
        """
        folder = Path(path)
        card = StoreCard.load(folder)
        if student is not None and card.student != student:
            raise StudentError(
                f"{folder} holds states of the student {card.student[:12]}, not of {student[:12]}; "
                "make this student's own with: manylens precompute"
            )
        try:
            # Not read-only: a reader may have to roll back what a killed writer had begun.
            uri = f"{(folder / INDEX).resolve().as_uri()}?mode=rw"
            index = sqlite3.connect(uri, uri=True, check_same_thread=False)
            index.execute(FIND, ("", ""))
        except sqlite3.Error as error:
            raise StudentError(f"{folder / INDEX} cannot be read ({error}); go on with: manylens precompute") from None
        return cls(folder, card, index)

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._index.close()

    def __len__(self) -> int:
        """Return how many products there are."""
        return int(self._one("SELECT COUNT(*) FROM products"))

    @property
    def bytes_per_product(self) -> float:
        """Mean size of a product's states, in bytes; 0 where there is none."""
        tokens = self._one("SELECT AVG(tokens) FROM products")
        return float(tokens or 0.0) * self.card.record.itemsize

    def get(
        self, product_ids: Sequence[str], locale: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the states of products, in the order asked for.

        Args:
            product_ids: The products.
            locale: Their locale, as the table had it; it matters only where an id stands in several.

        Returns:
            (products, tokens, dim), padded with zeros to the longest, and (products,) the tokens of each.

        Raises:
            DataError: If the store lacks a product, or has it in several locales and none is given.
        """
        with self._lock:
            rows = self._find(product_ids, locale)
            records = self._reaching(rows)
        lengths = np.array([tokens for _, tokens in rows], dtype=np.int64)
        states = np.zeros((len(rows), int(lengths.max(initial=0)), self.card.dim), dtype=np.float32)
        for place, (start, tokens) in zip(states, rows, strict=True):
            place[:tokens] = self.card.decode(records[start : start + tokens])
        return states, lengths

    def find(self, products: Sequence[tuple[str, bytes]]) -> list[NDArray[Any] | None]:
        """Return the records of products, in the order asked for; `StoreCard.decode` makes states of them.

        Args:
            products: Of each its id and the digest of its text. The locale does not matter: states follow from the
                text.

        Returns:
            (tokens,) records each, a view of the file; ``None`` where the store lacks the product, or has it with
            another text.
        """
        with self._lock:
            rows = [self._index.execute(_FIND_TEXT, product).fetchone() for product in products]
            records = self._reaching([row for row in rows if row is not None])
        return [None if row is None else records[row[0] : row[0] + row[1]] for row in rows]

    def _reaching(self, rows: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """Return the records, which reach beyond the end of every one of `rows`."""
        if any(start + tokens > len(self._records) for start, tokens in rows):
            self._records = self._map()  # The store has grown since it was opened.
        return self._records

    def _find(self, product_ids: Sequence[str], locale: str | None) -> list[tuple[int, int]]:
        """Return where the states of products start, and how many tokens they are."""
        found: list[tuple[int, int]] = []
        lacking: list[str] = []
        for name in product_ids:
            if locale is None:
                rows = self._index.execute(_FIND_ANYWHERE, (name,)).fetchall()
            else:
                rows = self._index.execute(FIND, (name, locale)).fetchall()
            if len(rows) > 1:
                raise DataError(
                    f"{self.folder} has the product {name!r} in several locales; name the one that is meant"
                )
            found += [row[:2] for row in rows]
            lacking += [] if rows else [name]
        if lacking:
            where = "" if locale is None else f" in the locale {locale!r}"
            raise DataError(
                f"{self.folder} lacks {len(lacking)} of {len(product_ids)} products{where}, such as {lacking[0]!r}; "
                "add them with: manylens precompute"
            )
        return found

    def _map(self) -> NDArray[Any]:
        path, size = self.folder / STATES, self.card.record.itemsize
        whole = path.stat().st_size // size
        if not whole:  # Nothing cannot be mapped.
            return np.empty(0, self.card.record)
        # As a plain array, whose slices are made several times as fast.
        return np.memmap(path, self.card.record, mode="r", shape=(whole,)).view(np.ndarray)

    def _one(self, query: str) -> Any:  # noqa: ANN401 - SQLite's value
        with self._lock:
            return self._index.execute(query).fetchone()[0]
