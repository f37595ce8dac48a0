"""Judges through a server until it is done or killed; run by test_faults.py as a process of its own."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from manylens.config import OpenAITeacher
from manylens.records import ESCI, Pair
from manylens.teacher.backends import Answer, Request
from manylens.teacher.backends.openai import OpenAIBackend
from manylens.teacher.judge import judge
from manylens.teacher.perspectives import load_perspective
from manylens.teacher.store import JudgementStore

IN_FLIGHT = 16
#: Seconds that the client waits, and that a slow answer takes.
TIMEOUT, SLOW = 3.0, 8.0
PANEL = [load_perspective("user_intent"), load_perspective("business_rules")]
LOG_EVERY = 100


def pairs(judgements: int) -> list[Pair]:
    """Return pairs for so many judgements."""
    return [
        Pair(pair_id=f"q{n}:p{n}", query_id=f"q{n}", product_id=f"p{n}", query=f"mug {n}", title=f"A mug {n}")
        for n in range(judgements // len(PANEL))
    ]


def teacher(url: str, model: str = "tiny", **settings: object) -> OpenAITeacher:
    """Return the section of the recipe."""
    known = {"backend": "openai", "model": model, "base_url": url, "timeout": TIMEOUT, "max_concurrency": IN_FLIGHT}
    return OpenAITeacher.model_validate({**known, **settings})


class LoggingTeacher(OpenAIBackend):
    """Writes down how many answers came, and this process's resident memory."""

    log: Path

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Answer requests."""
        process = psutil.Process()
        with self.log.open("a") as log:
            for number, answered in enumerate(super().ask(requests), start=1):
                yield answered
                if number % LOG_EVERY == 0:
                    log.write(json.dumps({"answers": number, "memory": process.memory_info().rss}) + "\n")
                    log.flush()


if __name__ == "__main__":
    # A shell lets its background jobs ignore Ctrl-C, and they hand that on to what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store_path, log_path, url, judgements = sys.argv[1:]
    backend = LoggingTeacher(teacher(url))
    backend.log = Path(log_path)
    with JudgementStore(Path(store_path)) as store:
        judge(pairs(int(judgements)), PANEL, ESCI, backend, store)
