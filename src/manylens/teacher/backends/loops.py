"""Asynchronous work driven from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Run(Protocol):
    """Runs a coroutine to its end."""

    def __call__(self, work: Coroutine[Any, Any, _T], /) -> _T:
        """Return what `work` returns."""


@contextmanager
def event_loop() -> Iterator[Run]:
    """Give an event loop of one's own, which runs while something is awaited in it.

    It runs in this thread. Where this thread's own loop is running already, as in a notebook, it runs in
    another one, because a thread has room for only one.

    Yields:
        What runs a coroutine to its end in it. What the coroutine started and left unfinished goes on in the next.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # With a factory given, the runner does not touch the thread's current event loop.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            # Not `runner.run`, which changes the handler of Ctrl-C each time, and takes longer over it than a step.
            yield runner.get_loop().run_until_complete
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="manylens-teacher", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        finally:
            future.cancel()  # Nothing, unless the wait was interrupted.

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
