from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manylens.records import Pair
from manylens.serving import Scorer
from manylens.serving.http import batcher as module
from manylens.serving.http.batcher import BackendError, Batcher, Outcome, OverloadedError
from serving.http.engine import SlowEngine, slow_scorer
from student.build import WORDS, make_pair


def pairs(query: str, count: int) -> list[Pair]:
    """Return pairs of 5 tokens each, so that 8 fill a batch of the slow engine, and 4 a turn."""
    return [make_pair(query, "hat")] * count


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine()


@pytest.fixture
def slow(exported: Path, engine: SlowEngine) -> Iterator[Batcher]:
    batcher = Batcher(scorer=slow_scorer(exported, engine), max_pairs=100)
    yield batcher
    engine.release(1000)
    batcher.close()


def test_requests_at_the_same_time_get_what_each_would_get_alone(scorer: Scorer) -> None:
    rng = np.random.default_rng(0)
    requests = [
        [
            make_pair(" ".join(rng.choice(WORDS, 1 + n % 3)), " ".join(rng.choice(WORDS, 1 + (7 * n + m) % 50)))
            for m in range(n)
        ]
        for n in [1, 1, 40, 3, 10, 10, 90, 1, 2, 30, 5, 5, 150]
    ]
    batches: list[tuple[int, int]] = []

    async def run() -> list[Outcome]:
        batcher = Batcher(scorer=scorer, max_pairs=1000, on_batch=lambda rows, width: batches.append((rows, width)))
        outcomes = await asyncio.gather(*(batcher.probabilities(request) for request in requests))
        await batcher.drained()
        assert batcher.pairs == 0
        return outcomes

    for request, outcome in zip(requests, asyncio.run(run()), strict=True):
        np.testing.assert_allclose(outcome.table, scorer.probabilities(request), atol=1e-5)
        assert outcome.tokens == scorer.tokenizer.encode(request).lengths.sum()
        assert min(outcome.queue, outcome.tokenisation, outcome.inference) >= 0
    assert sum(rows for rows, _ in batches) == sum(map(len, requests))
    assert len(batches) < 60


