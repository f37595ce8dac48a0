"""How long a student takes to answer a request: one query and k products."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manylens.errors import DataError
from manylens.evaluation._optional import optional
from manylens.evaluation.predictions import FloatArray
from manylens.records import Pair

if TYPE_CHECKING:
    from manylens.student.predict import Student


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Latency of requests of one size, in milliseconds.

    Attributes:
        student: The student's name.
        products: Products of a request, answered in one batch.
        threads: Threads of PyTorch.
        p50: Median with tokenisation.
        p95: 95th percentile with tokenisation.
        model_p50: Median of the model alone.
        model_p95: 95th percentile of the model alone.
        ratio: Median over the rounds of the model's time over that of the first student in the same round.
    """

    student: str
    products: int
    threads: int
    p50: float
    p95: float
    model_p50: float
    model_p95: float
    ratio: float


def latencies(
    students: Mapping[str, Student],
    pairs: Sequence[Pair],
    *,
    sizes: Sequence[int] = (1, 10, 50),
    rounds: int = 30,
    threads: int = 1,
) -> list[Latency]:
    """Time students in turns on the same requests, so that a machine whose speed drifts is fair to all.

    Each round sends one request of each size to every student, the next products of `pairs` in their order, which
    start again at their end. The first round does not count. Students take turns in being first.

    Args:
        students: Students by name.
        pairs: What requests are made of; as in a shop, pairs of one query had best stand together.
        sizes: Products of a request.
        rounds: Requests of each size and student.
        threads: Threads of PyTorch; the former number is restored.

    Returns:
        One row for each size and student.

    Raises:
        DataError: If there are no students, pairs, sizes or rounds.
    """
    if not (students and pairs and sizes) or rounds < 1 or min(sizes) < 1:
        raise DataError(
            "latency needs students, pairs, sizes and rounds of at least 1, "
            f"got {len(students)} students, {len(pairs)} pairs, sizes {tuple(sizes)} and {rounds} rounds"
        )
    names = list(students)
    seconds = np.zeros((len(sizes), len(names), rounds + 1, 2))
    with _threads(threads):
        for round_number in range(rounds + 1):
            for size_index, size in enumerate(sizes):
                request = [pairs[(round_number * size + offset) % len(pairs)] for offset in range(size)]
                for turn in range(len(names)):
                    which = (round_number + turn) % len(names)
                    seconds[size_index, which, round_number] = _timed(students[names[which]], request)
    counted = 1000.0 * seconds[:, :, 1:]
    return [
        _latency(names[which], size, threads, counted[size_index, which], counted[size_index, 0])
        for size_index, size in enumerate(sizes)
        for which in range(len(names))
    ]


def _latency(name: str, size: int, threads: int, milliseconds: FloatArray, first: FloatArray) -> Latency:
    (p50, model_p50), (p95, model_p95) = np.quantile(milliseconds, (0.5, 0.95), axis=0).tolist()
    return Latency(
        student=name,
        products=size,
        threads=threads,
        p50=p50,
        p95=p95,
        model_p50=model_p50,
        model_p95=model_p95,
        ratio=float(np.median(milliseconds[:, 1] / first[:, 1])),
    )


def _timed(student: Student, request: Sequence[Pair]) -> tuple[float, float]:
    """Return the seconds of one request: with tokenisation, and of the model alone."""
    torch = optional("torch")
    start = time.perf_counter()
    encoded = student.encoder.encode(request)
    rows = [{key: values[index] for key, values in encoded.items()} for index in range(len(request))]
    batch = student.encoder.pad(rows).to(student.model.device)
    tokenised = time.perf_counter()
    with torch.inference_mode():
        student.model(**batch).logits.cpu()  # Copying waits for a GPU.
    end = time.perf_counter()
    return end - start, end - tokenised


@contextmanager
def _threads(number: int) -> Iterator[None]:
    torch = optional("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
