"""Which pairs run together: sorted by length, cut by a budget of tokens, in few shapes where shapes cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

#: Smaller budgets that are tried, as shares of a stream's part of all tokens; the cut that should end first is taken.
_SHARES = (1.2, 0.6, 0.4, 0.3)
_WIDTHS = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Pairs that run in one call.

    Attributes:
        pairs: Their indices.
        width: Tokens of a row, padding included.
    """

    pairs: NDArray[np.intp]
    width: int

    @property
    def tokens(self) -> int:
        """What the engine computes: rows times width."""
        return len(self.pairs) * self.width


def cut(
    lengths: NDArray[np.int64], budget: int, *, call_tokens: int = 0, streams: int = 1, few_shapes: bool = False
) -> list[Batch]:
    """Cut pairs into batches, so that little is padded and all streams end at nearly the same time.

    Args:
        lengths: (pairs,) tokens of each pair.
        budget: Most tokens of a batch, padding included; a pair that is longer by itself gets a batch of its own.
        call_tokens: What a call costs beside its tokens, in tokens. A batch ends where a longer pair would pad more.
        streams: Batches that run at the same time, each stream taking the next one when it is free.
        few_shapes: Whether the engine compiles every shape that it has not met. Widths are then multiples of 8, and
            rows above 8 have no more than three significant bits.

    Returns:
        The batches, the costliest first.
    """
    widths = -(-lengths // _WIDTHS) * _WIDTHS if few_shapes else lengths
    tokens = int(widths.sum())
    budgets = {budget, *(min(budget, math.ceil(share * tokens / streams)) for share in _SHARES)}
    cuts = [_cut(widths, smaller, call_tokens, few_shapes) for smaller in sorted(budgets, reverse=True)]
    return min(cuts, key=lambda batches: _end(batches, streams, call_tokens))


def _cut(widths: NDArray[np.int64], budget: int, call_tokens: int, few_shapes: bool) -> list[Batch]:
    batches = []
    for pairs in _runs(widths, budget, call_tokens):
        for part in _few(pairs) if few_shapes else (pairs,):
            batches.append(Batch(pairs=part, width=int(widths[part[-1]])))
    return sorted(batches, key=lambda batch: batch.tokens, reverse=True)


def _runs(widths: NDArray[np.int64], budget: int, call_tokens: int) -> Iterator[NDArray[np.intp]]:
    """Yield runs of pairs, shortest first, that fit the budget and pad little."""
    order = np.argsort(widths, kind="stable")
    start, before = 0, 0
    for end, width in enumerate(widths[order].tolist()):
        rows = end - start
        if rows and ((rows + 1) * width > budget or rows * (width - before) > call_tokens):
            yield order[start:end]
            start = end
        before = width
    if len(order):
        yield order[start:]


def _few(pairs: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Yield the pairs in parts of 1 to 8, 10, 12, 14, 16, 20, 24, ... rows."""
    while len(pairs):
        step = 1 << max(0, len(pairs).bit_length() - 3)
        rows = len(pairs) - len(pairs) % step
        yield pairs[:rows]
        pairs = pairs[rows:]


def _end(batches: Sequence[Batch], streams: int, call_tokens: int) -> int:
    """Return when the last stream ends, in tokens."""
    ends = [0] * streams
    for batch in batches:
        heapreplace(ends, ends[0] + batch.tokens + call_tokens)
    return max(ends)
