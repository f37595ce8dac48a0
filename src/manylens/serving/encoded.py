"""Pairs as an engine's reader encodes them, which the server puts together across requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Encoded:
    """Pairs as a reader encodes them, which can be put together anew.

    Attributes:
        queries: (tokens, ...) each, one a pair.
        products: (tokens, ...) each, one a pair.
        lengths: (pairs,) tokens of each pair.
    """

    queries: Sequence[NDArray[Any]]
    products: Sequence[NDArray[Any]]
    lengths: NDArray[np.int64]

    @classmethod
    def gather(cls, rows: Sequence[tuple[Self, int]]) -> Self:
        """Return pairs out of any number of others, all of one reader.

        Args:
            rows: Of each pair, in order, where it is and its index there.
        """
        return cls(
            queries=[encoded.queries[index] for encoded, index in rows],
            products=[encoded.products[index] for encoded, index in rows],
            lengths=np.array([encoded.lengths[index] for encoded, index in rows], dtype=np.int64),
        )

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.lengths)
