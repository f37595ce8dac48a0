"""How many requests are in flight: as many as the server bears.

The rule is additive increase, multiplicative decrease (AIMD; Chiu and Jain, 1989), as TCP's congestion
avoidance has it (RFC 5681, section 3.1): a whole window of answers raises the window by one request, a sign of
overload lowers it, and no more than once in a round trip (RFC 6582's ``recover``). It falls to 0.7 of its size
(CUBIC, RFC 9438, section 4.6), not to half, because a single 500 says less than a lost packet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from manylens.progress import console
from manylens.teacher.backends.failures import PassingFault

_T = TypeVar("_T")
_DECREASE = 0.7
#: A pause of this many seconds is worth telling.
_LONG_PAUSE = 10.0


class Window:
    """The most requests in flight, by the rule alone: no clock, no waiting.

    Attributes:
        size: The most requests in flight now; begins at `most`.
    """

    def __init__(self, most: int) -> None:
        """Begin at `most`, which the window never exceeds."""
        self.size = self._most = most
        self._sent = self._recover = self._answered = 0

    def send(self) -> int:
        """Count a request as sent, and return its number."""
        self._sent += 1
        return self._sent

    def answered(self) -> None:
        """Count an answer."""
        self._answered += 1
        if self._answered >= self.size:
            self._answered = 0
            self.size = min(self.size + 1, self._most)

    def overloaded(self, number: int) -> None:
        """Note that the request of this number met an overloaded server.

        It says nothing new if it was sent before the last decrease could show.
        """
        if number > self._recover:
            self._recover, self._answered = self._sent, 0
            self.size = max(int(self.size * _DECREASE), 1)


class Limiter:
    """Lets requests go to a server while its window has room and no pause is on."""

    def __init__(self, most: int) -> None:
        """Begin with a window of `most` requests."""
        self._window, self._permits = Window(most), asyncio.Semaphore(most)
        #: Permits that exist; the window's size, once those that are too many have come back.
        self._issued = most
        self._resume_at = 0.0

    async def run(self, send: Callable[[], Awaitable[_T]]) -> _T:
        """Wait for a place, send, and learn from what comes of it.

        Args:
            send: Sends a request and returns its answer.

        Returns:
            The answer.

        Raises:
            PassingFault: What `send` raises.
        """
        await self._permits.acquire()
        try:
            while (pause := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            number = self._window.send()
            try:
                answer = await send()
            except PassingFault as fault:
                self._learn(fault, number)
                raise
            self._window.answered()
            return answer
        finally:
            self._give_back()

    def _learn(self, fault: PassingFault, number: int) -> None:
        if fault.overload:
            self._window.overloaded(number)
        resume_at = time.monotonic() + fault.retry_after
        if fault.retry_after >= _LONG_PAUSE and resume_at > self._resume_at + 1:
            console.print(f"[dim]the teacher's server asks for a pause of {fault.retry_after:,.0f} s ({fault.kind})[/]")
        self._resume_at = max(self._resume_at, resume_at)

    def _give_back(self) -> None:
        """Make the permits as many as the window has places."""
        self._issued -= 1
        while self._issued < self._window.size:
            self._issued += 1
            self._permits.release()
