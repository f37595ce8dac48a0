from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from manylens.serving.http.app import create_app
from manylens.serving.http.logs import JsonFormatter
from serving.http.conftest import Serve, make_settings
from serving.http.engine import SlowEngine, slow_scorer

BODY = {"query": "red", "texts": ["hat"]}


def error(status: int, message: str, kind: str) -> tuple[int, dict[str, str]]:
    return status, {"error": message, "error_type": kind}


def seen(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


# Keys


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer secret", 200),
        ("bearer  secret", 200),
        ("secret", 200),
        ("Bearer secre", 401),
        ("Bearer", 401),
        ("Basic secret", 401),
        ("Bearer s\u00e9cret", 401),
        (None, 401),
    ],
)
def test_a_key_is_asked_for_everywhere_but_at_the_probes(serve: Serve, header: str | None, status: int) -> None:
    client = serve(api_key="secret")
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    for method, path in (("POST", "/rerank"), ("GET", "/info"), ("GET", "/metrics"), ("GET", "/docs")):
        answer = client.request(method, path, headers=headers, json=BODY if method == "POST" else None)
        assert answer.status_code == status, path
    if status == 401:
        assert seen(answer) == error(
            401, "expected the header Authorization: Bearer KEY with the server's key", "Unauthorized"
        )
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}


# Limits


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length(serve: Serve) -> None:
    client = serve(max_body_bytes=100)
    refused = error(413, "expected a body of at most 100 bytes; send fewer or shorter texts", "Validation")
    for size in (101, 390, 10_000):
        body = json.dumps(BODY).encode().ljust(size)
        assert seen(client.post("/rerank", content=body)) == refused
        assert seen(client.post("/rerank", content=iter([body[:50], body[50:]]))) == refused
    assert client.post("/rerank", content=json.dumps(BODY).encode().ljust(100)).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "texts": ["b"] * 51}),
        ("/v1/rerank", {"query": "a", "documents": [{"title": "b"}] * 51}),
        ("/predict", {"inputs": [["a", "b"]] * 51}),
        ("/predict", {"query": "a", "products": ["b"] * 51}),
    ],
)
def test_too_many_texts(client: TestClient, path: str, body: dict[str, Any]) -> None:
    assert seen(client.post(path, json=body)) == error(
        413, "expected at most 50 texts, got 51; send them in parts", "Validation"
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"query": "a", "texts": ["b", "c" * 60_001]}),
        ("/rerank", {"query": "a" * 60_001, "texts": ["b"]}),
        ("/rerank", {"query": "a", "documents": [{"title": "b", "description": "c" * 60_000}]}),
        ("/rerank", {"query": "a", "documents": [{"title": "b", "attributes": {"c": "d" * 60_000}}]}),
        ("/predict", {"inputs": ["a" * 60_001, "b"]}),
        ("/predict", {"inputs": [["a", "b"], ["a" * 60_001, "b"]]}),
    ],
)
def test_texts_that_are_too_long(client: TestClient, path: str, body: dict[str, Any]) -> None:
    assert seen(client.post(path, json=body)) == error(
        413, "expected texts of at most 60000 characters; cut them, a model reads their start", "Validation"
    )


# Ids, times, logs, metrics


def test_times_and_the_id_are_in_the_headers(client: TestClient) -> None:
    answer = client.post("/rerank", json=BODY, headers={"x-request-id": "order-7"})
    assert answer.headers["x-request-id"] == "order-7"
    for name in ("queue", "tokenization", "inference", "total"):
        assert answer.headers[f"x-{name}-time"].isdigit()
    for odd in ("a b", "x" * 129, "<script>", ""):
        given = client.get("/health", headers={"x-request-id": odd}).headers["x-request-id"]
        assert given != odd and len(given) == 32


