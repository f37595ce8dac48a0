"""Whose turn it is: requests that wait, and the pairs of theirs that are scored next."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from manylens.serving.encoded import Encoded


@dataclass(kw_only=True, slots=True, eq=False)
class Job:
    """A request that waits or is scored.

    Attributes:
        encoded: Its pairs.
        table: (pairs, classes) their probabilities, as far as they are scored.
        done: Done once all are, or one failed.
        order: Its pairs' indices, the shortest first.
        lengths: Their tokens, in that order.
        taken: How many of them were taken, in that order.
        finished: How many of them were scored.
        started: When its first batch started, by `time.perf_counter`.
    """

    encoded: Encoded
    table: NDArray[np.float32]
    done: asyncio.Future[None]
    order: list[int]
    lengths: list[int]
    taken: int = 0
    finished: int = 0
    started: float = math.inf

    @classmethod
    def of(cls, encoded: Encoded, *, classes: int) -> Self:
        """Return the job of some pairs, within a running loop."""
        order = np.argsort(encoded.lengths, kind="stable")
        return cls(
            encoded=encoded,
            table=np.empty((len(order), classes), dtype=np.float32),
            done=asyncio.get_running_loop().create_future(),
            order=order.tolist(),
            lengths=encoded.lengths[order].tolist(),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Union:
    """Pairs of several requests that are cut into batches together.

    Attributes:
        rows: Of each pair the request, and its index there.
        encoded: The pairs.
    """

    rows: list[tuple[Job, int]]
    encoded: Encoded

    @classmethod
    def of(cls, rows: list[tuple[Job, int]]) -> Self:
        """Return the union of at least one pair, all of one reader."""
        gather = rows[0][0].encoded.gather
        return cls(rows=rows, encoded=gather([(job.encoded, index) for job, index in rows]))


class Turns:
    """The requests that wait, in the order of their turns.

    Whoever takes gets one turn of each request at most, which is a bounded number of tokens. A request of a few pairs
    is so taken whole, in the order that it came, and one of many goes to the back in between. Who had no turn yet goes
    before who had, and where both wait for long, each side gets half of the tokens, as far as its requests' turns go.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._first, self._further = deque[Job](), deque[Job]()
        #: Tokens of first turns less those of further ones, since both wait.
        self._ahead = 0

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._first) + len(self._further)

    def append(self, job: Job) -> None:
        """Let a request wait."""
        self._first.append(job)

    def discard(self, job: Job) -> None:
        """Drop what of a request still waits."""
        if job.taken < len(job.order):
            for jobs in (self._first, self._further):
                if job in jobs:
                    jobs.remove(job)

    def take(self, budget: int, turn: int) -> Union:
        """Take pairs until the budget is full, or every request that waits had its turn.

        Args:
            budget: Most tokens to take; the first pair is taken whatever its length.
            turn: Most tokens of a turn; a pair that is longer by itself is a turn too.
        """
        rows: list[tuple[Job, int]] = []
        room, spent, served = budget, Counter[Job](), list[Job]()
        while self:
            jobs = self._next()
            job = jobs[0]
            length = job.lengths[job.taken]
            if spent[job] and spent[job] + length > turn:
                served.append(jobs.popleft())
                continue
            if rows and length > room:
                break
            rows.append((job, job.order[job.taken]))
            room, job.taken = room - length, job.taken + 1
            spent[job] += length
            if self._first and self._further:
                self._ahead += length if jobs is self._first else -length
            if job.taken == len(job.order):
                jobs.popleft()
        self._further.extend(served)
        return Union.of(rows)

    def _next(self) -> deque[Job]:
        """Return the side whose turn it is."""
        if not self._first or not self._further:
            self._ahead = 0
            return self._first or self._further
        return self._first if self._ahead <= 0 else self._further
