"""The folder of a scored table: Parquet shards, each there only when it is whole, and what they follow from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from manylens.errors import StudentError
from manylens.progress import meter

#: Readers of a folder of Parquet files pass over names that start like this one.
CARD = "_score.json"
#: What a scored table may be joined to, by the file's ending.
WRITERS = {".parquet": pq.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
_UNFINISHED = "_unfinished"
#: The version of the card's layout.
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ScoreCard:
    """What scores follow from; shards of other scores are never mixed with them.

    Attributes:
        source: Size of the table in bytes, and when it was last changed, in nanoseconds.
        model: The model's fingerprint.
        columns: From our field to the table's column.
        rows_per_shard: Rows of every shard but the last.
        states_precision: How the store keeps the states that products come from; ``None`` without one. Whose states
            they are follows from `model`.
        format: Version of this layout.
    """

    source: tuple[int, int]
    model: str
    columns: Mapping[str, str | Sequence[str]]
    rows_per_shard: int
    states_precision: str | None = None
    format: int = _FORMAT


class ShardFolder:
    """Shards ``part-00000.parquet``, ``part-00001.parquet`` and so on, held against other processes.

    Attributes:
        path: The folder.
        finished: The numbers of the shards that are there.
        rows: Rows of all shards where the last one is there too, else ``None``.
        joined: Rows of the file that they were joined to, ``None`` before.
    """

    def __init__(self, path: Path, card: ScoreCard) -> None:
        """Open a folder, or make it.

        Args:
            path: The folder.
            card: What the scores follow from.

        Raises:
            StudentError: If it holds other scores or other files, or another process writes to it.
        """
        self.path, self._card = path, {**asdict(card), "source": list(card.source)}
        there = {file.name for file in path.iterdir()} if path.is_dir() else set()
        strange = there - {".lock", _UNFINISHED} if CARD not in there else None
        if strange:
            raise StudentError(
                f"{path} holds other files, such as {min(strange)}, and no {CARD}; expected a new folder, or one with "
                "scores; write to another place"
            )
        self._made = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudentError(f"{path} cannot be made a folder: {error}; write to another place") from None
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StudentError(
                f"another process is writing to {path}; wait for it, or write to another place"
            ) from None
        try:
            state = self._start()
        except BaseException:
            self._lock.release()
            raise
        self.finished = frozenset(int(file.stem.partition("-")[2]) for file in path.glob("part-*.parquet"))
        whole = "rows" in state and len(self.finished) == state["shards"]
        self.rows: int | None = state["rows"] if whole else None
        self.joined: int | None = state.get("joined")

    def _start(self) -> dict[str, Any]:
        """Return what the card says, written where there is none."""
        (self.path / _UNFINISHED).unlink(missing_ok=True)
        try:
            state: dict[str, Any] = json.loads((self.path / CARD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return self._write_card()
        except ValueError as error:
            raise StudentError(f"{self.path / CARD} is damaged ({error}); remove {self.path}") from None
        changed = [name for name, value in self._card.items() if state.get(name) != value]
        if not self.files() and (changed or "joined" not in state):
            return self._write_card()
        if changed:
            raise StudentError(
                f"{self.path} holds scores with another {' and '.join(changed)}; remove it, or write to another place"
            )
        return state

    def __enter__(self) -> Self:
        """Return the folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let other processes write to it; one that was made for nothing is removed."""
        self._lock.release()
        if self._made and not self.files():
            shutil.rmtree(self.path)

    def files(self) -> list[Path]:
        """Return the shards in order."""
        return sorted(self.path.glob("part-*.parquet"), key=lambda file: (len(file.name), file.name))

    def finished_rows(self) -> int:
        """Return the rows of the shards that are there."""
        return sum(pq.read_metadata(file).num_rows for file in self.files())

    @contextmanager
    def shard(self, number: int, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """Write a shard, which is there and safe on the disk once the block has ended well.

        Args:
            number: Its place.
            schema: Of its rows.

        Yields:
            What writes the rows.
        """
        with self._whole(self.path / f"part-{number:05}.parquet") as file, pq.ParquetWriter(file, schema) as writer:
            yield writer

    @contextmanager
    def _whole(self, place: Path) -> Iterator[BinaryIO]:
        """Write a file that gets its name when it is whole and safe."""
        unfinished = self.path / _UNFINISHED
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, place)
            _sync_folder(place.parent)
        except OSError as error:
            raise StudentError(
                f"{place} cannot be written: {error}; mend that, and run the same again: it goes on after the "
                "finished shards"
            ) from None
        finally:
            unfinished.unlink(missing_ok=True)

    def _write_card(self, **state: int | None) -> dict[str, Any]:
        """Write what the card says, and return it."""
        told = {**self._card, **state}
        with self._whole(self.path / CARD) as file:
            file.write(json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8"))
        return told

    def finish(self) -> int:
        """Write down that the last shard is there, and return the rows of all."""
        self.rows = self.finished_rows()
        self._write_card(rows=self.rows, shards=len(self.files()))
        return self.rows

    def join(self, out: Path) -> None:
        """Write the rows of all shards to one file, which appears only when it is whole.

        Args:
            out: A ``.parquet`` or ``.csv`` file.
        """
        files = self.files()
        with (
            meter(f"join {out.name}", self.rows) as bar,
            self._whole(out) as file,
            WRITERS[out.suffix](file, pq.read_schema(files[0])) as writer,
        ):
            for each in files:
                with pq.ParquetFile(each) as shard:
                    for batch in shard.iter_batches():
                        writer.write_batch(batch)
                        bar.advance(batch.num_rows)
        self._write_card(rows=self.rows, shards=len(files), joined=self.rows)

    def remove(self) -> None:
        """Remove the folder once its rows are joined; its card, which says so, goes last."""
        for file in self.files():
            file.unlink()
        shutil.rmtree(self.path)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder safe; only POSIX can."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
