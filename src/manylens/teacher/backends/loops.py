"""Asynchronous work driven from synchronous code."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
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
        Ctrl-C cancels the coroutine and raises `KeyboardInterrupt`; a second one does not wait for it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # With a factory given, the runner does not touch the thread's current event loop.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner, _steps(runner.get_loop()) as run:
            yield run
        return
    with _another_thread() as run:
        yield run


class _Steps:
    """Runs one coroutine after the other in a loop of this thread.

    Ctrl-C is held off while the loop runs: raised within it, it would strike some request's task and surface who
    knows where. `asyncio.Runner.run` does the same, but changes the handler each time, which takes longer than a step.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._busy = self._interrupted = False

    def __call__(self, work: Coroutine[Any, Any, _T]) -> _T:
        self._busy = True
        task: asyncio.Task[_T] = self._loop.create_task(work)
        self._task = task
        if self._interrupted:  # After the last one had ended: what it returned was to be kept.
            task.cancel()
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            self.raise_if_interrupted()
            raise
        finally:
            self._busy, self._task = False, None

    def raise_if_interrupted(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C."""
        if not self._busy or self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        if self._task is not None:
            self._task.cancel()
            self._loop.call_soon_threadsafe(lambda: None)  # Wakes the loop.


@contextmanager
def _steps(loop: asyncio.AbstractEventLoop) -> Iterator[Run]:
    steps = _Steps(loop)
    # As `asyncio.Runner` has it: only where Python would raise KeyboardInterrupt anyway.
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, steps.interrupt)
    try:
        yield steps
        steps.raise_if_interrupted()
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _another_thread() -> Iterator[Run]:
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
