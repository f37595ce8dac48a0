"""The requests that servers are asked, made before any clock runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.connection import rerank
from benchmarks.serving.workload import TextPair

#: Products of a request, and of a large one.
PRODUCTS, LARGE = 10, 200


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests, as bytes.

    Attributes:
        normal: With `PRODUCTS` products each.
        small: With one.
        large: With `LARGE`.
    """

    normal: Sequence[bytes]
    small: Sequence[bytes]
    large: Sequence[bytes]

    @classmethod
    def of(cls, wanted: Sequence[TextPair]) -> Traffic:
        """Make requests of pairs, round and round; a request's query is its first pair's."""

        def requests(products: int) -> list[bytes]:
            made = []
            for start in range(0, len(wanted), products):
                chosen = [wanted[(start + number) % len(wanted)] for number in range(products)]
                made.append(rerank(chosen[0][0], [product for _, product in chosen]))
            return made

        return cls(normal=requests(PRODUCTS), small=requests(1), large=requests(LARGE))
