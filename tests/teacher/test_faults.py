"""Judging through a proxy that injects faults, while the judging process is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from faulty_child import IN_FLIGHT, PANEL, SLOW, pairs, teacher

from manylens.records import ESCI
from manylens.teacher.backends.openai import OpenAIBackend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.store import JudgementStore
from servers.faulty import TEN_PER_CENT, FaultProxy
from servers.scripted import Reply, ScriptedServer, after, judged
from servers.transformers_serve import transformers_serve
from tiny_teacher import make_teacher

CHILD = Path(__file__).with_name("faulty_child.py")
MIB = 2**20


def start(
    store: Path, log: Path, url: str, judgements: int, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(CHILD), str(store), str(log), url, str(judgements)]
    return subprocess.Popen(command, stderr=stderr)


def wait_for_answers(log: Path, child: subprocess.Popen[bytes]) -> None:
    """Wait until LOG_EVERY answers came."""
    while not logged(log):
        assert child.poll() is None, "the child ended before it was stopped"
        time.sleep(0.01)


def logged(log: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def unhurried(number: int, body: dict[str, Any]) -> Awaitable[Reply]:
    """Take so long that requests are in flight when the process is killed."""
    return after(0.02, judged(number, body))


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
@pytest.mark.parametrize(
    ("judgements", "kills"), [(600, 1), pytest.param(10_000, 4, marks=pytest.mark.slow)], ids=["600", "10000"]
)
def test_every_judgement_is_answered_once_and_paid_for_once(judgements: int, kills: int, tmp_path: Path) -> None:
    store_path, generator = tmp_path / "store.sqlite", random.Random(0)
    with (
        ScriptedServer(unhurried) as server,
        FaultProxy(server.url, TEN_PER_CENT, slow=SLOW, seed=0) as proxy,
    ):
        for number in range(kills):
            log = tmp_path / f"run{number}.jsonl"
            child = start(store_path, log, proxy.url, judgements)
            wait_for_answers(log, child)
            time.sleep(generator.uniform(0.0, 0.5))
            child.kill()
            assert child.wait() == -signal.SIGKILL
        last = tmp_path / "last.jsonl"
        assert start(store_path, last, proxy.url, judgements).wait() == 0

        injected, received = proxy.injected.total(), proxy.received

    backend = OpenAIBackend(teacher("http://unused/v1"))
    with JudgementStore(store_path) as store:
        assert len(store) == judgements
        found = list(judgements_of(pairs(judgements), PANEL, ESCI, backend, store))
    assert len(found) == judgements
    assert {judgement.label for judgement in found} == {"exact"}

    # Only what is in flight when the process is killed is asked again.
    beyond = received - judgements - injected
    assert 0 <= beyond <= kills * IN_FLIGHT
    assert set(proxy.injected) == set(TEN_PER_CENT)
    assert 0.07 < injected / received < 0.13
    if judgements >= 10_000:
        assert beyond < 0.01 * judgements
        memory = {entry["answers"]: entry["memory"] / MIB for entry in logged(last)}
        final = max(memory)
        assert final > 5_000
        assert memory[final] - memory[2_000] < 4


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent otherwise there")
def test_ctrl_c_keeps_the_answers_and_leaves_quietly(tmp_path: Path) -> None:
    store_path, log = tmp_path / "store.sqlite", tmp_path / "log.jsonl"
    with ScriptedServer(unhurried) as server:
        child = start(store_path, log, server.url, 10_000, subprocess.PIPE)
        wait_for_answers(log, child)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=30)
        assert child.returncode == -signal.SIGINT, stderr.decode()
        with JudgementStore(store_path) as store:
            assert len(server.bodies) - IN_FLIGHT <= len(store) <= len(server.bodies)
    assert b"KeyboardInterrupt" in stderr
    assert b"never retrieved" not in stderr
    assert b"destroyed" not in stderr


@pytest.mark.slow
def test_a_real_server_behind_the_faults(tmp_path: Path) -> None:
    model = make_teacher(tmp_path / "model")
    asked = pairs(60)
    with (
        transformers_serve(model, tmp_path / "serve.log") as url,
        FaultProxy(url, TEN_PER_CENT, slow=SLOW, seed=1) as proxy,
        JudgementStore(tmp_path / "store.sqlite") as store,
    ):
        backend = OpenAIBackend(
            teacher(proxy.url, str(model), max_concurrency=4, sampling={"max_tokens": 4, "temperature": 0.7})
        )
        report = judge(asked, PANEL, ESCI, backend, store)
        assert (report.asked, report.unanswered, len(store)) == (60, 0, 60)
        assert proxy.received == 60 + proxy.injected.total()
        assert judge(asked, PANEL, ESCI, backend, store).asked == 0
