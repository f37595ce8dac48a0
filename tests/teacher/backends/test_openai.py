"""The backend against a real server whose replies the test decides; test_client.py has what goes wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Iterator
from contextlib import closing
from typing import Any

import pytest
from aiohttp import web

from manylens.config import OpenAITeacher
from manylens.errors import ConfigError, PromptError, TeacherError
from manylens.teacher.backends import Answer, Request, build_backend
from manylens.teacher.backends.openai import OpenAIBackend
from servers.scripted import Reply, ScriptedServer, after, completion, failed

KEY = "sk-very-secret"


def teacher(url: str, **settings: object) -> OpenAITeacher:
    known: dict[str, Any] = {"backend": "openai", "model": "tiny", "base_url": url, "max_concurrency": 4, "timeout": 20}
    return OpenAITeacher.model_validate({**known, **settings})


def requests(count: int) -> list[Request]:
    return [
        Request(
            pair_id=f"q{number}:p",
            perspective="user_intent",
            messages=[{"role": "user", "content": f"Query: mug {number}"}],
            prompt_hash=f"{number:064x}",
        )
        for number in range(count)
    ]


def echo(number: int, body: dict[str, Any]) -> Reply:
    return completion(body["messages"][0]["content"])


def test_identity() -> None:
    backend = OpenAIBackend(teacher("http://localhost:1/v1"))
    assert backend.name == "openai:tiny"
    assert backend.sampling == '{"max_tokens":512,"seed":13,"temperature":0.0,"top_p":1.0}'
    assert backend.answer_format == "text"
    assert OpenAIBackend(teacher("http://b/v1", structured_output="structured_outputs")).answer_format == "json"
    assert isinstance(build_backend(teacher("http://localhost:1/v1")), OpenAIBackend)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", ""])
def test_a_base_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.base_url: expected a URL such as http://localhost:8000/v1, got"):
        OpenAIBackend(teacher(url))


def test_every_request_gets_its_own_answer() -> None:
    with ScriptedServer(echo) as server:
        answers = dict_of(OpenAIBackend(teacher(server.url)).ask(requests(50)))
    assert answers == {
        f"q{number}:p": Answer(text=f"Query: mug {number}", prompt_tokens=11, completion_tokens=7, finish_reason="stop")
        for number in range(50)
    }
    assert sorted(body["messages"][0]["content"] for body in server.bodies) == sorted(
        f"Query: mug {number}" for number in range(50)
    )


def test_no_requests_ask_nothing() -> None:
    with ScriptedServer() as server:
        assert list(OpenAIBackend(teacher(server.url)).ask([])) == []
    assert server.bodies == []


def test_no_more_requests_are_taken_than_are_in_flight() -> None:
    taken, yielded, most = 0, 0, 0

    def source() -> Iterator[Request]:
        nonlocal taken
        for request in requests(60):
            taken += 1
            yield request

    def slowly(number: int, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
        return after(0.005, completion("x"))

    with ScriptedServer(slowly) as server:
        for _ in OpenAIBackend(teacher(server.url)).ask(source()):
            most = max(most, taken - yielded)
            yielded += 1
    assert (taken, yielded) == (60, 60)
    assert most <= 4
    assert server.most_in_flight == 4


def test_requests_are_taken_in_the_thread_that_iterates() -> None:
    threads = set()

    def source() -> Iterator[Request]:
        for request in requests(10):
            threads.add(threading.get_ident())
            yield request

    with ScriptedServer() as server:
        backend = OpenAIBackend(teacher(server.url))
        list(backend.ask(source()))

        async def cell_of_a_notebook() -> int:
            return len(list(backend.ask(source())))

        assert asyncio.run(cell_of_a_notebook()) == 10
    assert threads == {threading.get_ident()}


def test_stopping_early_breaks_off_cleanly() -> None:
    def slowly(number: int, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
        return completion("x") if number == 1 else after(20, completion("x"))

    with ScriptedServer(slowly) as server:
        backend = OpenAIBackend(teacher(server.url))
        with closing(backend.ask(requests(50))) as answers:  # type: ignore[type-var]
            assert next(answers)[1] is not None
        assert len(server.bodies) <= 5

        async def cell_of_a_notebook() -> None:
            server.bodies.clear()
            with closing(backend.ask(requests(50))) as again:  # type: ignore[type-var]
                assert next(again)[1] is not None

        asyncio.run(cell_of_a_notebook())
    assert "manylens-teacher" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_the_source_waits_for_what_is_in_flight() -> None:
    def source() -> Iterator[Request]:
        yield from requests(2)
        raise PromptError("the template is wrong")

    def slowly(number: int, body: dict[str, Any]) -> Reply | Awaitable[Reply]:
        return after(0.1, completion("x"))

    received = []
    with ScriptedServer(slowly) as server:
        answers = OpenAIBackend(teacher(server.url, max_concurrency=2)).ask(source())
        with pytest.raises(PromptError, match="the template is wrong"):
            received.extend(answers)
    assert [answer is not None for _, answer in received] == [True, True]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as server:
        backend = OpenAIBackend(teacher(server.url, api_key_env="SHOP_KEY"))
        monkeypatch.delenv("SHOP_KEY", raising=False)
        list(backend.ask(requests(1)))
        monkeypatch.setenv("SHOP_KEY", f" {KEY}\n")
        list(backend.ask(requests(1)))
    assert [headers.get("Authorization") for headers in server.headers] == [None, f"Bearer {KEY}"]


def test_openai_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    backend = OpenAIBackend(OpenAITeacher(backend="openai", model="gpt"))
    with pytest.raises(ConfigError, match=r"https://api\.openai\.com/v1 needs a key; export OPENAI_API_KEY="):
        next(backend.ask(requests(1)))


def test_the_key_is_in_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def leak(number: int, body: dict[str, Any]) -> Reply:
        return failed(401, f"Incorrect API key provided: {KEY}")

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ScriptedServer(leak) as server, pytest.raises(TeacherError) as caught:
        list(OpenAIBackend(teacher(server.url)).ask(requests(1)))
    assert "HTTP 401: Incorrect API key provided: ***" in str(caught.value)

    def leak_once(number: int, body: dict[str, Any]) -> Reply:
        return failed(400, f"your key {KEY}") if number == 2 else completion("x")

    with ScriptedServer(leak_once) as server:
        list(OpenAIBackend(teacher(server.url, max_concurrency=1)).ask(requests(3)))
    told = capsys.readouterr()
    assert "your key ***" in told.err
    assert KEY not in told.err + told.out


def test_a_body_of_other_bytes_than_ascii() -> None:
    def raw(number: int, body: dict[str, Any]) -> Reply:
        text = json.dumps(completion("größer, 大きい \ud800"), ensure_ascii=True)
        return web.Response(body=text.encode(), content_type="application/json")

    (request,) = requests(1)
    with ScriptedServer(raw) as server:
        ((_, answer),) = OpenAIBackend(teacher(server.url)).ask([request])
    assert answer is not None
    assert answer.text == "größer, 大きい \ufffd"


def dict_of(answers: Iterator[tuple[Request, Answer | None]]) -> dict[str, Answer | None]:
    found: dict[str, Answer | None] = {}
    for request, answer in answers:
        assert request.pair_id not in found
        found[request.pair_id] = answer
    return found
