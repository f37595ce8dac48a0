"""Spans of the real server, as a receiver of OTLP gets them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from .test_server import Start, start

__all__ = ["start"]
TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRETS = ("zuckerwatte", "lakritze", "geheim", "anfrage", "kennung", "gulasch", "besteck")


class Collector:
    """A receiver of OTLP over HTTP.

    Attributes:
        bodies: What came.
        url: Where it listens.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._news = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                with collector._news:
                    collector.bodies.append(body)
                    collector._news.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def resources(self) -> list[dict[str, Any]]:
        return [values(each.resource.attributes) for body in self.bodies for each in parsed(body)]

    @property
    def spans(self) -> list[Any]:
        return [
            span for body in self.bodies for each in parsed(body) for scope in each.scope_spans for span in scope.spans
        ]

    def wait(self, enough: Callable[[list[Any]], bool]) -> list[Any]:
        with self._news:
            assert self._news.wait_for(lambda: enough(self.spans), 20), self.spans
            return self.spans

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


def parsed(body: bytes) -> Any:  # noqa: ANN401 - a message's list
    return ExportTraceServiceRequest.FromString(body).resource_spans


def values(attributes: Any) -> dict[str, Any]:  # noqa: ANN401 - a message's list
    def value(any_value: AnyValue) -> Any:  # noqa: ANN401
        return getattr(any_value, any_value.WhichOneof("value"))

    return {each.key: value(each.value) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def settings_of(url: str, **more: str) -> dict[str, str]:
    return {
        "MANYLENS_OTEL": "1",
        "MANYLENS_VARIANT": "onnx_fp32",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",  # FastAPI's own spans, which have the URL's query.
        "NO_PROXY": "*",
        **more,
    }


def test_a_request_is_a_span_with_its_stages_and_without_its_words(
    exported: Path, start: Start, collector: Collector
) -> None:
    server = start(
        f"shop={exported}", **settings_of(collector.url, OTEL_BSP_SCHEDULE_DELAY="50", MANYLENS_API_KEY=SECRETS[2])
    )
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {SECRETS[2]}"}) as client:
        body = {"query": SECRETS[0], "texts": [SECRETS[1], "hat"]}
        headers = {
            "traceparent": f"00-{TRACE_ID}-{PARENT}-01",
            "x-request-id": "mine",
            "user-agent": SECRETS[4],
            "baggage": f"a={SECRETS[5]}",
        }
        assert client.post(f"/rerank?q={SECRETS[3]}", json=body, headers=headers).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get(f"/{SECRETS[6]}").status_code == 404
        assert client.post("/rerank", content=SECRETS[0]).status_code == 422
        unsampled = {"traceparent": f"00-{TRACE_ID[::-1]}-{PARENT}-00"}
        assert client.post("/rerank", json=body, headers=unsampled).status_code == 200
    spans = collector.wait(lambda spans: len(spans) >= 6)
    by_name = {span.name: span for span in spans if span.trace_id.hex() == TRACE_ID}
    assert set(by_name) == {"POST /rerank", "tokenise", "queue", "inference"}
    root = by_name["POST /rerank"]
    assert (root.parent_span_id.hex(), root.kind) == (PARENT, root.SPAN_KIND_SERVER)
    told = values(root.attributes)
    tokens = told.pop("manylens.tokens")
    assert tokens > 6 and told.pop("server.port") == int(server.url.rpartition(":")[2])
    assert told == {
        "http.request.method": "POST",
        "http.route": "/rerank",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "manylens.model": "shop",
        "manylens.pairs": 2,
    }
    stages = [by_name[name] for name in ("tokenise", "queue", "inference")]
    times = [root.start_time_unix_nano]
    for stage in stages:
        assert stage.parent_span_id == root.span_id and values(stage.attributes)["manylens.pairs"] == 2
        times += [stage.start_time_unix_nano, stage.end_time_unix_nano]
    times.append(root.end_time_unix_nano)
    assert times == sorted(times) and abs(times[0] / 1e9 - time.time()) < 60
    assert values(stages[2].attributes)["manylens.tokens"] == tokens
    others = [span for span in spans if span.trace_id.hex() != TRACE_ID]
    assert [(span.name, values(span.attributes)["http.response.status_code"]) for span in others] == [
        ("GET", 404),
        ("POST /rerank", 422),
    ]
    (resource,) = {json.dumps(each, sort_keys=True) for each in collector.resources}
    assert json.loads(resource)["service.name"] == "manylens"
    assert not [word for word in SECRETS for body in collector.bodies if word.encode() in body]
    line = server.logged(lambda line: line.get("id") == "mine")
    assert line["trace_id"] == TRACE_ID and line["path"] == "/rerank"


def test_the_last_spans_leave_at_the_end(exported: Path, start: Start, collector: Collector) -> None:
    environment = settings_of(
        collector.url, OTEL_BSP_SCHEDULE_DELAY="60000", OTEL_SERVICE_NAME="search", OTEL_TRACES_SAMPLER="always_on"
    )
    server = start(f"shop={exported}", **environment)
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT}-00"}
    body = {"query": "red", "products": ["hat"]}
    assert httpx.post(f"{server.url}/predict", json=body, headers=headers).status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == -signal.SIGTERM
    assert {span.name for span in collector.spans} == {"POST /predict", "tokenise", "queue", "inference"}
    assert [each["service.name"] for each in collector.resources] == ["search"]


@pytest.mark.parametrize("there", ["nobody", "one that never answers"])
def test_a_collector_that_does_not_answer_costs_no_request_and_no_end(exported: Path, start: Start, there: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if there == "nobody":
            silent.close()
        server = start(f"shop={exported}", **settings_of(f"http://127.0.0.1:{port}", OTEL_BSP_SCHEDULE_DELAY="20"))
        with httpx.Client(base_url=server.url) as client:
            slowest = 0.0
            for _ in range(50):
                began = time.perf_counter()
                assert client.post("/rerank", json={"query": "red", "texts": ["hat"]}).status_code == 200
                slowest = max(slowest, time.perf_counter() - began)
        assert slowest < 3, "the exporter's own time-out is 10 s"
        server.process.send_signal(signal.SIGTERM)
        began = time.perf_counter()
        assert server.process.wait(20) == -signal.SIGTERM
        assert time.perf_counter() - began < 7
        if there != "nobody":
            assert server.logged(lambda line: line["message"].startswith("the last spans could not be sent"))


def test_without_the_extra_the_command_says_how(exported: Path) -> None:
    block = "import sys; sys.modules['opentelemetry.sdk'] = None"
    script = f"{block}\nfrom manylens.cli import app; app(['serve', {str(exported)!r}, '--otel'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "error opentelemetry is not installed; run: pip install 'manylens[otel]'\n"
