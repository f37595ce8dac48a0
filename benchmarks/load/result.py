"""What a run found, as it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.load.catalogue import Kind
from benchmarks.serving.catalogue import Precision
from pydantic import TypeAdapter

from manylens.errors import DataError
from manylens.files import write_text

STORED = Path(__file__).parent / "result.json"
SOAK = Path(__file__).parent / "soak.json"


@dataclass(frozen=True, kw_only=True)
class Window:
    """What happened while requests were sent.

    Attributes:
        seconds: From the first request to the last answer.
        statuses: Requests by their status, or by what became of those without one.
        p50: Median seconds of the answers with status 200; ``None`` where there is none.
        p99: Their 99th percentile.
        client: Processor seconds of the clients a second.
    """

    seconds: float
    statuses: Mapping[str, int]
    p50: float | None
    p99: float | None
    client: float

    @property
    def sent(self) -> int:
        """How many requests there were."""
        return sum(self.statuses.values())

    @property
    def accepted(self) -> int:
        """How many have status 200."""
        return self.statuses.get("200", 0)

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return self.accepted / self.seconds


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A server's figures, or the reason why there are none.

    Attributes:
        name: Its name in the catalogue.
        title: What it is called.
        kind: Its sort.
        precision: What it computed in.
        reason: Why it could not be run; empty where it was.
        difference: Mean absolute difference of its scores to those of the first server of its model in fp32.
        memory: Resident bytes at the end.
        closed: By clients, (rounds,).
        in_process: By requests that are scored together, (rounds,) requests a second of the scorer without HTTP.
        alone: (rounds,) of a client whose requests have one product.
        beside: (rounds,) of it beside a client whose requests have many.
        open: By multiples of the rate that a closed loop had.
        queue_pairs: Most pairs that waited in the open loop; 0 without a bound.
    """

    name: str
    title: str
    kind: Kind
    precision: Precision
    reason: str = ""
    difference: float | None = None
    memory: int = 0
    closed: Mapping[int, tuple[Window, ...]] = field(default_factory=dict)
    in_process: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    alone: tuple[Window, ...] = ()
    beside: tuple[Window, ...] = ()
    open: Mapping[float, Window] = field(default_factory=dict)
    queue_pairs: int = 0


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A run.

    Attributes:
        command: What made it.
        finished: When, in UTC.
        processor: Its name.
        cores: How many were used.
    """

    command: str
    finished: str
    processor: str
    cores: int

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a stored run.

        Raises:
            DataError: If there is none.
        """
        if not path.exists():
            raise DataError(f"no run is stored in {path}; make one with: python -m benchmarks.load")
        return TypeAdapter(cls).validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        """Store the run."""
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class Result(_Stored):
    """A comparison.

    Attributes:
        rounds: How often, in turns.
        seconds: Of a closed loop.
        products: Of a request.
        large: Products of a large one.
        timeout: The longest that an answer of an open loop may take, in seconds.
        servers: In the catalogue's order.
    """

    rounds: int
    seconds: float
    products: int
    large: int
    timeout: float
    servers: tuple[Measured, ...]


@dataclass(frozen=True, kw_only=True)
class Soak(_Stored):
    """Many requests to one server.

    Attributes:
        requests: How many.
        seconds: How long they took.
        cache_products: Products whose tokens the server keeps.
        sent: Requests by what they are.
        unexpected: Answers with another status than their request asks for, by both.
        every: Requests from one measurement of the memory to the next.
        memory: Resident bytes of the server: before the first request, and then after every `every` of them.
        base: Requests after which the memory is compared with that at the end.
    """

    requests: int
    seconds: float
    cache_products: int
    sent: Mapping[str, int]
    unexpected: Mapping[str, int]
    every: int
    memory: tuple[int, ...]
    base: int

    @property
    def growth(self) -> float:
        """The memory at the end over that after `base` requests."""
        return self.memory[-1] / self.memory[self.base // self.every]
