"""Rationales and an encoder whose vectors are read off a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manylens.records import Pair
from manylens.student.targets import Rationale

PERSPECTIVES = ("intent", "rules")


def rationale(pair_id: str, perspective: str, text: str, label: str = "exact", **fields: bool) -> Rationale:
    return Rationale(
        pair_id=pair_id, perspective=perspective, text=text, label=label, **{"kept": True, "votes": True, **fields}
    )


def pairs_of(*ids: str, **fields: object) -> dict[str, Pair]:
    """Return pairs by id; one that starts with ``d`` is of the split dev, others are of train."""
    return {
        pair_id: Pair(
            **{
                "query_id": pair_id,
                "product_id": pair_id,
                "query": f"query {pair_id}",
                "title": f"title {pair_id}",
                "label": "exact",
                "split": "dev" if pair_id.startswith("d") else "train",
                **fields,
            },
            pair_id=pair_id,
        )
        for pair_id in ids
    }


class TableEncoder:
    """Embeds by looking up; remembers what it was asked."""

    def __init__(self, **vectors: Sequence[float]) -> None:
        self.vectors = vectors
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert len(set(texts)) == len(texts)
        self.asked += texts
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)


def hashed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed any texts: equal ones alike, others apart, in eight dimensions and of various lengths."""
    rows = [np.random.default_rng([*text.encode()]).normal(size=8) for text in texts]
    return np.array(rows, dtype=np.float32)
