"""A run: every server in a process of its own, measured in turns."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import shlex
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.load import figures
from benchmarks.load.catalogue import SERVERS, Kind, ours
from benchmarks.load.connection import Client
from benchmarks.load.loops import arrivals, closed_loop, open_loop
from benchmarks.load.process import ServerError
from benchmarks.load.result import Result, Window
from benchmarks.load.running import Running
from benchmarks.load.traffic import LARGE, PRODUCTS, Traffic
from benchmarks.serving.machine import processor
from benchmarks.serving.master import Master, make_master
from benchmarks.serving.measure import CALIBRATION
from benchmarks.serving.workload import CALIBRATION_SEED, TextPair, pairs, write_pairs

from manylens.progress import meter
from manylens.serving.engines.protocol import physical_cores

#: Requests that the scorer without HTTP gets at once.
TOGETHER = (1, 8)
#: Requests that servers are compared on, and seconds that they are warmed up.
COMPARED, WARM_UP = 10, 1.0
#: Arrivals of the open loop, as multiples of what a closed loop got, and their seconds.
MULTIPLES, OPEN_SECONDS = (0.5, 1.0, 2.0, 4.0), 6.0
#: Seconds of scoring that may wait in front of our server in the open loop.
QUEUE_SECONDS = 0.5
#: The longest that an answer may take, in seconds, and that in an open loop.
TIMEOUT, OPEN_TIMEOUT = 30.0, 10.0
#: The sorts that are looked at more closely, the best of each.
_CLOSER: tuple[Kind, ...] = ("ours", "infinity")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        names: Of the servers.
        clients: Of each closed loop.
        rounds: How often.
        seconds: Of a closed loop.
        open_seconds: Of the arrivals at each rate of the open loop.
    """

    names: Sequence[str]
    clients: Sequence[int]
    rounds: int
    seconds: float
    open_seconds: float = OPEN_SECONDS


def run(plan: Plan, *, folder: Path, scored: Sequence[TextPair] | None = None, backbone: str = "minilm") -> Result:
    """Compare servers.

    While one works, the others are stopped. In each round, all take turns: closed loops of each number of clients, and
    of ours the scorer without HTTP right after. Then the best of ours and of infinity take turns with small requests,
    with and without large ones beside them. The open loops come last.

    Args:
        plan: What is run.
        folder: Where models are made; those that are there already are taken.
        scored: Pairs that requests are made of; those of the benchmark of serving by default.
        backbone: The encoder that all compute, a name for `resolve_pretrained`.
    """
    calibration, wanted = pairs(CALIBRATION, CALIBRATION_SEED), list(scored or pairs())
    folder.mkdir(parents=True, exist_ok=True)
    pairs_file = write_pairs(folder / "pairs.jsonl", wanted)
    calibration_file = write_pairs(folder / "calibration.jsonl", calibration)
    master = make_master(folder / "master", calibration, backbone)
    running = [Running.of(name) for name in SERVERS if name in plan.names]
    traffic = Traffic.of(wanted)
    try:
        with meter("starting", total=len(running)) as progress:
            for each in running:
                progress.note(each.measured.name)
                each.attempt(lambda each: _start(each, master, calibration_file, pairs_file, folder, traffic))
                progress.advance()
        _compare(running)
        _rounds("closed loops", running, plan.rounds, lambda each: _turn(each, traffic, plan))
        chosen = figures.best_of_kinds([each.result() for each in running], _CLOSER)
        closer = [each for each in running if each.measured.name in chosen]
        _rounds("small beside large", closer, plan.rounds, lambda each: _turn_of_small(each, traffic, plan.seconds))
        _rounds("open loops", closer, 1, lambda each: _open_loops(each, traffic, plan, folder))
        for each in running:
            each.attempt(_remember)
    finally:
        for each in running:
            each.close()
    return Result(
        command=shlex.join(["python", "-m", "benchmarks.load", *sys.argv[1:]]),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor(),
        cores=physical_cores(),
        rounds=plan.rounds,
        seconds=plan.seconds,
        products=PRODUCTS,
        large=LARGE,
        timeout=OPEN_TIMEOUT,
        servers=tuple(each.result() for each in running),
    )


