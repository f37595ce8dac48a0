"""Targets as they are kept: what guides the latents, and what the teacher's panel said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manylens.errors import StudentError


@dataclass(frozen=True, kw_only=True)
class Targets:
    """One target, or one for each perspective, for every pair that was judged.

    Attributes:
        pair_ids: The pairs, in the order of the rows.
        names: What each latent stands for: ``("rationale",)``, or the perspectives' names.
        vectors: (pairs, latents, dim) float32; zero where `mask` is false.
        mask: (pairs, latents) bool, true where there is a rationale.
        votes: (pairs, classes) float32, the share of the panel's labelled judgements for each class in the scale's
            order, whether they passed the consistency filter or not; a row of zeros where there is none.
        texts: What was embedded for each pair, joined by line breaks; empty where nothing was.
    """

    pair_ids: tuple[str, ...]
    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    mask: NDArray[np.bool_]
    votes: NDArray[np.float32]
    texts: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Dimension of a latent."""
        return int(self.vectors.shape[2])

    def save(self, folder: Path) -> None:
        """Write ``targets.npy`` and ``targets.parquet`` into `folder`."""
        np.save(folder / "targets.npy", self.vectors)
        masks = [pa.array(self.mask[:, index]) for index in range(len(self.names))]
        columns = {
            "pair_id": pa.array(self.pair_ids, pa.string()),
            "mask": pa.StructArray.from_arrays(masks, list(self.names)),
            "votes": pa.FixedSizeListArray.from_arrays(pa.array(self.votes.ravel()), self.votes.shape[1]),
            "text": pa.array(self.texts, pa.string()),
        }
        pq.write_table(pa.table(columns), folder / "targets.parquet")

    @classmethod
    def load(cls, folder: Path) -> Targets:
        """Read what `save` wrote; the vectors are memory-mapped.

        Raises:
            StudentError: If the two files do not belong together.
        """
        table = pq.read_table(folder / "targets.parquet").combine_chunks()
        vectors = np.load(folder / "targets.npy", mmap_mode="r")
        names = tuple(field.name for field in table.schema.field("mask").type)
        masks = table["mask"].flatten()
        mask = np.stack([column.to_numpy() for column in masks], axis=1)
        if vectors.shape[:2] != mask.shape:
            raise StudentError(
                f"{folder}: targets.npy has shape {vectors.shape}, targets.parquet {mask.shape}; run embed again"
            )
        votes = np.array(table["votes"].to_pylist(), dtype=np.float32)
        pair_ids, texts = (tuple(map(str, table[name].to_pylist())) for name in ("pair_id", "text"))
        return cls(pair_ids=pair_ids, names=names, vectors=vectors, mask=mask, votes=votes, texts=texts)
