"""What more calls to the teacher buy: more samples of one perspective, or one sample of each of several.

A panel of P perspectives with m samples each costs P * m calls a pair. It is fair to compare it with P * m
samples of a single perspective, as the paper does (Thinking Broad, Acting Fast, arXiv 2601.21611: an oracle over
three perspectives of 77.52 against a single-perspective pass@3 of 72.59).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Tried(NamedTuple):
    """How one perspective's samples of one pair came out.

    Attributes:
        answered: Samples with an answer.
        right: Those of them with the gold label.
        wrong: Those with another label; the rest has none.
    """

    answered: int
    right: int
    wrong: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualCalls:
    """What the same number of calls a pair reaches, spent on one perspective or on all.

    Attributes:
        calls: Calls a pair.
        by_perspective: pass@calls of each perspective on its own; ``None`` where it has fewer samples.
        panel: The oracle of the whole panel with ``calls / P`` samples of each of its P perspectives; ``None`` where
            P does not divide `calls`, and for a panel of one, whose figure stands in `by_perspective`.
    """

    calls: int
    by_perspective: Mapping[str, float | None]
    panel: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PassAtK:
    """The figures over the pairs with a gold label all of whose samples were answered.

    Attributes:
        samples: Samples of each perspective.
        pairs: How many pairs the figures are over.
        rows: A row for one call, and rows for one, two, four ... samples of the whole panel.
    """

    samples: int
    pairs: int
    rows: tuple[EqualCalls, ...]


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the probability that k of the samples, drawn without replacement, hold a right one.

    The unbiased estimator ``1 - C(n - c, k) / C(n, k)`` of Chen et al. (2021, arXiv 2107.03374, equation 1).

    Args:
        samples: The samples there are, n.
        right: Those that are right, c.
        k: How many are drawn, at most n.

    Returns:
        The probability.
    """
    return 1.0 - _all_wrong(samples, right, k)


def oracle_at(panel: Sequence[Tried], draws: int) -> float:
    """Return the probability that `draws` samples of each perspective hold a right one among them.

    The oracle misses a pair only where all perspectives miss it, and they are drawn from independently:
    ``1 - prod_p C(n_p - c_p, m) / C(n_p, m)``.

    Args:
        panel: How each perspective's samples came out.
        draws: Samples drawn of each perspective, m; at most as many as each has.

    Returns:
        The probability.
    """
    return 1.0 - math.prod(_all_wrong(tried.answered, tried.right, draws) for tried in panel)


def at_equal_calls(panels: Mapping[tuple[Tried, ...], int], names: Sequence[str]) -> PassAtK:
    """Compare the panel with each of its perspectives at the same number of calls.

    Args:
        panels: For each way in which the samples of a pair with a gold label came out (one entry a perspective, in the
            order of `names`), the number of such pairs.
        names: The panel's perspectives.

    Returns:
        The figures.
    """
    samples = max((tried.answered for panel in panels for tried in panel), default=0)
    complete = {panel: pairs for panel, pairs in panels.items() if all(tried.answered == samples for tried in panel)}
    total, size = sum(complete.values()), len(names)
    # Doubled, so that the rows stay few; and the most draws whose calls a single perspective has too.
    draws = {2**power for power in range(samples.bit_length())} | {max(1, samples // size)}
    rows = []
    for calls in sorted({1, *(size * draw for draw in draws)}) if total else ():
        single: dict[str, float | None] = dict.fromkeys(names)
        if calls <= samples:
            for index, name in enumerate(names):
                reached = (pairs * pass_at_k(samples, panel[index].right, calls) for panel, pairs in complete.items())
                single[name] = sum(reached) / total
        together = None
        if size > 1 and calls % size == 0:
            together = sum(pairs * oracle_at(panel, calls // size) for panel, pairs in complete.items()) / total
        rows.append(EqualCalls(calls=calls, by_perspective=single, panel=together))
    return PassAtK(samples=samples, pairs=total, rows=tuple(rows))


def _all_wrong(samples: int, right: int, draws: int) -> float:
    return math.comb(samples - right, draws) / math.comb(samples, draws)
