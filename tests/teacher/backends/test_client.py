"""What goes wrong on the way to a server, and what becomes of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from manylens.config import OpenAITeacher
from manylens.errors import TeacherError
from manylens.teacher.backends import Answer, Request, client
from manylens.teacher.backends.openai import OpenAIBackend
from servers.scripted import Reply, Script, ScriptedServer, after, completion, failed

Answers = list[tuple[Request, Answer | None]]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_BACKOFF", client.wait_random_exponential(multiplier=0.005, max=0.02))


def requests(count: int) -> list[Request]:
    return [
        Request(
            pair_id=str(number),
            perspective="p",
            messages=[{"role": "user", "content": f"mug {number}"}],
            prompt_hash=f"{number:064x}",
        )
        for number in range(count)
    ]


@contextmanager
def asked(script: Script, count: int, **settings: object) -> Iterator[tuple[Answers, ScriptedServer]]:
    """Ask a scripted server, one request at a time unless told otherwise."""
    known: dict[str, Any] = {"backend": "openai", "model": "tiny", "max_concurrency": 1, "timeout": 20}
    with ScriptedServer(script) as server:
        config = OpenAITeacher.model_validate({**known, "base_url": server.url, **settings})
        answers: Answers = []
        for answer in OpenAIBackend(config).ask(requests(count)):
            answers.append(answer)
        yield answers, server


def first(faults: list[Reply]) -> Script:
    """Give these replies first, and then answers."""

    def script(number: int, body: dict[str, Any]) -> Reply:
        return faults[number - 1] if number <= len(faults) else completion("fine")

    return script


PASSING = {
    "HTTP 429": lambda: failed(429, Retry_After="0.01"),
    "HTTP 500": lambda: failed(500),
    "HTTP 503": lambda: failed(503, Retry_After="0.01"),
    "truncated": lambda: web.Response(body=b'{"choices": [{"mess', content_type="application/json"),
    "HTML": lambda: web.Response(text="<html>Log in</html>", content_type="text/html"),
    "empty": lambda: web.Response(body=b"", content_type="application/json"),
    "no choices": lambda: web.json_response({"choices": []}),
    "an error with status 200": lambda: web.json_response({"error": {"message": "upstream"}}),
    "not UTF-8": lambda: web.Response(body=b'{"choices": "\xff"}', content_type="application/json"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_tried_again(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with asked(first([PASSING[fault](), PASSING[fault]()]), 2) as (answers, server):
        assert [answer and answer.text for _, answer in answers] == ["fine", "fine"]
        assert [body["messages"][0]["content"] for body in server.bodies] == ["mug 0"] * 3 + ["mug 1"]
    assert "openai:tiny: 2 faults, tried again (" in capsys.readouterr().err


def test_a_retry_asks_the_same() -> None:
    with asked(first([failed(500)]), 1) as (_, server):
        assert server.bodies[0] == server.bodies[1]


def test_a_broken_connection_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as resetting:
        port = resetting.getsockname()[1]
    config = OpenAITeacher(
        backend="openai", model="tiny", base_url=f"http://127.0.0.1:{port}/v1", max_attempts=3, max_concurrency=2
    )
    with pytest.raises(
        TeacherError, match=rf"http://127\.0\.0\.1:{port}/v1 does not answer .* connection: .*run again"
    ):
        list(OpenAIBackend(config).ask(requests(5)))


def test_a_slow_answer_is_given_up_and_tried_again() -> None:
    def script(number: int, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
        return after(30, completion("late")) if number == 1 else completion("fine")

    with asked(script, 1, timeout=0.3) as (answers, server):
        assert [answer and answer.text for _, answer in answers] == ["fine"]
        assert len(server.bodies) == 2


def test_after_the_last_attempt_a_request_goes_without(capsys: pytest.CaptureFixture[str]) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return failed(500, "it is this one") if body["messages"][0]["content"] == "mug 1" else completion("fine")

    with asked(script, 3, max_attempts=4, max_concurrency=2) as (answers, server):
        assert {request.pair_id: answer and answer.text for request, answer in answers} == {
            "0": "fine",
            "1": None,
            "2": "fine",
        }
        tried = [body["messages"][0]["content"] for body in server.bodies]
        assert tried.count("mug 1") == 4
    told = capsys.readouterr().err
    assert "3 faults, tried again (HTTP 500 3)" in told
    assert "1 requests without an answer (HTTP 500 1), the last one: HTTP 500: it is this one" in told


def test_a_server_that_answers_nothing_any_more_stops_the_run() -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return completion("fine") if number <= 3 else failed(503, "going down")

    received: Answers = []
    with ScriptedServer(script) as server:
        config = OpenAITeacher(backend="openai", model="tiny", base_url=server.url, max_attempts=2, max_concurrency=2)
        with pytest.raises(TeacherError, match=r"HTTP 503: going down; .* every answer so far is kept"):
            for answer in OpenAIBackend(config).ask(requests(1000)):
                received.append(answer)
        assert len(server.bodies) < 20
    assert sum(answer is not None for _, answer in received) == 3


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_wrong_teacher_stops_the_run_and_loses_nothing(status: int) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
        return failed(status, "not for you") if number == 3 else after(0.05, completion("fine"))

    received: Answers = []
    with ScriptedServer(script) as server:
        config = OpenAITeacher(backend="openai", model="tiny", base_url=server.url, max_concurrency=4)
        with pytest.raises(TeacherError) as caught:
            for answer in OpenAIBackend(config).ask(requests(1000)):
                received.append(answer)
        message = str(caught.value)
        assert server.url in message
        assert f"HTTP {status}: not for you" in message
        # All that the server answered has come, and nothing was asked after the first four.
        assert sum(answer is not None for _, answer in received) == len(server.bodies) - 1 == 3


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_refused_request_goes_without_and_the_others_go_on(status: int) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return failed(status, "too long") if body["messages"][0]["content"] == "mug 0" else completion("fine")

    with asked(script, 4) as (answers, server):
        assert [answer and answer.text for _, answer in answers] == [None, "fine", "fine", "fine"]
        # The first refusal, with nothing answered before, is checked with a simple question, once.
        contents = [body["messages"][0]["content"] for body in server.bodies]
        assert contents == ["mug 0", "Say hello.", "mug 1", "mug 2", "mug 3"]


@pytest.mark.parametrize("status", [400, 403, 422])
def test_if_all_is_refused_the_run_stops_at_once(status: int) -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return failed(status, "Unexpected fields in the request: {'seed'}")

    with ScriptedServer(script) as server:
        config = OpenAITeacher(backend="openai", model="tiny", base_url=server.url, max_concurrency=4)
        with pytest.raises(TeacherError, match=rf"HTTP {status}: Unexpected fields in the request"):
            list(OpenAIBackend(config).ask(requests(1000)))
        assert len(server.bodies) <= 5


def test_retry_after_holds_back_all_requests() -> None:
    times: list[float] = []

    def script(number: int, body: dict[str, Any]) -> Reply:
        times.append(time.monotonic())
        return failed(429, Retry_After="0.4") if number == 1 else completion("fine")

    with asked(script, 6, max_concurrency=1) as (answers, _):
        assert len(answers) == 6
    assert times[1] - times[0] >= 0.4


def test_overload_lowers_the_number_in_flight() -> None:
    flights: list[int] = []

    with ScriptedServer() as server:

        def script(number: int, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
            flights.append(server.in_flight)
            return after(0.02, failed(500) if number <= 16 else completion("fine"))

        server.script = script
        config = OpenAITeacher(backend="openai", model="tiny", base_url=server.url, max_concurrency=16)
        answers = list(OpenAIBackend(config).ask(requests(48)))
    assert all(answer is not None for _, answer in answers)
    assert max(flights[:16]) == 16
    # Sixteen faults of one round trip are one sign of overload: 0.7 * 16 places are left.
    assert max(flights[16:27]) <= 11


def test_a_url_with_a_slash_at_its_end() -> None:
    with ScriptedServer() as server:
        config = OpenAITeacher(backend="openai", model="tiny", base_url=f"{server.url}/", max_concurrency=1)
        assert len(list(OpenAIBackend(config).ask(requests(1)))) == 1
