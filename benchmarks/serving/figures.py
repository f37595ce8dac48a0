"""What follows from a run's times: rates, shares of the floor, ratios within rounds, and the best of a sort."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from benchmarks.serving.catalogue import Kind, Precision
from benchmarks.serving.result import Measured, Result

#: Every sort but ours.
PEERS: tuple[Kind, ...] = ("tuned", "helper", "library")
#: From a system to its seconds, one a round.
Times = Callable[[Measured], Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster, over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Our best system against the best of some peers.

    Attributes:
        what: What was timed.
        ours: Our system.
        peer: The peer.
        ratio: The peer's time over ours.
        goal: What the ratio should be at least.
    """

    what: str
    ours: Measured
    peer: Measured
    ratio: Ratio
    goal: float


def all_pairs(system: Measured) -> Sequence[float]:
    """Return a system's seconds for all pairs, one a round."""
    return system.seconds


def request_of(products: int) -> Times:
    """Return the function that gives a system's median seconds for a request of that many products, one a round."""
    return lambda system: [statistics.median(taken) for taken in system.requests[products]]


def rate(result: Result, system: Measured) -> float:
    """Return pairs a second, over all pairs; the median of the rounds."""
    return result.workload.pairs / statistics.median(system.seconds)


def p50(system: Measured, products: int) -> float:
    """Return the median of all requests of that many products, in milliseconds."""
    return 1000.0 * statistics.median(seconds for taken in system.requests[products] for seconds in taken)


def peak(result: Result, precision: Precision) -> float:
    """Return the machine's peak, in 10^9 operations a second; the median of the rounds."""
    return statistics.median(result.peaks[precision])


def floor(result: Result, precision: Precision) -> float:
    """Return the pairs a second that the machine would score at its peak."""
    return peak(result, precision) * 1e9 / result.workload.flops


def ratio(ours: Measured, other: Measured, times: Times) -> Ratio:
    """Return how many times faster ours is than the other, compared within rounds."""
    each = [theirs / our for our, theirs in zip(times(ours), times(other), strict=True)]
    return Ratio(median=statistics.median(each), low=min(each), high=max(each))


def best(
    result: Result, kinds: Collection[Kind], times: Times, precisions: Collection[Precision] = ("fp32", "bf16", "int8")
) -> Measured | None:
    """Return the fastest system of some sorts and precisions, or ``None`` if none was run."""
    found = [each for each in result.systems if not each.reason and each.kind in kinds and each.precision in precisions]
    return min(found, key=lambda each: statistics.median(times(each)), default=None)


def comparisons(result: Result) -> list[Comparison]:
    """Return our best against the best peers: all pairs at equal precision, the helpers, and requests of each size."""
    precisions = list(dict.fromkeys(each.precision for each in result.systems))
    sizes = next(iter(result.systems)).requests
    wanted: list[tuple[str, Collection[Kind], Times, Collection[Precision], float]] = [
        *((f"all pairs, {precision}", PEERS, all_pairs, (precision,), 1.2) for precision in precisions),
        ("all pairs, against sentence-transformers' best int8 helper", ("helper",), all_pairs, ("int8",), 2.5),
        *(
            (
                f"request of {products} product{'s' * (products > 1)}",
                PEERS,
                request_of(products),
                ("fp32", "bf16", "int8"),
                1.5 if products > 1 else 1.0,
            )
            for products in sizes
        ),
    ]
    made = []
    for what, kinds, times, among, goal in wanted:
        ours, peer = best(result, ("ours",), times, among), best(result, kinds, times, among)
        if ours is not None and peer is not None:
            made.append(Comparison(what=what, ours=ours, peer=peer, ratio=ratio(ours, peer, times), goal=goal))
    return made
