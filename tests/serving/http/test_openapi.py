"""The OpenAPI document is held against the server with whatever schemathesis makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from manylens.serving.http.app import create_app
from serving.http.conftest import make_settings

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def document(exported: Path) -> Iterator[Any]:
    """The document of a server that listens."""
    server = uvicorn.Server(uvicorn.Config(create_app(make_settings(exported)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield schemathesis.openapi.from_url(f"http://{host}:{port}/openapi.json")
    server.should_exit = True
    thread.join(20)


@pytest.mark.parametrize("mode", GenerationMode)
def test_the_server_keeps_to_its_document(document: Any, mode: GenerationMode) -> None:  # noqa: ANN401
    for found in document.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # a route without a parameter cannot be asked wrongly

        @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case: Any) -> None:  # noqa: ANN401 - a case of schemathesis
            case.call_and_validate(checks=CHECKS)

        keeps()


def test_the_document_has_every_route_and_every_refusal(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    scoring, about = (
        {"/rerank", "/v1/rerank", "/v2/rerank", "/predict", "/explain"},
        {"/health", "/ready", "/info", "/metrics", "/v1/models"},
    )
    assert set(paths) == scoring | about
    for path in scoring:
        statuses = set(paths[path]["post"]["responses"])
        assert statuses == {"200", *map(str, (401, 404, 408, 413, 415, 422, 424, 429, 500, 504))}
        for status, answer in paths[path]["post"]["responses"].items():
            if status != "200":
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
    assert client.get("/docs").status_code == 200
