"""Targets: the rationales' vectors that guide the latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manylens.errors import StudentError

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Combine = Literal["mean", "per_perspective", "concat_text"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """One target, or one for each perspective, for every pair that has a rationale.

    Attributes:
        pair_ids: The pairs, in the order of the rows.
        names: What each latent stands for: ``("rationale",)``, or the perspectives' names.
        vectors: (pairs, latents, dim) float32; zero where `mask` is false.
        mask: (pairs, latents) bool, true where there is a rationale.
    """

    pair_ids: tuple[str, ...]
    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    mask: NDArray[np.bool_]

    @property
    def dim(self) -> int:
        """Dimension of a latent."""
        return int(self.vectors.shape[2])

    def save(self, folder: Path) -> None:
        """Write ``targets.npy`` and ``targets.parquet`` into `folder`."""
        np.save(folder / "targets.npy", self.vectors)
        columns: dict[str, pa.Array[Any]] = {"pair_id": pa.array(self.pair_ids, pa.string())}
        columns |= {name: pa.array(self.mask[:, index]) for index, name in enumerate(self.names)}
        pq.write_table(pa.table(columns), folder / "targets.parquet")

    @classmethod
    def load(cls, folder: Path) -> Targets:
        """Read what `save` wrote; the vectors are memory-mapped.

        Raises:
            StudentError: If the two files do not belong together.
        """
        table = pq.read_table(folder / "targets.parquet")
        vectors = np.load(folder / "targets.npy", mmap_mode="r")
        names = tuple(table.column_names[1:])
        mask = np.stack([table[name].to_numpy() for name in names], axis=1)
        if vectors.shape[:2] != mask.shape:
            raise StudentError(
                f"{folder}: targets.npy has shape {vectors.shape}, targets.parquet {mask.shape}; run embed again"
            )
        pair_ids = tuple(str(pair_id) for pair_id in table["pair_id"].to_pylist())
        return cls(pair_ids=pair_ids, names=names, vectors=vectors, mask=mask)


def build_targets(
    rationales: Iterable[tuple[str, str, str]],
    embed: Embed,
    *,
    combine: Combine,
    perspectives: Sequence[str],
    centre_on: frozenset[str] = frozenset(),
) -> Targets:
    """Turn rationales into targets.

    Args:
        rationales: Triples of pair id, perspective and text.
        embed: From n distinct texts to (n, dim) float32 vectors.
        combine: What becomes of several rationales of a pair: the ``mean`` of their vectors; one
            vector ``per_perspective`` (the mean over its samples); or the vector of the texts joined
            by line breaks, in the order of `perspectives` (``concat_text``).
        perspectives: Names, in the order of the latents.
        centre_on: Subtract the mean target of these pairs (the training pairs) from all; empty for
            no centring.

    Raises:
        StudentError: If there is no rationale at all.
    """
    order = {name: index for index, name in enumerate(perspectives)}
    by_pair: dict[str, list[tuple[int, str]]] = {}
    for pair_id, perspective, text in rationales:
        by_pair.setdefault(pair_id, []).append((order[perspective], text))
    if not by_pair:
        raise StudentError("no rationale passed the filter, so there is nothing to distil; see curate/report.json")
    for parts in by_pair.values():
        parts.sort(key=lambda part: part[0])
    if combine == "concat_text":
        by_pair = {pair_id: [(0, "\n".join(text for _, text in parts))] for pair_id, parts in by_pair.items()}

    names = tuple(perspectives) if combine == "per_perspective" else ("rationale",)
    texts = sorted({text for parts in by_pair.values() for _, text in parts})
    vectors_of = dict(zip(texts, embed(texts), strict=True))
    dim = len(next(iter(vectors_of.values())))
    sums = np.zeros((len(by_pair), len(names), dim), dtype=np.float32)
    counts = np.zeros((len(by_pair), len(names)), dtype=np.int64)
    for row, parts in enumerate(by_pair.values()):
        for perspective_index, text in parts:
            latent = perspective_index if combine == "per_perspective" else 0
            sums[row, latent] += vectors_of[text]
            counts[row, latent] += 1
    mask = counts > 0
    vectors: NDArray[np.float32] = np.divide(sums, np.maximum(counts, 1)[:, :, None], dtype=np.float32)
    if centre_on:
        vectors = _centre(vectors, mask, np.array([pair_id in centre_on for pair_id in by_pair]))
    return Targets(pair_ids=tuple(by_pair), names=names, vectors=vectors, mask=mask)


def _centre(vectors: NDArray[np.float32], mask: NDArray[np.bool_], rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Subtract each latent's mean over `rows`, and leave rows without a rationale at zero."""
    weights = (mask & rows[:, None])[:, :, None]
    mean = (vectors * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1)
    return np.where(mask[:, :, None], vectors - mean, 0.0).astype(np.float32)
