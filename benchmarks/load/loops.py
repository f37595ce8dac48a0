"""Closed loops, where each client waits for its answer, and open ones, where requests come whether or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from time import perf_counter, process_time

import numpy as np
from benchmarks.load.connection import UNSENT, Answer, Client
from benchmarks.load.result import Window

#: Most requests of an open loop that wait for an answer; what would be more is not sent.
MOST_OPEN = 2000


async def closed_loop(port: int, requests: Iterator[bytes], *, clients: int, seconds: float, timeout: float) -> Window:
    """Send requests from clients that each wait for an answer before the next request.

    No request begins after `seconds`; those that run then are waited for, and their time counts.

    Args:
        port: Of the server, on this machine.
        requests: Their bytes; it must not end.
        clients: How many.
        seconds: How long.
        timeout: The longest that an answer may take, in seconds.
    """
    everyone = [Client(port, timeout) for _ in range(clients)]
    for each in everyone:
        await each.connect()
    answers: list[Answer] = []
    began, spent = perf_counter(), process_time()

    async def run(client: Client) -> None:
        with closing(client):
            while perf_counter() - began < seconds:
                answers.append(await client.ask(next(requests)))

    await asyncio.gather(*map(run, everyone))
    took = perf_counter() - began
    return window(answers, took, process_time() - spent)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process, in seconds from its start."""
    draw, times, now = random.Random(seed), [], 0.0
    while (now := now + draw.expovariate(rate)) < seconds:
        times.append(now)
    return times


async def open_loop(
    port: int, requests: Iterator[bytes], times: Sequence[float], *, timeout: float, most: int = MOST_OPEN
) -> Window:
    """Send requests at their times, whatever became of the others.

    A request's time counts from when it was due, so that a client that is late is no excuse.

    Args:
        port: Of the server, on this machine.
        requests: Their bytes.
        times: When each is due, in seconds from now.
        timeout: The longest that an answer may take, in seconds.
        most: Most requests that wait for an answer; what would be more is not sent.
    """
    idle: list[Client] = []
    answers: list[Answer] = []
    busy = 0
    began, spent = perf_counter(), process_time()

    async def one(due: float, request: bytes) -> None:
        nonlocal busy
        client = idle.pop() if idle else Client(port, timeout)
        answer = await client.ask(request)
        answers.append(answer._replace(seconds=perf_counter() - began - due))
        idle.append(client)
        busy -= 1

    async with asyncio.TaskGroup() as running:
        for due in times:
            if (early := due - (perf_counter() - began)) > 0:
                await asyncio.sleep(early)
            if busy >= most:
                answers.append(Answer(UNSENT, 0.0))
                continue
            busy += 1
            running.create_task(one(due, next(requests)))
    took = perf_counter() - began
    for client in idle:
        client.close()
    return window(answers, took, process_time() - spent)


def window(answers: Sequence[Answer], seconds: float, spent: float) -> Window:
    """Return what happened.

    Args:
        answers: All of them.
        seconds: How long it took.
        spent: Processor seconds of the clients.
    """
    statuses: dict[str, int] = {}
    for answer in answers:
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    accepted = sorted(answer.seconds for answer in answers if answer.status == "200")
    return Window(
        seconds=seconds,
        statuses=dict(sorted(statuses.items())),
        p50=percentile(accepted, 0.50),
        p99=percentile(accepted, 0.99),
        client=spent / seconds,
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the least value that at least a share of all do not exceed; ``None`` of nothing.

    Args:
        ordered: The values, the least first.
        share: From 0 to 1.
    """
    return float(np.quantile(ordered, share, method="inverted_cdf")) if ordered else None
