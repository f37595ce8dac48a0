"""Writing the index of training rationales that `manylens.serving.rationales` reads."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manylens.config import EmbedConfig
from manylens.data import Pairs
from manylens.errors import StudentError
from manylens.files import write_json
from manylens.progress import meter
from manylens.records import Pair
from manylens.serving import rationales as layout
from manylens.serving.rationales import IndexCard, RationaleIndex, graph_file, graph_library, unit, vectors_file
from manylens.student.methods import get_method
from manylens.student.parts import Guide
from manylens.student.predict import Student
from manylens.student.targets import Rationale, Targets, hallucinate, read_rationales

#: Sources whose vectors are those of the pair's own rationales; the others are controls.
_SOURCES = ("rationale", "labelled_rationale")
#: Most dev pairs whose latents the quantiles are of.
_REFERENCE_PAIRS = 10_000
#: Rows that are written, and pairs that are read, at a time.
_BLOCK, _PAIRS_AT_ONCE = 16_384, 256
_CREATE = """
CREATE TABLE rationales (
    latent INTEGER, row INTEGER, place INTEGER, perspective TEXT, pair_id TEXT, query TEXT, title TEXT, label TEXT,
    gold_label TEXT, rationale TEXT, PRIMARY KEY (latent, row, place)
) WITHOUT ROWID
"""


def has_rationales(student: Student, method: str, config: EmbedConfig) -> bool:
    """Return whether a student's latents were trained towards the rationales of its pairs.

    Args:
        student: The student.
        method: How it was trained.
        config: What its targets were made of.
    """
    guided = any(issubclass(part, Guide) for part in get_method(method).losses.values())
    return student.model.extractor is not None and guided and config.source in _SOURCES


def write_rationales(
    student: Student,
    pairs: Pairs,
    targets: Targets,
    table: pa.Table,
    config: EmbedConfig,
    *,
    name: str,
    seed: int,
    folder: Path,
) -> None:
    """Write the index of a student's training rationales, whole or not at all.

    Args:
        student: A student for which `has_rationales`.
        pairs: Pairs of all splits. Rationales of train alone are indexed; dev says how near is near.
        targets: What the latents were trained towards.
        table: The teacher's rationales, as the stage embed read them.
        config: What that stage made of them.
        name: The student's name.
        seed: The run's, by which rationales were hallucinated.
        folder: The export folder; an index that is there is replaced.

    Raises:
        StudentError: If no training pair has a target, or the rationales are not those of the targets.
    """
    judged = set(targets.pair_ids)
    known = {pair.pair_id: pair for pair in pairs if pair.pair_id in judged}
    texts = _texts(table, known, targets, config, seed)
    train = np.array([known[pair_id].split == "train" for pair_id in targets.pair_ids])
    rows = [np.flatnonzero(train & targets.mask[:, latent]) for latent in range(len(targets.names))]
    if not any(len(chosen) for chosen in rows):
        raise StudentError("no training pair has a rationale, so that nothing explains; judge pairs of train")
    unfinished = folder / f"{layout.RATIONALES}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # A killed export left it.
    unfinished.mkdir(parents=True)
    for latent, chosen in enumerate(rows):
        _write_vectors(unfinished, latent, targets.vectors, chosen)
    with closing(sqlite3.connect(unfinished / layout.TEXTS)) as connection, connection:
        connection.execute(_CREATE)
        connection.executemany(
            f"INSERT INTO rationales VALUES ({', '.join('?' * 10)})", _entries(rows, targets, texts, known)
        )
    card = IndexCard(
        model=name,
        names=targets.names,
        dim=targets.dim,
        rows=tuple(len(chosen) for chosen in rows),
        quantiles=(),
        reference_pairs=0,
    )
    write_json(unfinished / layout.CARD, asdict(card))
    similarities = _reference(unfinished, student, pairs.split("dev"))
    quantiles = np.quantile(similarities, np.linspace(0.0, 1.0, 101))
    finished = {"quantiles": quantiles.tolist(), "reference_pairs": len(similarities)}
    write_json(unfinished / layout.CARD, asdict(card) | finished)
    shutil.rmtree(folder / layout.RATIONALES, ignore_errors=True)
    os.replace(unfinished, folder / layout.RATIONALES)


def _texts(
    table: pa.Table, known: Mapping[str, Pair], targets: Targets, config: EmbedConfig, seed: int
) -> dict[str, list[Rationale]]:
    """Return the rationales that were embedded, by pair, in the order of their perspectives' places."""
    found = read_rationales(table, consistent_only=config.use == "consistent")
    if config.hallucinate is not None:
        found, _ = hallucinate(found, known, config.hallucinate, seed)
    texts: dict[str, list[Rationale]] = {}
    for rationale in found:
        if rationale.kept:
            texts.setdefault(rationale.pair_id, []).append(rationale)
    there = {pair_id for pair_id, mask in zip(targets.pair_ids, targets.mask, strict=True) if mask.any()}
    if there != set(texts):
        raise StudentError("the rationales are not those that the targets were made of; run embed again")
    return texts


def _write_vectors(folder: Path, latent: int, vectors: NDArray[np.float32], chosen: NDArray[np.intp]) -> None:
    file = vectors_file(folder, latent)
    shape = (len(chosen), vectors.shape[2])
    if not len(chosen):  # Nothing can be mapped of it.
        np.save(file, np.empty(shape, dtype=np.float32))
        return
    written = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    library = graph_library() if len(chosen) > layout.EXACT_ROWS else None
    graph = None if library is None else library.Index(ndim=shape[1], metric="ip", dtype="f16")
    for start in range(0, len(chosen), _BLOCK):
        block = unit(vectors[chosen[start : start + _BLOCK], latent])
        written[start : start + _BLOCK] = block
        if graph is not None:
            graph.add(np.arange(start, start + len(block)), block)
    written.flush()
    if graph is not None:
        graph.save(str(graph_file(folder, latent)))


def _entries(
    rows: Sequence[NDArray[np.intp]], targets: Targets, texts: Mapping[str, list[Rationale]], known: Mapping[str, Pair]
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the table of texts."""
    apart = targets.names != ("rationale",)
    for latent, chosen in enumerate(rows):
        for row, place in enumerate(chosen.tolist()):
            pair = known[targets.pair_ids[place]]
            behind = [each for each in texts[pair.pair_id] if not apart or each.perspective == targets.names[latent]]
            for number, each in enumerate(behind):
                fields = (pair.pair_id, pair.query, pair.title, each.label, pair.label, each.text)
                yield latent, row, number, each.perspective, *fields


def _reference(folder: Path, student: Student, dev: Pairs) -> NDArray[np.float64]:
    """Return how near dev pairs are to their nearest rationale."""
    chosen = np.unique(np.linspace(0, len(dev) - 1, min(len(dev), _REFERENCE_PAIRS)).astype(np.int64))
    sample, parts = dev.table.take(chosen), []
    with closing(RationaleIndex(folder)) as index, meter("nearest rationales of dev", len(chosen)) as bar:
        for start in range(0, len(chosen), _PAIRS_AT_ONCE):
            part = list(Pairs(sample.slice(start, _PAIRS_AT_ONCE)))
            latents = student.states(part).latents
            assert latents is not None
            parts.append(index.closest(latents))
            bar.advance(len(part))
    return np.concatenate(parts)
