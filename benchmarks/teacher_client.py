"""What asking an API costs on our side: throughput against a server that answers each request in a fixed time.

    python benchmarks/teacher_client.py --concurrency 16 64 256

Ideal is concurrency / delay. The server is a process of its own: a bare epoll loop, so that what it takes itself is
little. Of each round the clients take turns; the table has the medians.

- backend: `OpenAIBackend.ask`, the answers thrown away
- judge: the whole of `judge`: prompts rendered, answers parsed and committed one by one to a store
- aiohttp: the HTTP client that the backend is built on, with nothing around it
- openai: OpenAI's own SDK, a tenth of the requests
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import select
import socket
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from manylens.config import OpenAITeacher
from manylens.records import ESCI, Pair
from manylens.teacher import JudgementStore, judge, load_perspective
from manylens.teacher.backends import Request
from manylens.teacher.backends.chat import request_body
from manylens.teacher.backends.openai import OpenAIBackend
from manylens.teacher.questions import requests_of

RATIONALE = "The listing says fragrance free, which is what the query asks for, and it is a body lotion. " * 6
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": f"{RATIONALE}\n\nLabel: exact"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 612, "completion_tokens": 131, "total_tokens": 743},
}
PANEL = [load_perspective("user_intent"), load_perspective("structured_analysis")]


def serve(delay: float, ready: Connection) -> None:
    """Answer every request after `delay` seconds; sleeps until a millisecond before an answer is due."""
    body = json.dumps(COMPLETION).encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    ready.send(listening.getsockname()[1])
    clients: dict[int, socket.socket] = {}
    received: dict[int, bytes] = {}
    due: deque[tuple[float, int]] = deque()
    while True:
        while due and due[0][0] <= time.monotonic():
            _, number = due.popleft()
            if number in clients:
                clients[number].sendall(response)
        wait = max(0.0, due[0][0] - time.monotonic() - 0.001) if due else -1
        for number, _ in poll.poll(wait):
            if number == listening.fileno():
                client, _ = listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()], received[client.fileno()] = client, b""
                poll.register(client, select.EPOLLIN)
            elif data := clients[number].recv(65536):
                received[number] += data
                if is_whole(received[number]):
                    received[number] = b""
                    due.append((time.monotonic() + delay, number))
            else:
                poll.unregister(number)
                clients.pop(number).close()


def is_whole(request: bytes) -> bool:
    """Return whether all of a request's body has come."""
    head, end, body = request.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)


class Work(NamedTuple):
    """What a client does: the server's section, and how many requests."""

    config: OpenAITeacher
    requests: int

    def pairs(self) -> list[Pair]:
        """Return pairs for so many requests to the panel."""
        return [
            Pair(
                pair_id=f"q{number}:p{number}",
                query_id=f"q{number}",
                product_id=f"p{number}",
                query=f"unscented body lotion {number}",
                title="Pellumire Body Lotion, Fragrance Free, for dry skin",
                brand="Pellumire",
                attributes={"Size": "8 fl oz", "Scent": "none"},
                description="A light lotion for daily use. " * 5,
                locale="us",
            )
            for number in range(self.requests // len(PANEL))
        ]

    def rendered(self) -> list[Request]:
        """Return the requests, made beforehand."""
        return list(requests_of(self.pairs(), PANEL, ESCI))


def run_backend(work: Work) -> Iterator[None]:
    """Ask through the backend."""
    requests, backend = work.rendered(), OpenAIBackend(work.config)
    yield
    assert sum(answer is not None for _, answer in backend.ask(requests)) == len(requests)


def run_judge(work: Work) -> Iterator[None]:
    """Judge into a store."""
    pairs, backend = work.pairs(), OpenAIBackend(work.config)
    with tempfile.TemporaryDirectory() as folder, JudgementStore(Path(folder) / "store.sqlite") as store:
        yield
        assert judge(pairs, PANEL, ESCI, backend, store).unanswered == 0


def run_aiohttp(work: Work) -> Iterator[None]:
    """Post with aiohttp from as many coroutines as there may be requests in flight."""
    import aiohttp

    requests = iter(work.rendered())

    async def post(session: aiohttp.ClientSession) -> None:
        for request in requests:
            body = json.dumps(request_body(work.config, request)).encode()
            async with session.post(f"{work.config.base_url}/chat/completions", data=body) as response:
                json.loads(await response.read())

    async def post_all() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(post(session) for _ in range(work.config.max_concurrency)))

    yield
    asyncio.run(post_all())


def run_openai(work: Work) -> Iterator[None]:
    """Ask with OpenAI's SDK, likewise."""
    import openai

    requests = iter(work.rendered())

    async def ask(client: openai.AsyncOpenAI) -> None:
        for request in requests:
            await client.chat.completions.create(**request_body(work.config, request))

    async def ask_all() -> None:
        async with openai.AsyncOpenAI(base_url=work.config.base_url, api_key="none") as client:
            await asyncio.gather(*(ask(client) for _ in range(work.config.max_concurrency)))

    yield
    asyncio.run(ask_all())


CLIENTS: dict[str, tuple[Callable[[Work], Iterator[None]], float]] = {
    "backend": (run_backend, 1.0),
    "judge": (run_judge, 1.0),
    "aiohttp": (run_aiohttp, 1.0),
    "openai": (run_openai, 0.1),
}


class Timing(NamedTuple):
    """Of one client in one round: requests a second, and seconds of processor time for each."""

    rate: float
    processor: float


def measure(client: Callable[[Work], Iterator[None]], work: Work) -> Timing:
    """Run a client; what it prepares beforehand does not count."""
    steps = client(work)
    next(steps)
    started, processor = time.perf_counter(), time.process_time()
    for _ in steps:
        pass
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    return Timing(work.requests / seconds, processor / work.requests)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that an answer takes")
    parser.add_argument("--seconds", type=float, default=8.0, help="ideal duration of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(options.delay, theirs), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    print("| in flight | client | requests/s | of ideal | least and most | processor time |\n|---|---|---|---|---|---|")
    for concurrency in options.concurrency:
        ideal = concurrency / options.delay
        config = OpenAITeacher(backend="openai", model="m", base_url=url, max_concurrency=concurrency)
        timings: dict[str, list[Timing]] = {name: [] for name in options.clients}
        for _ in range(options.rounds):
            for name in options.clients:
                client, share = CLIENTS[name]
                requests = int(ideal * options.seconds * share) // len(PANEL) * len(PANEL)
                timings[name].append(measure(client, Work(config, requests)))
        for name, measured in timings.items():
            rates = [timing.rate for timing in measured]
            processor = statistics.median(timing.processor for timing in measured)
            print(
                f"| {concurrency} | {name} | {statistics.median(rates):,.0f} | {statistics.median(rates) / ideal:.1%} "
                f"| {min(rates) / ideal:.1%}, {max(rates) / ideal:.1%} | {processor * 1e6:,.0f} µs |"
            )


if __name__ == "__main__":
    main()
