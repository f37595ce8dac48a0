"""Very many requests to one server, whose memory is watched."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from benchmarks.load.catalogue import ours
from benchmarks.load.connection import Client
from benchmarks.load.measure import TIMEOUT, loop
from benchmarks.load.mischief import Sent, mixture
from benchmarks.load.process import Process
from benchmarks.load.result import Soak
from benchmarks.load.running import Running
from benchmarks.load.tiny import make_backbone
from benchmarks.serving.catalogue import Model
from benchmarks.serving.machine import processor
from benchmarks.serving.master import make_master
from benchmarks.serving.measure import make_model
from benchmarks.serving.workload import CALIBRATION_SEED, pairs, write_pairs

from manylens.progress import Meter, meter
from manylens.serving.engines.protocol import physical_cores

#: Clients, and products whose tokens the server keeps: full after about 4,000 of these requests.
CLIENTS, CACHE_PRODUCTS = 8, 20_000
#: Pairs that int8 is calibrated on.
_CALIBRATION = 50


def soak(requests: int, *, folder: Path) -> Soak:
    """Send requests to a tiny student's server.

    Args:
        requests: How many.
        folder: Where the student is made, unless it is there.

    Raises:
        StageError: If the server does not start, or ends.
    """
    every = max(1, min(1_000, requests // 10))
    server = ours("onnx_int8", "ONNX Runtime", "int8", options=("--cache-products", str(CACHE_PRODUCTS)))
    model = _student(folder)
    sent: Counter[str] = Counter()
    unexpected: Counter[str] = Counter()
    mixed = mixture(pairs())
    with Running.launch(server, model, folder / "soak.log") as process, meter("soak", total=requests) as progress:
        process.wait_until_ready()
        memory, began = [process.memory], perf_counter()
        for start in range(0, requests, every):
            count = min(every, requests - start)
            loop(_send(process, mixed, count, sent, unexpected))
            memory.append(process.memory)
            _tell(progress, count, memory[-1])
        took = perf_counter() - began
    return Soak(
        command=shlex.join(["python", "-m", "benchmarks.load", *sys.argv[1:]]),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=processor(),
        cores=physical_cores(),
        requests=requests,
        seconds=took,
        cache_products=CACHE_PRODUCTS,
        sent=dict(sent.most_common()),
        unexpected=dict(unexpected),
        every=every,
        memory=tuple(memory),
        base=requests // 10 // every * every,
    )


def _student(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    calibration = pairs(_CALIBRATION, CALIBRATION_SEED)
    calibration_file = write_pairs(folder / "tiny-calibration.jsonl", calibration)
    master = make_master(folder / "tiny-master", calibration, str(make_backbone(folder / "tiny-backbone")))
    model = Model(module="manylens", options={"variants": ["onnx_fp32", "onnx_int8"]})
    make_model(model, master, calibration_file, folder / "tiny")
    return folder / "tiny"


def _tell(progress: Meter, count: int, memory: int) -> None:
    progress.advance(count)
    progress.note(f"{memory / 2**20:.0f} MiB")


async def _send(
    process: Process, mixed: Iterator[Sent], count: int, sent: Counter[str], unexpected: Counter[str]
) -> None:
    """Send some requests, and count them by what they are."""
    left = iter(range(count))

    async def run() -> None:
        with closing(Client(process.port, TIMEOUT)) as client:
            for _ in left:
                wanted = next(mixed)
                answer = await client.ask(wanted.request)
                sent[wanted.kind] += 1
                if answer.status != wanted.status:
                    unexpected[f"{wanted.kind}: {answer.status}"] += 1

    await asyncio.gather(*(run() for _ in range(CLIENTS)))
