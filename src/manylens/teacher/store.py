"""The judgement store: every answer that was ever paid for, in one SQLite file.

Rows are only ever added. A row's key is pair, perspective, sample, attempt, teacher, sampling settings and
prompt hash, so whatever changes the question makes a new row, and whatever does not is never asked
again. The file is in WAL mode with ``synchronous=NORMAL``: a committed batch survives ``kill -9`` of
the process; a power cut can take the last commits, never the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from manylens.errors import TeacherError
from manylens.records import Judgement
from manylens.teacher.judgements import JUDGEMENT_SCHEMA, write_judgements

_APPLICATION_ID = int.from_bytes(b"mlns", "big")
_VERSION = 2
_COLUMNS = ", ".join(JUDGEMENT_SCHEMA.names)
_CREATE = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS judgements (
    pair_id TEXT NOT NULL,
    perspective TEXT NOT NULL,
    sample INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    label TEXT,
    reason TEXT,
    rationale TEXT NOT NULL,
    raw TEXT NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    finish_reason TEXT,
    teacher TEXT NOT NULL,
    sampling TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    PRIMARY KEY (pair_id, perspective, sample, attempt, teacher, sampling, prompt_hash)
);
COMMIT;
"""
_INSERT = (
    f"INSERT INTO judgements ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in JUDGEMENT_SCHEMA.names)}) "
    "ON CONFLICT DO NOTHING"
)


class Key(NamedTuple):
    """What makes a judgement the answer to one question; see `records.Judgement` for the fields."""

    pair_id: str
    perspective: str
    sample: int
    attempt: int
    teacher: str
    sampling: str
    prompt_hash: str


class AnswerStatistics(NamedTuple):
    """What a teacher's stored answers from one perspective are like.

    Attributes:
        answers: How many there are.
        counted: Those whose backend told their tokens.
        completion_tokens: The mean of those, or ``None`` where there are none.
        unlabelled: Share of `answers` in which no label was found when they were stored.
    """

    answers: int
    counted: int
    completion_tokens: float | None
    unlabelled: float


_WHERE = "WHERE " + " AND ".join(f"{name} = ?" for name in Key._fields)


class JudgementStore:
    """An append-only, crash-safe store of judgements; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        """Open a store, and create it where there is none.

        Args:
            path: The SQLite file, on a local disk (WAL mode does not work over network file systems); its folder is
                made where it does not exist.

        Raises:
            TeacherError: If the file is no judgement store, or one of another version.
        """
        self.path = path
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60.0)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close the file; what `add` returned from stays."""
        self._connection.close()

    def __len__(self) -> int:
        """Return the number of judgements of all teachers and prompts."""
        with self._errors():
            return int(self._connection.execute("SELECT count(*) FROM judgements").fetchone()[0])

    def __contains__(self, key: Key) -> bool:
        """Return whether there is an answer to this question."""
        with self._errors():
            return self._connection.execute(f"SELECT 1 FROM judgements {_WHERE}", key).fetchone() is not None

    def add(self, judgements: Iterable[Judgement]) -> None:
        """Add judgements in one transaction; an answer that is there already stays as it is.

        Raises:
            TeacherError: If the file cannot be written; none of these judgements is then in the store.
        """
        rows = ({name: getattr(judgement, name) for name in JUDGEMENT_SCHEMA.names} for judgement in judgements)
        with self._errors(), self._connection:
            self._connection.executemany(_INSERT, rows)

    def get(self, key: Key) -> Judgement | None:
        """Return the answer to this question, or ``None``."""
        with self._errors():
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM judgements {_WHERE}", key).fetchone()
        return None if row is None else _judgement(row)

    def statistics(self, teacher: str, sampling: str) -> dict[str, AnswerStatistics]:
        """Return what the answers of one teacher are like, by perspective, whatever the pairs and prompts.

        Args:
            teacher: The teacher's name.
            sampling: Its sampling settings.
        """
        query = (
            "SELECT perspective, count(*), count(completion_tokens), avg(completion_tokens), avg(label IS NULL) "
            "FROM judgements WHERE teacher = ? AND sampling = ? GROUP BY perspective"
        )
        with self._errors():
            return {name: AnswerStatistics(*row) for name, *row in self._connection.execute(query, (teacher, sampling))}

    def export(self, path: Path) -> int:
        """Write all judgements, sorted by their keys, to a Parquet file of `JUDGEMENT_SCHEMA`.

        Args:
            path: The file; it appears only when it is whole.

        Returns:
            How many were written.
        """
        with self._errors():
            rows = self._connection.execute(f"SELECT {_COLUMNS} FROM judgements ORDER BY {', '.join(Key._fields)}")
            return write_judgements(path, map(_judgement, rows))

    def _prepare(self) -> None:
        application, version, tables = (
            self._connection.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if (application, tables) != (0, 0) and application != _APPLICATION_ID:
            raise TeacherError(f"{self.path} is a database, but not a judgement store; give another path")
        if application == _APPLICATION_ID and version != _VERSION:
            raise TeacherError(
                f"{self.path} has store version {version}, this manylens reads {_VERSION}; "
                "use the manylens that wrote it, or start a new store"
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_CREATE)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise TeacherError(f"judgement store {self.path}: {error}") from error


def _judgement(row: tuple[object, ...]) -> Judgement:
    return Judgement(**dict(zip(JUDGEMENT_SCHEMA.names, row, strict=True)))  # type: ignore[arg-type]
