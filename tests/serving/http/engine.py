"""An engine whose batches end when a test says so."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Mapping
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np

from manylens.records import ESCI
from manylens.serving import Scorer
from manylens.serving.engines.protocol import Arrays
from manylens.serving.layout import CLASSES
from manylens.serving.tokens import PairTokenizer
from student.build import VOCABULARY

_WORDS = {number: word for word, number in VOCABULARY.items()}


class SlowEngine:
    """Waits at every batch until it is released; see `Engine` for the attributes.

    Attributes:
        batches: The queries of the rows of every batch that began, in order.
        failure: What a batch raises.
    """

    inputs, outputs = ("input_ids", "attention_mask", "token_type_ids"), ("probabilities",)
    call_tokens, few_shapes = 1000, False

    def __init__(self, *, streams: int = 1, token_budget: int = 40) -> None:
        self.streams, self.token_budget = streams, token_budget
        self.batches: list[list[str]] = []
        self.failure: Exception | None = None
        self.value = 0.25
        self._began: queue.Queue[list[str]] = queue.Queue()
        self._released = Semaphore(0)

    def run(self, batch: Mapping[str, Any], *, alone: bool = False) -> Arrays:
        """Say that a batch began, and wait."""
        queries = [_WORDS[int(row[1])] for row in batch["input_ids"]]
        self.batches.append(queries)
        self._began.put(queries)
        assert self._released.acquire(timeout=20)
        if self.failure is not None:
            raise self.failure
        return {"probabilities": np.full((len(queries), len(ESCI.names)), self.value, dtype=np.float32)}

    def release(self, batches: int = 1) -> None:
        """Let some batches end, those too that have yet to begin."""
        self._released.release(batches)

    async def began(self) -> list[str]:
        """Wait for the next batch to begin, and return the queries of its rows."""
        return await asyncio.to_thread(self._began.get, timeout=20)


def slow_scorer(exported: Path, engine: SlowEngine) -> Scorer:
    """Return a scorer on the engine, with the tokenizer of an export."""
    tokenizer = PairTokenizer.load(exported / CLASSES, engine.inputs)
    return Scorer(engine, tokenizer, ESCI.names, ESCI.gain_vector())