def test_a_request_is_one_line_without_its_text(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "manylens.serving")
    client.post("/rerank?key=whisper", json={"query": "whisper", "texts": ["whisper"]}, headers={"x-request-id": "7"})
    client.post("/whisper")
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name.startswith("manyl")]
    assert [line.pop("level") for line in lines] == ["info", "info"] and "whisper" not in str(lines)
    scored, unknown = lines
    assert set(scored) - set(unknown) == {"model", "pairs", "queue_ms", "tokenization_ms", "inference_ms"}
    assert {name: scored[name] for name in ("message", "id", "method", "path", "status", "model", "pairs")} == {
        "message": "request",
        "id": "7",
        "method": "POST",
        "path": "/rerank",
        "status": 200,
        "model": "tiny",
        "pairs": 1,
    }
    assert (unknown["path"], unknown["status"]) == ("none", 404)
    assert 0 < scored["inference_ms"] <= scored["total_ms"]


def test_metrics_count_without_naming_what_users_sent(serve: Serve) -> None:
    client = serve()
    client.post("/rerank", json={"query": "whisper", "texts": ["a", "b"], "model": "whisper"})
    client.post("/rerank", json={"query": "a"})
    client.get("/whisper")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for line in (
        'manylens_requests_total{model="tiny",route="/rerank",status="200"} 1.0',
        'manylens_requests_total{model="none",route="/rerank",status="422"} 1.0',
        'manylens_requests_total{model="none",route="none",status="404"} 1.0',
        'manylens_pairs_total{model="tiny"} 2.0',
        'manylens_queue_pairs{model="tiny"} 0.0',
        'manylens_request_seconds_count{route="/rerank"} 2.0',
        'manylens_stage_seconds_count{model="tiny",stage="inference"} 1.0',
        "manylens_requests_in_flight 1.0",
    ):
        assert line in lines
    assert "whisper" not in answer.text


def test_info_has_the_fields_of_text_embeddings_inference(client: TestClient) -> None:
    info = client.get("/info").json()
    labels = ["exact", "substitute", "complement", "irrelevant"]
    assert info["model_type"] == {
        "reranker": {
            "id2label": {str(place): label for place, label in enumerate(labels)},
            "label2id": {label: place for place, label in enumerate(labels)},
        }
    }
    assert (info["model_id"], info["model_dtype"], info["max_input_length"]) == ("tiny", "fp32", 48)
    assert (info["max_concurrent_requests"], info["max_client_batch_size"], info["auto_truncate"]) == (16, 50, True)
    (model,) = info["models"]
    assert (model["labels"], model["gains"], model["variant"]) == (labels, [1.0, 0.1, 0.01, 0.0], "onnx_fp32")


