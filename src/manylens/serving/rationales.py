"""The rationales that a student was trained towards, beside its export: which of them are nearest to its latents.

    export/rationales/
      index.json      the card
      vectors-N.npy   (rows, dim) float32 of latent N, each of length 1 or 0; memory-mapped
      nearest-N.usearch   a graph over many vectors, where usearch was installed
      texts.sqlite    the rationales behind each row

`manylens.serving.indexing` writes it; reading needs neither torch nor pyarrow.
"""

from __future__ import annotations

import importlib
import json
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StudentError

#: The index's folder within an export.
RATIONALES = "rationales"
CARD, TEXTS = "index.json", "texts.sqlite"
#: The version of the index's layout.
FORMAT = 1
#: Vectors of a latent above which the search is approximate, where usearch is installed.
EXACT_ROWS = 200_000
#: How many candidates an approximate search looks at for each rationale that is wanted, and at least.
_CANDIDATES, _LEAST_CANDIDATES = 8, 64
#: Rows of one matrix product.
_BLOCK = 16_384
#: Cosines are rounded so far, else equal vectors could differ by where they stand in a block.
_DECIMALS = 6
_FIND = (
    "SELECT perspective, pair_id, query, title, label, gold_label, rationale FROM rationales "
    "WHERE latent = ? AND row = ? ORDER BY place"
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class IndexCard:
    """What ``index.json`` says.

    Attributes:
        format: Version of the layout.
        model: The student's name.
        names: What each latent stands for: ``rationale``, or a perspective.
        dim: Dimension of a latent.
        rows: Vectors of each latent.
        quantiles: 101 quantiles, from the least to the largest, of how near a dev pair's latents are to their nearest
            rationale.
        reference_pairs: The dev pairs that they are of.
    """

    format: int = FORMAT
    model: str
    names: tuple[str, ...]
    dim: int
    rows: tuple[int, ...]
    quantiles: tuple[float, ...]
    reference_pairs: int

    @classmethod
    def load(cls, folder: Path) -> IndexCard:
        """Read an index's card.

        Raises:
            StudentError: If it is missing, damaged, or of another format.
        """
        path = folder / CARD
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise StudentError(f"{path}: expected format {FORMAT}, got {values['format']!r}; export the run again")
            lists = ("names", "rows", "quantiles")
            return cls(**values | {name: tuple(values[name]) for name in lists})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StudentError(f"{path} is damaged ({error!r}); export the run again") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A rationale of a training pair.

    Attributes:
        pair_id: The pair.
        query: Its query.
        title: Its product's title.
        label: The label that the rationale argues for.
        gold_label: The pair's own label; ``None`` where nobody labelled it.
        rationale: The teacher's text.
        similarity: Cosine of the latent and the vector that this rationale is behind.
    """

    pair_id: str
    query: str
    title: str
    label: str
    gold_label: str | None
    rationale: str
    similarity: float


class RationaleIndex:
    """The vectors that a student's latents were trained towards, and the texts behind them; threads may share it.

    Attributes:
        card: What the index is of.
    """

    def __init__(self, folder: Path) -> None:
        """Open an index.

        Args:
            folder: ``rationales`` of an export.

        Raises:
            StudentError: If it is damaged.
        """
        self.card = IndexCard.load(folder)
        try:
            self._vectors = [np.load(vectors_file(folder, n), mmap_mode="r") for n in range(len(self.card.names))]
            self._texts = sqlite3.connect(
                f"file:{quote(str(folder.absolute() / TEXTS))}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            self._texts.execute(_FIND, (0, 0)).fetchone()
        except (OSError, ValueError, sqlite3.Error) as error:
            raise StudentError(f"{folder} is damaged ({error}); export the run again") from None
        shapes = [vectors.shape for vectors in self._vectors]
        if shapes != [(rows, self.card.dim) for rows in self.card.rows]:
            raise StudentError(f"{folder} is damaged (its card does not fit vectors of {shapes}); export the run again")
        self._lock = Lock()
        self._graphs = [_open_graph(folder, n, rows) for n, rows in enumerate(self.card.rows)]

    @classmethod
    def beside(cls, classes: Path) -> Self | None:
        """Return the index that was exported beside a head's folder; ``None`` where there is none.

        Raises:
            StudentError: If it is damaged.
        """
        folder = classes.parent / RATIONALES
        return cls(folder) if folder.is_dir() else None

    def nearest(self, latent: int, vector: NDArray[Any], top_k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows nearest to a latent.

        Args:
            latent: Which latent.
            vector: (dim,) its value.
            top_k: How many; fewer where there are fewer.

        Returns:
            Rows, nearest first and of equal ones the first, and their cosines.
        """
        vectors, wanted = self._vectors[latent], unit(vector[None])[0]
        graph = self._graphs[latent]
        if graph is None:
            rows = np.arange(len(vectors))
            blocks = [vectors[start : start + _BLOCK] @ wanted for start in range(0, len(vectors), _BLOCK)]
            cosines = np.concatenate(blocks) if blocks else np.empty(0, dtype=np.float32)
        else:
            found = graph.search(wanted, max(_LEAST_CANDIDATES, _CANDIDATES * top_k))
            rows = np.sort(np.asarray(found.keys, dtype=np.intp))
            cosines = vectors[rows] @ wanted
        rounded = _rounded(cosines)
        if top_k < len(rounded):
            least = np.partition(rounded, len(rounded) - top_k)[len(rounded) - top_k]
            chosen = np.flatnonzero(rounded >= least)
        else:
            chosen = np.arange(len(rounded))
        chosen = chosen[np.argsort(-rounded[chosen], kind="stable")][:top_k]
        return rows[chosen], rounded[chosen]

    def closest(self, latents: NDArray[Any]) -> NDArray[np.float64]:
        """Return how near pairs are to their nearest rationale of any latent, by an exact search.

        Args:
            latents: (pairs, latents, dim).

        Returns:
            (pairs,) cosines.
        """
        best = np.full(len(latents), -1.0, dtype=np.float32)
        for latent, vectors in enumerate(self._vectors):
            wanted = unit(latents[:, latent])
            for start in range(0, len(vectors), _BLOCK):
                np.maximum(best, (wanted @ vectors[start : start + _BLOCK].T).max(axis=1, initial=-1.0), out=best)
        return _rounded(best)

    def texts(self, latent: int, row: int, similarity: float) -> list[tuple[str, Neighbour]]:
        """Return the rationales behind a row, each with its perspective.

        Args:
            latent: Which latent.
            row: One of its rows.
            similarity: The row's cosine.
        """
        with self._lock:
            found = self._texts.execute(_FIND, (latent, row)).fetchall()
        names = ("pair_id", "query", "title", "label", "gold_label", "rationale")
        return [
            (perspective, Neighbour(**dict(zip(names, fields, strict=True)), similarity=similarity))
            for perspective, *fields in found
        ]

    def percentile(self, similarity: float) -> float:
        """Return the share of the dev pairs that are at most as near to their nearest rationale, between 0 and 1."""
        return float(np.interp(similarity, self.card.quantiles, np.linspace(0.0, 1.0, len(self.card.quantiles))))

    def close(self) -> None:
        """Close the texts; a closed index cannot be used again."""
        with suppress(sqlite3.ProgrammingError), self._lock:
            self._texts.close()


def vectors_file(folder: Path, latent: int) -> Path:
    """Return the file of a latent's vectors."""
    return folder / f"vectors-{latent}.npy"


def graph_file(folder: Path, latent: int) -> Path:
    """Return the file of a latent's graph, for the approximate search."""
    return folder / f"nearest-{latent}.usearch"


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors (rows, dim) at length 1; those of length 0 stay as they are."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return scaled


def _rounded(cosines: NDArray[Any]) -> NDArray[np.float64]:
    return cosines.astype(np.float64).round(_DECIMALS)


def graph_library() -> Any:  # noqa: ANN401 - usearch is optional
    """Return usearch's module of indices, or ``None``, with a line in the log, where it is not installed."""
    try:
        return importlib.import_module("usearch.index")
    except ModuleNotFoundError:
        _LOG.warning(
            "more than %d rationales are searched exactly, which takes time: usearch is not installed; "
            "run: pip install 'manylens[ann]', and export the run again",
            EXACT_ROWS,
        )
        return None


def _open_graph(folder: Path, latent: int, rows: int) -> Any:  # noqa: ANN401 - usearch is optional
    """Return the graph of many vectors; ``None`` where they are searched exactly."""
    if rows <= EXACT_ROWS:
        return None
    library, file = graph_library(), graph_file(folder, latent)
    if library is None:
        return None
    if not file.is_file():
        _LOG.warning("%s was exported without usearch, so that it is searched exactly; export the run again", folder)
        return None
    return library.Index.restore(str(file), view=True)


def by_perspective(found: Sequence[tuple[str, Neighbour]]) -> dict[str, tuple[Neighbour, ...]]:
    """Return rationales by their perspective, in order."""
    grouped: dict[str, list[Neighbour]] = {}
    for perspective, neighbour in found:
        grouped.setdefault(perspective, []).append(neighbour)
    return {perspective: tuple(neighbours) for perspective, neighbours in grouped.items()}
