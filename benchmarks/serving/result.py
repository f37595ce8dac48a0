"""What a run of the benchmark found, as it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.serving.catalogue import Kind, Precision
from pydantic import TypeAdapter

from manylens.errors import DataError
from manylens.files import write_text

STORED = Path(__file__).parent / "result.json"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A system's figures, or the reason why there are none.

    Attributes:
        name: Its name in the catalogue.
        title: What it is called.
        kind: Its sort.
        precision: What it computed in.
        seconds: (rounds,) for all pairs.
        requests: By the products of a request, (rounds, requests) seconds.
        agreement: Share of pairs whose label is that of the first system; ``None`` for systems with one logit.
        difference: Mean absolute difference to the first system's logits, each pair's less their mean.
        versions: Of its libraries.
        reason: Why it could not be run; empty where it was.
    """

    name: str
    title: str
    kind: Kind
    precision: Precision
    seconds: tuple[float, ...] = ()
    requests: Mapping[int, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    agreement: float | None = None
    difference: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What was scored.

    Attributes:
        source: Where the pairs are from.
        pairs: How many.
        tokens: Of a pair: ``p50``, ``mean``, ``p95``, ``p99``, ``max``.
        flops: Of a pair, in the mean, padding left out.
        compared: Pairs that outputs are compared on.
    """

    source: str
    pairs: int
    tokens: Mapping[str, float]
    flops: float
    compared: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run.

    Attributes:
        command: What made it.
        finished: When, in UTC.
        processor: Its name.
        cores: How many were used.
        native_bf16: Whether the processor has instructions for bf16.
        workload: What was scored.
        rounds: How often, in turns.
        peaks: By precision, (rounds,) 10^9 operations a second of the machine.
        systems: In the catalogue's order.
    """

    command: str
    finished: str
    processor: str
    cores: int
    native_bf16: bool
    workload: Workload
    rounds: int
    peaks: Mapping[Precision, tuple[float, ...]]
    systems: tuple[Measured, ...]

    @classmethod
    def load(cls, path: Path = STORED) -> Result:
        """Read a stored run.

        Raises:
            DataError: If there is none.
        """
        if not path.exists():
            raise DataError(f"no run is stored in {path}; make one with: python -m benchmarks.serving")
        return TypeAdapter(cls).validate_json(path.read_bytes())

    def save(self, path: Path = STORED) -> None:
        """Store the run."""
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