def test_a_fault_of_ours_is_500_without_a_word(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    monkeypatch.setattr("manylens.serving.scorer.Scorer.expected_gains", lambda scorer, table: 1 / 0)
    caplog.set_level(logging.INFO, "manylens.serving")
    answer = client.post("/rerank", json=BODY, headers={"x-request-id": "7"})
    assert seen(answer) == error(500, "the server failed; its log says why", "Internal")
    assert answer.headers["x-request-id"] == "7"
    fault, line = [json.loads(JsonFormatter().format(record)) for record in caplog.records[-2:]]
    assert (fault["id"], line["status"]) == ("7", 500) and "ZeroDivisionError" in fault["traceback"]


# Overload, deadlines, clients that go away


@pytest.fixture
def engine() -> Iterator[SlowEngine]:
    engine = SlowEngine()
    yield engine
    engine.release(1000)


Make = Callable[..., FastAPI]


@pytest.fixture
def make(exported: Path, engine: SlowEngine) -> Make:
    def build(**changes: Any) -> FastAPI:  # noqa: ANN401 - any setting
        engine.release()
        app = create_app(make_settings(exported, **changes), load=lambda path: slow_scorer(exported, engine))
        engine.batches.clear()
        engine._began.get()
        return app

    return build


def asking(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", timeout=30)


def test_a_full_queue_is_429_with_retry_after(make: Make, engine: SlowEngine) -> None:
    async def run() -> None:
        async with asking(make(max_queue_pairs=5)) as client:
            first = asyncio.create_task(client.post("/rerank", json={"query": "red", "texts": ["hat"] * 5}))
            await engine.began()
            refused = await client.post("/rerank", json=BODY)
            assert seen(refused) == error(429, "5 pairs wait already; send it again in 1 s", "Overloaded")
            assert refused.headers["retry-after"] == "1"
            engine.release(10)
            assert (await first).status_code == 200
            assert (await client.post("/rerank", json=BODY)).status_code == 200

    asyncio.run(run())


def test_too_many_requests_are_429_but_the_probes_answer(make: Make, engine: SlowEngine) -> None:
    async def run() -> None:
        async with asking(make(max_requests=2)) as client:
            tasks = [asyncio.create_task(client.post("/rerank", json=BODY)) for _ in range(2)]
            await engine.began()
            await asyncio.sleep(0)
            refused = await client.post("/rerank", json=BODY)
            assert seen(refused) == error(429, "the server has as many requests as it takes", "Overloaded")
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/health")).status_code == (await client.get("/ready")).status_code == 200
            engine.release(10)
            assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200, 200]

    asyncio.run(run())


def test_what_is_late_is_504(make: Make, engine: SlowEngine) -> None:
    async def run() -> None:
        async with asking(make(timeout=0.2)) as client:
            late = await client.post("/rerank", json=BODY)
            assert seen(late) == error(504, "the scores were not there within 200 ms", "Timeout")
            late = await client.post("/rerank", json=BODY, headers={"x-timeout-ms": "20"})
            assert seen(late) == error(504, "the scores were not there within 20 ms", "Timeout")
            for odd in ("0", "-1", "1.5", "soon", "\u00b2".encode()):
                answer = await client.post("/rerank", json=BODY, headers={"x-timeout-ms": odd})
                assert answer.status_code == 422, odd
            engine.release(10)
            answer = await client.post("/rerank", json=BODY, headers={"x-timeout-ms": "9" * 30})
            assert answer.status_code == 200

    asyncio.run(run())


def test_an_engine_that_fails_is_424_and_the_log_says_why(
    make: Make, engine: SlowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.release(10)
    app = make()
    engine.failure = RuntimeError("no memory")

    async def run() -> None:
        async with asking(app) as client:
            answer = await client.post("/rerank", json=BODY)
            assert seen(answer) == error(424, "the engine failed; the server's log says why", "Backend")

    asyncio.run(run())
    assert "no memory" in caplog.text


def scope(path: str = "/rerank") -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
    }


Message = MutableMapping[str, Any]


def test_a_client_that_goes_away_takes_its_pairs_with_it(
    make: Make, engine: SlowEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "manylens.serving")
    app = make()

    async def run() -> None:
        gone, sent = asyncio.Event(), []
        messages: list[Message] = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        task = asyncio.create_task(app(scope(), receive, send))
        await engine.began()
        gone.set()
        await task
        batcher = app.state.models.default.batcher
        assert sent == [] and batcher.pairs == 0 and not task.cancelled()

    asyncio.run(run())
    assert caplog.records[-1].fields["status"] == 499  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", [[], [{"type": "http.request", "body": b'{"query', "more_body": True}]], ids=len)
def test_a_body_that_does_not_come_is_408(make: Make, first: list[Message]) -> None:
    app, sent = make(body_timeout=0.05), []
    messages = list(first)

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    serve: Callable[..., Awaitable[None]] = app
    asyncio.run(asyncio.wait_for(serve(scope(), receive, send), 20))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"]) == {"error": "the body was not there within 0.05 s", "error_type": "Timeout"}


def test_a_server_that_is_about_to_end_is_not_ready(serve: Serve) -> None:
    client = serve()
    client.app.state.readiness.ready = False  # type: ignore[attr-defined]
    assert seen(client.get("/ready")) == error(503, "the server is about to end", "Unhealthy")
    assert client.get("/health").status_code == client.post("/rerank", json=BODY).status_code == 200
