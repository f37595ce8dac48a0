"""What follows from a run: medians over rounds, ratios within rounds, and the best of a sort."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from benchmarks.load.catalogue import Kind
from benchmarks.load.result import Measured, Result, Window
from benchmarks.serving.figures import Ratio

#: The clients that servers are judged by, where they were run.
CLIENTS = 8
#: What HTTP should keep of the scorer, and how much faster ours should be than a peer.
SHARE, TIMES = 0.85, 4.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Our best server against something else.

    Attributes:
        what: What it is compared with.
        ratio: Our rate over the other's.
        goal: What the ratio should be at least.
    """

    what: str
    ratio: Ratio
    goal: float


def clients_of(server: Measured) -> int:
    """Return the clients that a server is judged by."""
    return CLIENTS if CLIENTS in server.closed else max(server.closed)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def rates(windows: Sequence[Window]) -> list[float]:
    """Return requests a second, one a round."""
    return [window.rate for window in windows]


def capacity(server: Measured) -> float:
    """Return the requests a second of the clients that it is judged by; the median of the rounds."""
    return statistics.median(rates(server.closed[clients_of(server)]))


def milliseconds(windows: Sequence[Window], percentile: str) -> float | None:
    """Return ``p50`` or ``p99``, in milliseconds; the median of the rounds, ``None`` where nothing was answered."""
    found = [value for window in windows if (value := getattr(window, percentile)) is not None]
    return 1000.0 * statistics.median(found) if found else None


def paired(ours: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return ours over others, compared within rounds."""
    each = [our / other for our, other in zip(ours, others, strict=True)]
    return Ratio(median=statistics.median(each), low=min(each), high=max(each))


def best(servers: Sequence[Measured], kind: Kind) -> Measured | None:
    """Return the fastest server of a sort, or ``None`` if none was run."""
    found = [each for each in servers if each.kind == kind and each.closed and not each.reason]
    return max(found, key=capacity, default=None)


def best_of_kinds(servers: Sequence[Measured], kinds: Collection[Kind]) -> list[str]:
    """Return the names of the fastest servers of some sorts."""
    found = [best(servers, kind) for kind in kinds]
    return [each.name for each in found if each is not None]


def comparisons(result: Result) -> list[Comparison]:
    """Return our best server against its scorer without HTTP, and against the best of each peer."""
    ours = best(result.servers, "ours")
    if ours is None:
        return []
    clients = clients_of(ours)
    rate = rates(ours.closed[clients])
    made = [
        Comparison(what=_scorer(ours, together), ratio=paired(rate, others), goal=SHARE)
        for together, others in ours.in_process.items()
    ]
    for kind in ("infinity", "cross_encoder"):
        peer = best(result.servers, kind)
        if peer is not None and clients in peer.closed:
            others = rates(peer.closed[clients])
            made.append(Comparison(what=f"{peer.title}, {peer.precision}", ratio=paired(rate, others), goal=TIMES))
    return made


def _scorer(ours: Measured, together: int) -> str:
    how = "one request after the other" if together == 1 else f"{together} requests together"
    return f"its scorer without HTTP, {how}"