def test_a_large_request_does_not_hold_up_small_ones(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        large = asyncio.create_task(slow.probabilities(pairs("red", 60)))
        assert await engine.began() == ["red"] * 4
        small = [asyncio.create_task(slow.probabilities(pairs(query, 1))) for query in ("blue", "green", "lamp")]
        await waiting(slow, 3 + 1)
        seen = []
        while not all(task.done() for task in small):
            engine.release()
            seen.append(await engine.began())
        assert len(seen) <= 3 and not large.done()
        engine.release(100)
        assert (await large).table.shape == (60, 4)
        assert sum(queries.count("red") for queries in engine.batches) == 60

    asyncio.run(run())


def test_two_large_requests_take_turns(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        tasks = [asyncio.create_task(slow.probabilities(pairs("red", 4)))]
        await engine.began()
        for query in ("blue", "green"):
            tasks.append(asyncio.create_task(slow.probabilities(pairs(query, 12))))
            await waiting(slow, len(tasks) - 1)
        engine.release(100)
        await asyncio.gather(*tasks)
        assert [sorted(queries) for queries in engine.batches[1:]] == [["blue"] * 4 + ["green"] * 4] * 3

    asyncio.run(run())


def test_who_had_no_turn_yet_goes_first_and_nobody_starves(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        tasks = [asyncio.create_task(slow.probabilities(pairs("red", 16)))]
        await engine.began()
        tasks.append(asyncio.create_task(slow.probabilities(pairs("blue", 16))))
        await waiting(slow, 2)
        engine.release()
        assert sorted(await engine.began()) == ["blue"] * 4 + ["red"] * 4
        # Both large ones had a turn, and five small ones come.
        for query in ("green", "lamp", "sofa", "cup", "acme"):
            tasks.append(asyncio.create_task(slow.probabilities(pairs(query, 2))))
            await waiting(slow, len(tasks))
        engine.release(100)
        await asyncio.gather(*tasks)
        # Two batches are cut together; half of them is of first turns while there are such.
        assert [sorted(chain(*engine.batches[start : start + 2])) for start in (2, 4)] == [
            ["blue"] * 4 + ["cup"] * 2 + ["green"] * 2 + ["lamp"] * 2 + ["red"] * 4 + ["sofa"] * 2,
            ["acme"] * 2 + ["blue"] * 4 + ["red"] * 4,
        ]

    asyncio.run(run())


def test_what_waits_is_scored_together(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        tasks = [asyncio.create_task(slow.probabilities(pairs("red", 1)))]
        await engine.began()
        tasks += [asyncio.create_task(slow.probabilities(pairs(query, 1))) for query in ("blue", "green", "lamp")]
        await waiting(slow, 3)
        engine.release(2)
        await asyncio.gather(*tasks)
        assert [sorted(queries) for queries in engine.batches] == [["red"], ["blue", "green", "lamp"]]

    asyncio.run(run())


async def waiting(batcher: Batcher, jobs: int) -> None:
    """Wait until so many requests are tokenised and in the queue."""
    async with asyncio.timeout(20):
        while len(batcher._turns) < jobs:
            await asyncio.sleep(0.001)


def test_every_stream_is_busy_and_nothing_waits_for_company(exported: Path) -> None:
    engine = SlowEngine(streams=2)
    batcher = Batcher(scorer=slow_scorer(exported, engine), max_pairs=100)

    async def run() -> None:
        task = asyncio.create_task(batcher.probabilities(pairs("red", 8)))
        assert [await engine.began(), await engine.began()] == [["red"] * 4] * 2
        engine.release(2)
        assert (await task).tokens == 8 * 5

    asyncio.run(run())
    batcher.close()


def test_a_full_queue_refuses_and_says_when_to_come_back(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        # One that finds nothing waiting is taken, whatever its size.
        first = asyncio.create_task(slow.probabilities(pairs("red", 120)))
        await engine.began()
        with pytest.raises(OverloadedError) as refused:
            await slow.probabilities(pairs("blue", 1))
        assert refused.value.retry_after == 1
        slow._pace = 0.1
        with pytest.raises(OverloadedError) as refused:
            await slow.probabilities(pairs("blue", 1))
        assert refused.value.retry_after == 12
        engine.release(100)
        await first
        second = asyncio.create_task(slow.probabilities(pairs("red", 90)))
        third = asyncio.create_task(slow.probabilities(pairs("red", 10)))
        await asyncio.gather(second, third)

    asyncio.run(run())


def test_a_request_that_is_late_takes_its_pairs_with_it(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        first = asyncio.create_task(slow.probabilities(pairs("red", 4)))
        await engine.began()
        with pytest.raises(TimeoutError):
            await slow.probabilities(pairs("blue", 8), timeout=0.05)
        cancelled = asyncio.create_task(slow.probabilities(pairs("green", 8)))
        await waiting(slow, 1)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert slow.pairs == 4
        engine.release(100)
        await first
        await slow.drained()
        assert engine.batches == [["red"] * 4]

    asyncio.run(run())


def test_a_request_that_is_late_half_way_is_ended(slow: Batcher, engine: SlowEngine) -> None:
    async def run() -> None:
        late = asyncio.create_task(slow.probabilities(pairs("red", 12)))
        await engine.began()
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
        engine.release(100)
        await slow.probabilities(pairs("blue", 1))
        assert engine.batches == [["red"] * 4, ["blue"]]

    asyncio.run(run())


def test_an_engine_that_fails_fails_its_requests_only(slow: Batcher, engine: SlowEngine) -> None:
    async def run(break_it: Any, mend_it: Any) -> None:  # noqa: ANN401
        break_it()
        failing = asyncio.create_task(slow.probabilities(pairs("red", 12)))
        await engine.began()
        engine.release()
        with pytest.raises(BackendError, match="the engine failed"):
            await failing
        mend_it()
        engine.release(100)
        assert (await slow.probabilities(pairs("blue", 1))).table.tolist() == [[0.25] * 4]

    asyncio.run(
        run(lambda: setattr(engine, "failure", RuntimeError("no memory")), lambda: setattr(engine, "failure", None))
    )
    asyncio.run(run(lambda: setattr(engine, "value", float("nan")), lambda: setattr(engine, "value", 0.25)))


def test_a_tokenizer_that_fails_fails_the_request(slow: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pairs: object) -> None:
        raise ValueError("a secret")

    monkeypatch.setattr(slow.scorer.tokenizer, "encode", fail)
    with pytest.raises(BackendError, match=r"^the tokenizer failed$"):
        asyncio.run(slow.probabilities(pairs("red", 1)))
    assert slow.pairs == 0


@pytest.mark.parametrize(("slice_pairs", "slice_chars"), [(1, 100_000), (7, 100_000), (64, 1), (64, 20)])
def test_pairs_are_tokenised_in_slices(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, slice_pairs: int, slice_chars: int
) -> None:
    monkeypatch.setattr(module, "_SLICE_PAIRS", slice_pairs)
    monkeypatch.setattr(module, "_SLICE_CHARS", slice_chars)
    request = [make_pair("red shoe", " ".join(WORDS[: index % 9])) for index in range(30)]
    outcome = asyncio.run(Batcher(scorer=scorer, max_pairs=10).probabilities(request))
    np.testing.assert_allclose(outcome.table, scorer.probabilities(request), atol=1e-5)
