"""Scorers that take parts of a table: one in this process, or one in each of several."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manylens.data import PAIR_SCHEMA, Pairs
from manylens.errors import DataError, StudentError
from manylens.serving.engines.protocol import physical_cores
from manylens.serving.scorer import Scorer

#: Parts at a time in one process: while one is scored, the next is made into tokens.
_THREADS = 2
#: The scorer of this process, where it is a worker.
_scorer: Scorer


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some rows of a table that one shard gets.

    Attributes:
        shard: The shard's number.
        last: Whether the shard is full with it.
        pairs: The rows, with the columns of `PAIR_SCHEMA`.
    """

    shard: int
    last: bool
    pairs: pa.RecordBatch


class Workers:
    """Scores parts of a table on any number of processes.

    Attributes:
        labels: The classes, best first.
        gains: (classes,) their gains.
        variant: What is run, such as ``onnx_int8``.
        precision: How the store of states keeps them; ``None`` without one.
        window: Most parts that are read and not yet handed back.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        workers: int,
        threads: int | None,
        variant: str | None,
        states: str | Path | None = None,
    ) -> None:
        """Load the model; processes start with the first part.

        Args:
            model: What `Scorer.load` takes.
            workers: Processes; 1 is this one.
            threads: Cores of each; ``None`` deals out the physical ones.
            variant: As `Scorer.load` has it.
            states: As `Scorer.load` has it; every process maps the same files.

        Raises:
            MissingExtraError: If the engine's library is not installed.
            StudentError: If there is no such model or variant, or the store is not for it.
        """
        if threads is None:
            threads = max(1, physical_cores() // workers)
        scorer = Scorer.load(model, variant=variant, states=states, threads=threads)
        assert scorer.variant is not None  # Those that were loaded have one.
        self.labels, self.gains, self.variant = scorer.labels, scorer.gains, scorer.variant
        self.precision = None if scorer.states is None else scorer.states.precision
        self._scorer: Scorer | None = None
        self._executor: Executor
        self._score: Callable[[bytes], NDArray[np.float32]]
        if workers == 1:
            self._scorer, self.window = scorer, 2 * _THREADS
            self._executor, self._score = ThreadPoolExecutor(_THREADS), partial(_probabilities, scorer)
        else:
            scorer.close()
            self.window, self._score = 2 * workers, _probabilities_here
            store = None if states is None else str(states)
            self._executor = ProcessPoolExecutor(
                workers, get_context("spawn"), initializer=_start, initargs=(str(model), self.variant, store, threads)
            )

    def score(self, parts: Iterable[Part]) -> Iterator[tuple[Part, NDArray[np.float32]]]:
        """Score parts.

        Args:
            parts: Read no further ahead than the window.

        Yields:
            Each part with its probabilities (rows, classes), in order.

        Raises:
            DataError: What the parts raise, after the parts before.
            StudentError: If a process died.
        """
        waiting: deque[tuple[Part, Future[NDArray[np.float32]]]] = deque()
        try:
            try:
                for part in parts:
                    waiting.append((part, self._submit(part)))
                    if len(waiting) == self.window:
                        yield _first(waiting)
            except DataError:  # What was read before the bad row is handed back first.
                while waiting:
                    yield _first(waiting)
                raise
            while waiting:
                yield _first(waiting)
        except BrokenExecutor:
            raise StudentError(
                "a worker died before its pairs were scored, as when memory runs out; take fewer workers, and run the "
                "same again: it goes on after the finished shards"
            ) from None

    def _submit(self, part: Part) -> Future[NDArray[np.float32]]:
        with _interrupt_held():  # The first part starts the processes.
            return self._executor.submit(self._score, part.pairs.serialize().to_pybytes())

    def __enter__(self) -> Self:
        """Return the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; what they have not begun is dropped."""
        self._executor.shutdown(cancel_futures=True)
        if self._scorer is not None:
            self._scorer.close()


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Hold Ctrl-C back, for this thread and the processes that it starts, which would tell of it while they import."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows.
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first(waiting: deque[tuple[Part, Future[NDArray[np.float32]]]]) -> tuple[Part, NDArray[np.float32]]:
    part, future = waiting.popleft()
    return part, future.result()


def _probabilities(scorer: Scorer, pairs: bytes) -> NDArray[np.float32]:
    """Score a serialised batch: a slice that is pickled would take the whole batch along."""
    batch = pa.ipc.read_record_batch(pa.py_buffer(pairs), PAIR_SCHEMA)
    return scorer.probabilities(list(Pairs(pa.Table.from_batches([batch]))))


def _probabilities_here(pairs: bytes) -> NDArray[np.float32]:
    return _probabilities(_scorer, pairs)


def _start(model: str, variant: str, states: str | None, threads: int) -> None:
    """Load the scorer of a worker."""
    global _scorer
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the whole group, and ends workers without a word.
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Held by `_interrupt_held` until here.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # The tokenizer's threads, else one for each core.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    _scorer = Scorer.load(model, variant=variant, states=states, threads=threads)


def _end_with_parent() -> None:
    """End this process when its parent was killed: the pool's queue would keep it waiting for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
