"""A server while it is measured; one that fails is out, and its reason is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.load.catalogue import MODELS, SERVERS, Server
from benchmarks.load.process import Process, free_port
from benchmarks.load.result import Measured, Window
from benchmarks.serving.client import Client
from benchmarks.serving.environments import interpreter
from benchmarks.serving.master import Master
from benchmarks.serving.measure import make_model

from manylens.errors import StageError
from manylens.serving.engines.protocol import physical_cores


@dataclass(kw_only=True)
class Running:
    """A server while it is measured.

    Attributes:
        measured: What is known of it.
        process: Its process, once it was started, and until it fails.
        scorer: Of ours, the scorer without HTTP in a process of its own.
        scores: Of the first requests, by which servers are compared.
        closed: By clients, a window a round.
        in_process: By requests that are scored together, requests a second a round.
        alone: A window a round.
        beside: A window a round.
    """

    measured: Measured
    process: Process | None = None
    scorer: Client | None = None
    scores: list[float] = field(default_factory=list)
    closed: dict[int, list[Window]] = field(default_factory=dict)
    in_process: dict[int, list[float]] = field(default_factory=dict)
    alone: list[Window] = field(default_factory=list)
    beside: list[Window] = field(default_factory=list)

    @classmethod
    def of(cls, name: str) -> Running:
        """Return a server that is not started; one whose environment is not there is out."""
        server, reason = SERVERS[name], ""
        try:
            interpreter(server.environment)
        except StageError as error:
            reason = str(error).replace("benchmarks.serving", "benchmarks.load")
        return cls(
            measured=Measured(
                name=name, title=server.title, kind=server.kind, precision=server.precision, reason=reason
            )
        )

    @property
    def server(self) -> Server:
        """Its entry of the catalogue."""
        return SERVERS[self.measured.name]

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self.process is not None
        return self.process.port

    def start(self, master: Master, calibration: Path, pairs: Path, folder: Path) -> None:
        """Make its model, unless it is there, and start it; of ours, start the scorer too."""
        server, model = self.server, master.one
        if server.model:
            model = folder / server.model
            make_model(MODELS[server.model], master, calibration, model)
        self.process = self.launch(server, model, folder / f"{self.measured.name}.log")
        self.process.wait_until_ready()
        self.process.stop()
        if server.kind == "ours":
            self.scorer = Client(interpreter(""), "manylens", folder / f"{self.measured.name}.scorer.log")
            self.scorer.ask(
                "load",
                master=str(master.labels),
                folder=str(model),
                pairs=str(pairs),
                threads=physical_cores(),
                options={"variant": server.variant, "cache_products": 0},
            )

    @staticmethod
    def launch(server: Server, model: Path, log: Path) -> Process:
        """Start a server's process."""
        port, threads = free_port(), physical_cores()
        environ: dict[str, Any] = {"OMP_NUM_THREADS": str(threads), **server.environ}
        command = server.command(interpreter(server.environment), model=model, port=port, threads=threads)
        return Process(command, port, log, environ, *([model] if server.inside else []))

    def attempt(self, work: Callable[[Running], object]) -> None:
        """Do work, unless it is out; if that fails, it is."""
        if self.measured.reason:
            return
        try:
            work(self)
        except StageError as error:
            self.close()
            self.measured = replace(self.measured, reason=str(error))

    def close(self) -> None:
        """End its processes."""
        for each in (self.process, self.scorer):
            if each is not None:
                each.close()
        self.process = self.scorer = None

    def result(self) -> Measured:
        """Return what was found."""
        if self.measured.reason:
            return self.measured
        return replace(
            self.measured,
            closed={clients: tuple(windows) for clients, windows in self.closed.items()},
            in_process={together: tuple(rates) for together, rates in self.in_process.items()},
            alone=tuple(self.alone),
            beside=tuple(self.beside),
        )
