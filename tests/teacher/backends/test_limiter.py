from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.teacher.backends.failures import PassingFault
from manylens.teacher.backends.limiter import Limiter, Window


def send(window: Window, count: int) -> list[int]:
    return [window.send() for _ in range(count)]


def test_a_window_of_answers_raises_the_window_by_one_request() -> None:
    window = Window(20)
    first = send(window, 20)
    window.overloaded(first[0])
    sizes = []
    for _ in range(14 + 15 + 16):
        window.send()
        window.answered()
        sizes.append(window.size)
    assert window.size == 17
    # 14 answers of a window of 14, then 15, then 16: RFC 5681's congestion avoidance.
    assert [sizes.index(size) + 1 for size in (15, 16, 17)] == [14, 14 + 15, 14 + 15 + 16]


def test_one_decrease_in_a_round_trip() -> None:
    window = Window(20)
    first = send(window, 20)
    window.overloaded(first[3])
    assert window.size == 14
    for number in first:
        window.overloaded(number)  # Sent before the decrease could show.
    assert window.size == 14
    later = send(window, 14)
    window.overloaded(later[0])
    window.overloaded(later[1])
    assert window.size == 9


def test_the_sequence_of_decreases() -> None:
    window, sizes = Window(64), []
    for _ in range(12):
        window.overloaded(window.send())
        sizes.append(window.size)
    assert sizes == [44, 30, 21, 14, 9, 6, 4, 2, 1, 1, 1, 1]


def test_answers_before_a_decrease_do_not_count_after_it() -> None:
    window = Window(10)
    window.overloaded(window.send())
    assert window.size == 7
    for _ in range(6):
        window.answered()
    window.overloaded(window.send())
    assert window.size == 4
    for _ in range(3):
        window.answered()
    assert window.size == 4
    window.answered()
    assert window.size == 5


@given(most=st.integers(1, 50), events=st.lists(st.booleans(), max_size=300))
def test_the_window_stays_within_its_bounds(most: int, events: list[bool]) -> None:
    window = Window(most)
    for overloaded in events:
        before, number = window.size, window.send()
        if overloaded:
            window.overloaded(number)
            assert window.size == max(int(before * 0.7), 1)
        else:
            window.answered()
            assert window.size in (before, before + 1)
        assert 1 <= window.size <= most


class Server:
    """Counts how many are in flight, and fails where it is told to."""

    def __init__(self, faults: dict[int, PassingFault] | None = None) -> None:
        self.faults, self.sent, self.in_flight, self.flights = faults or {}, 0, 0, list[int]()
        self.times: list[float] = []

    async def send(self) -> int:
        self.sent += 1
        number = self.sent
        self.in_flight += 1
        self.flights.append(self.in_flight)
        self.times.append(time.monotonic())
        await asyncio.sleep(0.002)
        self.in_flight -= 1
        if number in self.faults:
            raise self.faults[number]
        return number


async def drive(limiter: Limiter, server: Server, requests: int) -> list[int | BaseException]:
    return await asyncio.gather(*(limiter.run(server.send) for _ in range(requests)), return_exceptions=True)


def test_no_more_are_in_flight_than_the_window_has_places() -> None:
    server = Server()
    answers = asyncio.run(drive(Limiter(5), server, 40))
    assert sorted(answers) == list(range(1, 41))  # type: ignore[type-var]
    assert max(server.flights) == 5


def test_overload_takes_places_away_and_answers_give_them_back() -> None:
    fault = PassingFault("HTTP 500", overload=True)
    server = Server({1: fault})
    answers = asyncio.run(drive(Limiter(10), server, 60))
    assert answers.count(fault) == 1
    # The first ten go out together; once they are back, seven places are left, and each window adds one.
    assert server.flights[:10] == list(range(1, 11))
    assert max(server.flights[10:17]) == 7
    assert max(server.flights[10:]) == 10


def test_other_faults_change_nothing() -> None:
    server = Server({1: PassingFault("connection"), 12: PassingFault("broken answer")})
    asyncio.run(drive(Limiter(10), server, 60))
    assert max(server.flights[12:]) == 10


def test_a_pause_holds_back_every_request() -> None:
    server = Server({1: PassingFault("HTTP 429", overload=True, retry_after=0.2)})
    asyncio.run(drive(Limiter(3), server, 9))
    assert server.times[3] - server.times[0] >= 0.2


def test_what_is_not_a_passing_fault_gives_its_place_back() -> None:
    async def fail() -> int:
        raise ValueError("a bug")

    async def work() -> None:
        limiter = Limiter(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="a bug"):
                await asyncio.wait_for(limiter.run(fail), 5)

    asyncio.run(work())


def test_a_long_pause_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> int:
        raise PassingFault("HTTP 429", retry_after=30.0)

    with pytest.raises(PassingFault):
        asyncio.run(Limiter(2).run(fail))
    assert "a pause of 30 s (HTTP 429)" in capsys.readouterr().err
