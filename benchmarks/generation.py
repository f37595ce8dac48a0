"""What batches bring to the `transformers` backend, and what a random generator for each row costs.

    python -m benchmarks.generation

The first table is of a small random Qwen3, whose answers run to their most tokens; the second of one step of sampling
at Qwen3's vocabulary of 151,936, against `torch.multinomial` on the same warped logits. Rounds are interleaved,
because a machine's speed drifts; the figures are medians and ranges over the rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tests.tiny_teacher import make_teacher
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from manylens.config import SamplingConfig, TransformersTeacher
from manylens.records import ESCI, Pair
from manylens.teacher.backends.generation import RowSampler
from manylens.teacher.backends.transformers import TransformersBackend
from manylens.teacher.perspectives import NEUTRAL
from manylens.teacher.questions import requests_of

ROUNDS = 5
PAIRS = 64
TOKENS = 64
ROWS, VOCABULARY = 16, 151_936


def measure(cases: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return each case's seconds in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def asking(model: Path, batch_size: int, temperature: float) -> Callable[[], object]:
    """Return a call that has a loaded model judge all pairs."""
    pairs = [
        Pair(
            pair_id=str(number),
            query_id=str(number),
            product_id=str(number),
            query="red mug",
            title="red mug for the home",
            description="with a handle " * (number * 7 % 30),
        )
        for number in range(PAIRS)
    ]
    requests = list(requests_of(pairs, [NEUTRAL], ESCI))
    sampling = SamplingConfig(temperature=temperature, max_tokens=TOKENS)
    config = TransformersTeacher(
        backend="transformers", model=str(model), device="cpu", batch_size=batch_size, sampling=sampling
    )
    backend = TransformersBackend(config)
    return lambda: list(backend.ask(requests))


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = make_teacher(Path(folder), hidden=256, layers=6)
        cases = {
            f"batch_size {size:>2}, temperature {temperature}": asking(model, size, temperature)
            for size in (1, 4, 16, 64)
            for temperature in (0.0, 1.0)
        }
        for name, seconds in measure(cases).items():
            rates = [PAIRS / each for each in seconds]
            print(f"{name}: {statistics.median(rates):.1f} answers/s ({min(rates):.1f} to {max(rates):.1f})")
    logits, tokens = torch.randn(ROWS, VOCABULARY), torch.zeros(ROWS, 1, dtype=torch.long)
    sampler = RowSampler(range(ROWS), 0.7, 0.95, torch.device("cpu"))
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.7), TopPLogitsWarper(0.95)])
    steps = {
        "a generator per row": lambda: sampler(tokens, logits).argmax(dim=-1),
        "one generator": lambda: torch.multinomial(warpers(tokens, logits).softmax(dim=-1), 1),
    }
    for name, seconds in measure(steps).items():
        print(
            f"{name}: {1000 * statistics.median(seconds):.0f} ms a step of {ROWS} rows "
            f"({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
        )


if __name__ == "__main__":
    main()