def loop(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - what it returns
    """Run a coroutine in the fastest loop that there is."""
    import uvloop

    return uvloop.run(coroutine)


def _start(each: Running, master: Master, calibration: Path, pairs_file: Path, folder: Path, traffic: Traffic) -> None:
    """Start a server, and have it do each kind of work once."""
    each.start(master, calibration, pairs_file, folder)
    assert each.process is not None
    with each.process.running():
        for request in (*traffic.normal[:COMPARED], traffic.small[0], traffic.large[0]):
            scores = loop(_scores(each.port, request))
            if len(each.scores) < COMPARED * PRODUCTS:
                each.scores += scores
        loop(_closed(each.port, itertools.cycle(traffic.normal), 8, WARM_UP))
    for together in TOGETHER:
        _without_http(each, together, WARM_UP)


async def _scores(port: int, request: bytes) -> list[float]:
    """Return the scores of a request's products, in their order.

    Raises:
        ServerError: If the answer is none.
    """
    client = Client(port, TIMEOUT)
    answer = await client.ask(request)
    client.close()
    if answer.status != "200":
        raise ServerError(f"answers {answer.status}: {answer.body[:200].decode(errors='replace')}")
    found = {each["index"]: float(each["relevance_score"]) for each in json.loads(answer.body)["results"]}
    if not found or sorted(found) != list(range(len(found))) or not all(map(math.isfinite, found.values())):
        raise ServerError(f"answers no ranking: {answer.body[:200].decode(errors='replace')}")
    return [found[index] for index in range(len(found))]


def _compare(running: Sequence[Running]) -> None:
    """Compare scores with those of the last server of the same model in fp32, which are our own or CrossEncoder's."""
    for each in running:
        reference = [
            other.scores
            for other in running
            if other.scores
            and other.measured.precision == "fp32"
            and (other.measured.kind == "ours") == (each.measured.kind == "ours")
        ]
        if reference and each.scores:
            differences = [abs(one - two) for one, two in zip(each.scores, reference[-1], strict=True)]
            each.measured = replace(each.measured, difference=sum(differences) / len(differences))


def _rounds(what: str, running: Sequence[Running], rounds: int, turn: Callable[[Running], None]) -> None:
    """Have servers take turns; each round begins with another one."""
    with meter(what, total=rounds * len(running)) as progress:
        for number in range(rounds):
            for place in range(len(running)):
                each = running[(number + place) % len(running)]
                progress.note(f"round {number + 1}, {each.measured.name}")
                each.attempt(turn)
                progress.advance()


def _turn(each: Running, traffic: Traffic, plan: Plan) -> None:
    """Measure a server for a round."""
    assert each.process is not None
    normal = itertools.cycle(traffic.normal)
    for clients in plan.clients:
        with each.process.running():
            found = loop(_closed(each.port, normal, clients, plan.seconds))
        each.closed.setdefault(clients, []).append(_answered(found))
    for together in TOGETHER:
        _without_http(each, together, plan.seconds, count=True)


def _turn_of_small(each: Running, traffic: Traffic, seconds: float) -> None:
    """Measure small requests for a round."""
    assert each.process is not None
    with each.process.running():
        each.alone.append(_answered(loop(_closed(each.port, itertools.cycle(traffic.small), 1, seconds))))
        each.beside.append(_answered(loop(_beside(each.port, traffic, seconds))))


def _answered(found: Window) -> Window:
    """Return a window, if anything was answered.

    Raises:
        ServerError: If nothing was.
    """
    if not found.accepted:
        raise ServerError(f"answers nothing: {dict(found.statuses)}")
    return found


def _without_http(each: Running, together: int, seconds: float, *, count: bool = False) -> None:
    """Have the scorer answer requests without HTTP."""
    if each.scorer is not None:
        answer = each.scorer.ask("sustain", seconds=seconds, products=PRODUCTS, together=together)
        if count:
            each.in_process.setdefault(together, []).append(answer["requests"] / answer["seconds"])


async def _closed(port: int, requests: Iterator[bytes], clients: int, seconds: float) -> Window:
    return await closed_loop(port, requests, clients=clients, seconds=seconds, timeout=TIMEOUT)


async def _beside(port: int, traffic: Traffic, seconds: float) -> Window:
    """Return what becomes of small requests while another client sends large ones."""
    small, _ = await asyncio.gather(
        _closed(port, itertools.cycle(traffic.small), 1, seconds),
        _closed(port, itertools.cycle(traffic.large), 1, seconds),
    )
    return small


def _open_loops(each: Running, traffic: Traffic, plan: Plan, folder: Path) -> None:
    """Run the open loops, at rates that only rise; ours is started anew, with a bound on what waits."""
    capacity = figures.capacity(each.result())
    assert each.process is not None
    process = each.process
    if each.measured.kind == "ours":
        bound = max(PRODUCTS, round(capacity * PRODUCTS * QUEUE_SECONDS))
        server = ours(each.server.variant, "", each.measured.precision, options=_bounded(bound))
        each.measured = replace(each.measured, queue_pairs=bound)
        process = Running.launch(server, folder / server.model, folder / f"{each.measured.name}.open.log")
    try:
        if process is not each.process:
            process.wait_until_ready()
        with process.running():
            normal = itertools.cycle(traffic.normal)
            loop(_closed(process.port, normal, 8, WARM_UP))
            for number, multiple in enumerate(MULTIPLES):
                times = arrivals(capacity * multiple, plan.open_seconds, seed=number)
                found = loop(open_loop(process.port, normal, times, timeout=OPEN_TIMEOUT))
                each.measured = replace(each.measured, open={**each.measured.open, multiple: found})
    finally:
        if process is not each.process:
            process.close()


def _bounded(pairs: int) -> tuple[str, ...]:
    return ("--cache-products", "0", "--max-queue-pairs", str(pairs))


def _remember(each: Running) -> None:
    assert each.process is not None
    each.measured = replace(each.measured, memory=each.process.memory)
