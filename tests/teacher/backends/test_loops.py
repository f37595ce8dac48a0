from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time

import pytest

from manylens.teacher.backends.loops import event_loop


async def where() -> tuple[int, asyncio.AbstractEventLoop]:
    await asyncio.sleep(0)
    return threading.get_ident(), asyncio.get_running_loop()


def test_work_runs_in_this_thread_and_always_in_the_same_loop() -> None:
    with event_loop() as run:
        first, second = run(where()), run(where())
    assert first == second
    assert first[0] == threading.get_ident()
    assert first[1].is_closed()


def test_where_this_threads_loop_is_running_it_runs_in_another_thread() -> None:
    async def cell_of_a_notebook() -> tuple[int, asyncio.AbstractEventLoop]:
        with event_loop() as run:
            first, second = run(where()), run(where())
        assert first == second
        return first

    thread, loop = asyncio.run(cell_of_a_notebook())
    assert thread != threading.get_ident()
    assert loop.is_closed()
    assert "manylens-teacher" not in {thread.name for thread in threading.enumerate()}


def test_what_was_left_unfinished_goes_on_with_the_next_work() -> None:
    done: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.01)
        done.append("slow")

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(slow())

    async def wait(task: asyncio.Task[None]) -> None:
        await task

    with event_loop() as run:
        task = run(start())
        assert not task.done()
        run(wait(task))
    assert done == ["slow"]


def test_the_current_event_loop_of_the_caller_stays() -> None:
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    try:
        with event_loop() as run:
            run(where())
        assert asyncio.get_event_loop_policy().get_event_loop() is own
    finally:
        asyncio.set_event_loop(None)
        own.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise there")
def test_ctrl_c_strikes_the_work_and_no_task_beside_it() -> None:
    done: list[str] = []

    async def beside() -> None:
        os.kill(os.getpid(), signal.SIGINT)  # Its handler runs here, in the midst of this task.
        await asyncio.sleep(0)
        done.append("beside")

    async def work() -> None:
        tasks.append(asyncio.create_task(beside()))
        await asyncio.sleep(60)

    async def wait() -> None:
        await tasks[0]

    tasks: list[asyncio.Task[None]] = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell lets its background jobs ignore Ctrl-C.
    with event_loop() as run:
        with pytest.raises(KeyboardInterrupt):
            run(work())
        run(wait())
        assert done == ["beside"]
        with pytest.raises(KeyboardInterrupt):  # Between two pieces of work it is what it always is.
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
