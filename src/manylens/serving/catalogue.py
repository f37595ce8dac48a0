"""Scoring a table of pairs of any size, in constant memory, on any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manylens.data import iter_unlabelled
from manylens.data.readers import FORMATS, require_file
from manylens.errors import StudentError
from manylens.progress import meter
from manylens.serving.layout import CARD, PARTS, TORCH, VARIANTS, classes_folder, part_file
from manylens.serving.shards import WRITERS, ScoreCard, ShardFolder
from manylens.serving.workers import Part, Workers

ROWS_PER_SHARD = 100_000
_ID_COLUMNS = ("pair_id", "query_id", "product_id", "query", "title")
#: A part and its probabilities, (rows, classes).
Scored = tuple[Part, NDArray[np.float32]]
#: Most pairs that are scored at a time; the scorer sorts so many by length.
_PART_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """What came of a table.

    Attributes:
        rows: Rows of the table.
        scored: Those that were scored now; the others had been scored before.
    """

    rows: int
    scored: int


def score_catalogue(
    model: str | Path,
    source: Path,
    out: Path,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    variant: str | None = None,
    states: str | Path | None = None,
    workers: int = 1,
    threads: int | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
) -> ScoreReport:
    """Score every row of a table, in its order.

    Called again after a stop, it goes on after the shards that are finished; a finished folder is left as it is. A
    failure leaves a file `out` as it was.

    Args:
        model: What `Scorer.load` takes.
        source: CSV, TSV, Parquet or JSONL with at least a query and a title.
        out: A folder, which gets Parquet shards; or a ``.parquet`` or ``.csv`` file, which is joined of the shards in
            the folder ``OUT.parts`` beside it. The columns: ids, query and title; ``label``; one ``p_<class>`` a
            class; ``score``, the expected gain.
        columns: From our field to the table's column, as ``data.columns`` of a recipe.
        variant: As `Scorer.load` has it.
        states: As `Scorer.load` has it. Rounded states change the last digits of the scores, so that one folder's are
            all with a store of one precision, or all without.
        workers: Processes that score; 1 scores in this one. More than 1 are started anew, so a script that calls this
            needs ``if __name__ == "__main__":``.
        threads: Cores of each; ``None`` deals out the physical ones.
        rows_per_shard: Rows of every shard but the last; a stop loses at most the work of one.

    Raises:
        DataError: If the table cannot be read or a row is bad; the finished shards stay.
        MissingExtraError: If the engine's library is not installed.
        StudentError: If there is no such model, the store is not for it, `out` has another ending or holds other
            scores, or a worker died.
    """
    for name, value in (("workers", workers), ("rows_per_shard", rows_per_shard)):
        if value < 1:
            raise StudentError(f"{name} must be at least 1, got {value}")
    place = _shards_of(out)
    found = require_file(source).stat()
    with Workers(model, workers=workers, threads=threads, variant=variant, states=states) as pool:
        card = ScoreCard(
            source=(found.st_size, found.st_mtime_ns),
            model=model_fingerprint(model, pool.variant, parts=states is not None),
            columns={name: each if isinstance(each, str) else list(each) for name, each in (columns or {}).items()},
            rows_per_shard=rows_per_shard,
            states_precision=pool.precision,
        )
        with ShardFolder(place, card) as folder:
            if folder.joined is not None and out.is_file():  # Killed while the shards were removed.
                report = ScoreReport(rows=folder.joined, scored=0)
            else:
                report = _fill(folder, pool, source, card)
                if place != out:
                    folder.join(out)
    if place != out:
        folder.remove()
    return report


def model_fingerprint(model: str | Path, variant: str, *, parts: bool = False) -> str:
    """Return the SHA-256 of all files that a model's scores follow from.

    Args:
        model: What `Scorer.load` takes.
        variant: What it loaded of that.
        parts: Whether a split student's parts are run, and not its whole graph.
    """
    folder = Path(model) if variant == TORCH else classes_folder(model)
    if variant == TORCH:
        files = [file for pattern in ("config.json", "*.safetensors", "*.bin") for file in folder.glob(pattern)]
    else:
        names = [part_file(part, variant) for part in PARTS] if parts else [VARIANTS[variant]]
        graphs = [folder / name for name in names]
        files = [folder / CARD, *(file for graph in graphs for file in graph.parent.glob(f"{graph.stem}.*"))]
    digest = hashlib.sha256(variant.encode("utf-8"))
    for file in sorted([*files, *folder.glob("tokenizer*.json")]):
        with file.open("rb") as content:
            digest.update(file.name.encode("utf-8") + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _shards_of(out: Path) -> Path:
    """Return the folder of the shards."""
    if out.is_dir() or not out.suffix:
        return out
    if out.suffix in WRITERS:
        return out.with_name(f"{out.name}.parts")
    raise StudentError(
        f"{out}: scores are written as .parquet or .csv, or to a folder, got {out.suffix!r}; "
        "a folder with such a name has to be there"
    )


def _fill(folder: ShardFolder, pool: Workers, source: Path, card: ScoreCard) -> ScoreReport:
    """Score what no finished shard has."""
    if folder.rows is not None:
        return ScoreReport(rows=folder.rows, scored=0)
    schema, scored, before, total = _schema(pool.labels), 0, folder.finished_rows(), _rows_of(source)
    with meter(f"score {source.name}", None if total is None else total - before) as bar:
        if before:
            bar.note(f"{before:,} scored before")
        parts = _parts(iter_unlabelled(source, card.columns), card.rows_per_shard)
        results = pool.score(part for part in parts if part.shard not in folder.finished)
        for first in results:
            with folder.shard(first[0].shard, schema) as writer:
                for part, probabilities in _of_one_shard(first, results):
                    writer.write_batch(_scored(part.pairs, probabilities, pool, schema))
                    scored += part.pairs.num_rows
                    bar.advance(part.pairs.num_rows)
    if not folder.files():  # A table without rows has columns nevertheless.
        with folder.shard(0, schema):
            pass
    return ScoreReport(rows=folder.finish(), scored=scored)


def _parts(batches: Iterable[pa.RecordBatch], rows_per_shard: int) -> Iterator[Part]:
    """Cut batches into parts, none of which lies in two shards."""
    row = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            size = min(_PART_ROWS, batch.num_rows - start, rows_per_shard - row % rows_per_shard)
            shard, pairs = row // rows_per_shard, batch.slice(start, size)
            start, row = start + size, row + size
            yield Part(shard=shard, last=row % rows_per_shard == 0, pairs=pairs)


def _of_one_shard(first: Scored, others: Iterator[Scored]) -> Iterator[Scored]:
    """Yield the results of a shard; a full one does not wait for what comes after."""
    yield first
    while not first[0].last and (after := next(others, None)) is not None:
        yield after
        first = after


def _rows_of(source: Path) -> int | None:
    """Return the number of rows where that is known without reading them."""
    if FORMATS.get(source.suffix.lower()) != "parquet":
        return None
    try:
        return int(pq.read_metadata(source).num_rows)
    except (OSError, pa.ArrowException):  # The reader says what is wrong.
        return None


def _schema(labels: Sequence[str]) -> pa.Schema:
    texts: dict[str, pa.DataType] = {name: pa.string() for name in (*_ID_COLUMNS, "label")}
    numbers = {name: pa.float32() for name in (*(f"p_{label}" for label in labels), "score")}
    return pa.schema({**texts, **numbers})


def _scored(
    pairs: pa.RecordBatch, probabilities: NDArray[np.float32], pool: Workers, schema: pa.Schema
) -> pa.RecordBatch:
    labels = [pool.labels[index] for index in probabilities.argmax(axis=1)]
    scores = (probabilities @ pool.gains).astype(np.float32)
    arrays = [*(pairs[name] for name in _ID_COLUMNS), pa.array(labels, pa.string()), *map(pa.array, probabilities.T)]
    return pa.RecordBatch.from_arrays([*arrays, pa.array(scores)], schema=schema)
