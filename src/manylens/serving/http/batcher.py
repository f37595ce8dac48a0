"""Batches across requests: whoever waits is scored together, and a large request never holds up the small ones."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from manylens.records import Pair
from manylens.serving.batches import Batch, cut
from manylens.serving.encoded import Encoded
from manylens.serving.explain import Variants, verbatim
from manylens.serving.http.turns import Job, Turns, Union
from manylens.serving.scorer import Scorer
from manylens.serving.split import Reader

#: Threads that tokenise; tokenizers releases the lock of the interpreter, the template does not.
_TOKENISERS = 2
#: A request's turn for each free stream, in full batches: the less, the sooner the small ones behind a large one come.
_TURN = 0.5
#: What is cut together, in turns, where so much waits: the more, the less is padded.
_UNION = 4
#: What a thread tokenises of a request before others have their turn.
_SLICE_PAIRS, _SLICE_CHARS = 64, 100_000
#: The share of the newest batch in the measured time of a pair.
_NEWEST = 0.1
_T = TypeVar("_T")


class OverloadedError(Exception):
    """Too many pairs wait.

    Attributes:
        retry_after: Seconds until what waits now should be scored.
    """

    def __init__(self, retry_after: int) -> None:
        """Say when to come back."""
        self.retry_after = retry_after
        super().__init__(f"overloaded; retry after {retry_after} s")


class BackendError(Exception):
    """The engine or the tokenizer failed; the cause is chained."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """A request's probabilities and what they took.

    Attributes:
        table: (pairs, classes) probabilities.
        latents: (pairs, latents, dim) of `Variants`, else ``None``.
        tokens: Tokens of its pairs, padding aside.
        queue: Seconds until its first batch started, those of tokenising aside.
        tokenisation: Seconds that its pairs were tokenised.
        inference: Seconds from the start of its first batch to the end of its last.
        marks: By `perf_counter`, when it began, was tokenised, its first batch started, and its last ended.
    """

    table: NDArray[np.float32]
    latents: NDArray[np.float32] | None
    tokens: int
    queue: float
    tokenisation: float
    inference: float
    marks: tuple[float, float, float, float]


@dataclass(kw_only=True, slots=True, eq=False)
class Batcher:
    """Scores the pairs of many requests on one scorer.

    Requests take turns: in its turn a request gives up to half a batch for each free stream of the engine, so that a
    request of a few products is scored whole in the order that it came, and one of many goes to the back in between.
    A free stream takes what waits at once, one turn of each request; nothing waits for company.

    Attributes:
        scorer: What scores.
        max_pairs: Most pairs that wait or are scored at a time.
        on_batch: Called with the rows and the width of every batch that was scored.
        pairs: Pairs that wait or are scored now.
    """

    scorer: Scorer
    max_pairs: int
    on_batch: Callable[[int, int], None] | None = None
    pairs: int = 0
    _held: int = 0
    _turns: Turns = field(default_factory=Turns)
    _busy: int = 0
    _pace: float = 0.0
    _tokenisers: ThreadPoolExecutor = field(init=False)
    _streams: ThreadPoolExecutor = field(init=False)
    _aside: ThreadPoolExecutor = field(init=False)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Make the threads, which start when they are needed."""
        self._tokenisers = ThreadPoolExecutor(_TOKENISERS, thread_name_prefix="tokeniser")
        self._streams = ThreadPoolExecutor(self.scorer.engine.streams, thread_name_prefix="stream")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._idle.set()

    async def probabilities(self, pairs: Sequence[Pair], *, timeout: float | None = None) -> Outcome:
        """Return the class probabilities of a request's pairs; cancelled, it takes its waiting pairs with it.

        Args:
            pairs: At least one. `Variants` are read as they are, and their outcome has latents.
            timeout: Seconds until they must be there.

        Raises:
            OverloadedError: If too many pairs wait.
            TimeoutError: If they are not there in time; what of them was not started is dropped.
            BackendError: If the tokenizer or the engine fails.
        """
        if self.pairs and self.pairs + len(pairs) > self.max_pairs:
            raise OverloadedError(min(60, max(1, math.ceil(self.pairs * self._pace))))
        began, job, shape = perf_counter(), None, self._latents_of(pairs)
        classes = len(self.scorer.labels)
        self.pairs += len(pairs)
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout):
                encoded, tokenisation = await self._encode(pairs)
                waiting = perf_counter()
                job = Job.of(encoded, classes=classes + math.prod(shape or (0,)))
                self._turns.append(job)
                self._dispatch()
                await job.done
        finally:
            if job is not None:
                self._turns.discard(job)
            self.pairs -= len(pairs)
            self._settle()
        ended = perf_counter()
        return Outcome(
            table=job.table[:, :classes],
            latents=None if shape is None else job.table[:, classes:].reshape(-1, *shape),
            tokens=sum(job.lengths),
            queue=max(0.0, job.started - began - tokenisation),
            tokenisation=tokenisation,
            inference=ended - job.started,
            marks=(began, waiting, job.started, ended),
        )

    async def aside(self, work: Callable[[], _T]) -> _T:
        """Do something in the one thread that is there for what is not scoring.

        Raises:
            BackendError: If it fails.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._aside, work)
        except Exception as error:
            raise BackendError("the explainer failed") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the batcher from being drained while a request has no pair here, but will or had."""
        self._held += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._held -= 1
            self._settle()

    async def drained(self) -> None:
        """Wait until no request waits or is scored."""
        await self._idle.wait()

    def close(self) -> None:
        """End the threads once they are done; the batcher cannot be used again."""
        for pool in (self._tokenisers, self._streams, self._aside):
            pool.shutdown(wait=False, cancel_futures=True)
        self.scorer.close()

    async def _encode(self, pairs: Sequence[Pair]) -> tuple[Encoded, float]:
        """Tokenise in slices, so that requests take turns here too."""
        loop, seconds = asyncio.get_running_loop(), 0.0
        slices: list[Encoded] = []
        reader: Reader = self.scorer.tokenizer
        if isinstance(pairs, Variants):
            reader = verbatim(reader)
        for part in _slices(pairs):
            encoded, took = await loop.run_in_executor(self._tokenisers, self._tokenise, reader, part)
            slices.append(encoded)
            seconds += took
        first = slices[0]
        if len(slices) > 1:
            first = first.gather([(part, index) for part in slices for index in range(len(part))])
        return first, seconds

    def _settle(self) -> None:
        if not self.pairs and not self._held:
            self._idle.set()

    def _latents_of(self, pairs: Sequence[Pair]) -> tuple[int, int] | None:
        """Return the shape of a pair's latents, where they are wanted."""
        explainer = self.scorer.explainer
        return explainer.latents if isinstance(pairs, Variants) and explainer is not None else None

    def _tokenise(self, reader: Reader, pairs: Sequence[Pair]) -> tuple[Encoded, float]:
        began = perf_counter()
        try:
            encoded: Encoded = reader.encode(pairs)
            return encoded, perf_counter() - began
        except Exception as error:
            raise BackendError("the tokenizer failed") from error

    def _dispatch(self) -> None:
        """Give every free stream something to do."""
        engine, loop = self.scorer.engine, asyncio.get_running_loop()
        while self._turns and self._busy < engine.streams:
            free = engine.streams - self._busy
            turn = math.ceil(_TURN * free * self.scorer.token_budget)
            union = self._turns.take(_UNION * turn, turn)
            batches = cut(
                union.encoded.lengths,
                self.scorer.token_budget,
                call_tokens=engine.call_tokens,
                streams=free,
                few_shapes=engine.few_shapes,
            )
            # One that runs on every core leaves no stream free.
            alone = len(batches) == 1 and not self._busy
            weight = engine.streams if alone else 1
            for batch in batches:
                self._busy += weight
                future = self._streams.submit(self._run, union, batch, alone)
                future.add_done_callback(partial(self._told, loop, union, batch, weight))

    def _run(self, union: Union, batch: Batch, alone: bool) -> float:
        """Score a batch in a thread of its own, and return what it took."""
        began = perf_counter()
        for job in {union.rows[place][0] for place in batch.pairs}:
            job.started = min(job.started, began)
        arrays = self.scorer.tokenizer.batch(union.encoded, batch.pairs, batch.width)
        outputs = self.scorer.engine.run(arrays, alone=alone)
        scored = outputs["probabilities"]
        if not np.isfinite(scored).all():
            raise ArithmeticError("the engine returned probabilities that are no numbers")
        classes = scored.shape[1]
        for number, (place, row) in enumerate(zip(batch.pairs, scored, strict=True)):
            job, index = union.rows[place]
            job.table[index, :classes] = row
            if job.table.shape[1] > classes:
                job.table[index, classes:] = outputs["latents"][number].ravel()
        return perf_counter() - began

    def _told(
        self, loop: asyncio.AbstractEventLoop, union: Union, batch: Batch, weight: int, future: Future[float]
    ) -> None:
        """Hand a batch's end from its thread to the loop, which may be gone by now."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._done, union, batch, weight, future)

    def _done(self, union: Union, batch: Batch, weight: int, future: Future[float]) -> None:
        """Settle the requests of a batch, and start what waits."""
        running = 1 if weight > 1 else min(self._busy, self.scorer.engine.streams)
        self._busy -= weight
        if future.cancelled():
            return
        failure = future.exception()
        for place in batch.pairs:
            job = union.rows[place][0]
            job.finished += 1
            if job.done.done():
                continue
            if failure is not None:
                error = BackendError("the engine failed")
                error.__cause__ = failure
                job.done.set_exception(error)
            elif job.finished == len(job.order):
                job.done.set_result(None)
        if failure is None:
            pace = future.result() / len(batch.pairs) / running
            self._pace = pace if not self._pace else self._pace + _NEWEST * (pace - self._pace)
            if self.on_batch is not None:
                self.on_batch(len(batch.pairs), batch.width)
        self._dispatch()


def _slices(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    start = chars = 0
    for index, pair in enumerate(pairs):
        if index > start and (index - start == _SLICE_PAIRS or chars >= _SLICE_CHARS):
            yield pairs[start:index]
            start, chars = index, 0
        chars += len(pair.title) + len(pair.description)
    yield pairs[start:]
