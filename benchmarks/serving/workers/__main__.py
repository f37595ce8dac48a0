"""A system in a process of its own, which does what a line of JSON asks and answers with a line of JSON.

    python -m benchmarks.serving.workers MODULE

Pairs are read from a file that both sides know by its path, and time is taken here, so that neither the pairs nor the
scores pass through the pipe while a clock runs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.serving.workers.batching import Scorer, TextPair

#: Libraries whose versions are worth a word.
LIBRARIES = (
    "ctranslate2",
    "fastembed",
    "FlashRank",
    "manylens",
    "nncf",
    "onnxruntime",
    "openvino",
    "optimum-intel",
    "optimum-onnx",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)


class Worker:
    """A system's side of the protocol; each public method is a command."""

    def __init__(self, module: ModuleType) -> None:
        """Bind the system's module."""
        self._module = module
        self._score: Scorer
        self._pairs: list[TextPair]

    def prepare(self, *, master: str, folder: str, calibration: str, options: Mapping[str, Any]) -> dict[str, object]:
        """Make the system's own model in `folder`, from the master's and the calibration pairs."""
        self._module.prepare(Path(master), Path(folder), _read(calibration), **options)
        return {}

    def load(
        self, *, master: str, folder: str, pairs: str, threads: int, options: Mapping[str, Any]
    ) -> dict[str, object]:
        """Load the system, and the pairs that all later commands are about; answers with its libraries' versions."""
        self._score = self._module.load(Path(master), Path(folder), threads, **options)
        self._pairs = _read(pairs)
        return {"versions": _versions()}

    def score(self) -> dict[str, object]:
        """Score all pairs; answers with the seconds."""
        return {"seconds": _seconds(lambda: self._score(self._pairs))}

    def request(self, *, start: int, products: int) -> dict[str, object]:
        """Score a query and the products from `start` on, round and round; answers with the seconds."""
        request = self._request(start, products)
        return {"seconds": _seconds(lambda: self._score(request))}

    def sustain(self, *, seconds: float, products: int, together: int) -> dict[str, object]:
        """Score requests for some seconds, `together` of them in a call; answers with how many and the seconds."""
        each = [self._request(start, products) for start in range(0, len(self._pairs), products)]
        requests, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds:
            places = range(requests, requests + together)
            self._score([pair for place in places for pair in each[place % len(each)]])
            requests += together
        return {"requests": requests, "seconds": taken}

    def outputs(self, *, count: int) -> dict[str, object]:
        """Answer with the scores of the first pairs."""
        return {"outputs": self._score(self._pairs[:count]).tolist()}

    def peaks(self, *, threads: int) -> dict[str, object]:
        """Answer with the machine's rates."""
        return {"peaks": self._module.peaks(threads)}

    def _request(self, start: int, products: int) -> list[TextPair]:
        """Return a query and the products from `start` on."""
        chosen = [self._pairs[(start + number) % len(self._pairs)] for number in range(products)]
        return [(chosen[0][0], product) for _, product in chosen]


def _versions() -> dict[str, str]:
    installed = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    return {name: installed[name] for name in LIBRARIES if name in installed}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _read(path: str) -> list[TextPair]:
    with open(path, encoding="utf-8") as lines:
        return [(row["query"], row["product"]) for row in map(json.loads, lines)]


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What libraries print must not stand among the answers.
    worker = None
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        try:
            worker = worker or Worker(importlib.import_module(f"benchmarks.serving.workers.{sys.argv[1]}"))
            answer = getattr(worker, command.pop("do"))(**command)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
