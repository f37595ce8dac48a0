"""A system while it is timed; one that fails is out, and its reason is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks.serving.catalogue import SYSTEMS, System
from benchmarks.serving.client import Client
from benchmarks.serving.environments import interpreter
from benchmarks.serving.machine import native_bf16
from benchmarks.serving.result import Measured

from manylens.errors import StageError


@dataclass(kw_only=True)
class Running:
    """A system while it is timed.

    Attributes:
        measured: What is known of it.
        client: Its process, once it was started, and until it fails.
        seconds: For all pairs, one a round.
        requests: By the products of a request, a round's seconds each.
    """

    measured: Measured
    client: Client | None = None
    seconds: list[float] = field(default_factory=list)
    requests: dict[int, list[tuple[float, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str) -> Running:
        """Return a system that is not started; one whose environment is not there is out."""
        system, reason = SYSTEMS[name], ""
        try:
            interpreter(system.environment)
        except StageError as error:
            reason = str(error)
        precision = "fp32" if system.precision == "bf16" and not native_bf16() else system.precision
        return cls(
            measured=Measured(name=name, title=system.title, kind=system.kind, precision=precision, reason=reason)
        )

    @property
    def system(self) -> System:
        """Its entry of the catalogue."""
        return SYSTEMS[self.measured.name]

    def attempt(self, work: Callable[[Client, Running], object]) -> None:
        """Do work with the client, if there is one; if that fails, the system is out."""
        if self.client is None:
            return
        try:
            work(self.client, self)
        except StageError as error:
            self.give_up(str(error))

    def give_up(self, reason: str) -> None:
        """Take the system out."""
        self.close()
        self.client, self.measured = None, replace(self.measured, reason=reason)

    def close(self) -> None:
        """End its process."""
        if self.client is not None:
            self.client.close()

    def result(self) -> Measured:
        """Return what was found."""
        if self.measured.reason:
            return self.measured
        return replace(
            self.measured,
            seconds=tuple(self.seconds),
            requests={products: tuple(rounds) for products, rounds in self.requests.items()},
        )
