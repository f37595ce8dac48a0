"""Judges with a slow backend until it is done or killed; run by test_kill.py as a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from manylens.records import ESCI, Pair
from manylens.teacher.answers import AnswerFormat
from manylens.teacher.backends import Answer, Request
from manylens.teacher.judge import judge
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective
from manylens.teacher.store import JudgementStore

IN_FLIGHT = 4
PANEL = [load_perspective(name) for name in PERSPECTIVES]
PAIRS = [
    Pair(pair_id=f"q{n}:p{n}", query_id=f"q{n}", product_id=f"p{n}", query=f"mug {n}", title=f"A mug {n}")
    for n in range(40)
]


class SlowTeacher:
    """Keeps a few requests in flight, and writes down each that it takes before it answers."""

    name, sampling = "slow", "{}"
    answer_format: AnswerFormat = "text"

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        in_flight: list[Request] = []
        for request in requests:
            key = [request.pair_id, request.perspective, request.sample]
            os.write(self._log, (json.dumps(key) + "\n").encode())
            in_flight.append(request)
            if len(in_flight) == IN_FLIGHT:
                yield self._answer(in_flight)
        while in_flight:
            yield self._answer(in_flight)

    def _answer(self, in_flight: list[Request]) -> tuple[Request, Answer]:
        time.sleep(0.01)
        request = in_flight.pop(len(in_flight) // 2)
        return request, Answer(text=f"{request.pair_id} by {request.perspective}.\n\nLabel: exact")


if __name__ == "__main__":
    with JudgementStore(Path(sys.argv[1])) as store:
        judge(PAIRS, PANEL, ESCI, SlowTeacher(Path(sys.argv[2])), store)
