"""Settings and applications for the server's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from manylens.serving import Scorer
from manylens.serving.http.app import create_app
from manylens.serving.http.settings import Settings

_SETTINGS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 0,
    "variant": "onnx_fp32",
    "threads": 2,
    "batch_tokens": None,
    "cache_products": 100,
    "any_model": None,
    "api_key": None,
    "page": True,
    "max_requests": 16,
    "max_queue_pairs": 200,
    "max_body_bytes": 200_000,
    "max_texts": 50,
    "max_text_chars": 60_000,
    "timeout": 30.0,
    "body_timeout": 5.0,
    "header_timeout": 5.0,
    "keep_alive": 5,
    "drain_delay": 0.0,
    "drain": 5,
}
Serve = Callable[..., TestClient]


def make_settings(*folders: Path, **changes: Any) -> Settings:  # noqa: ANN401 - any setting
    """Return settings with small limits; folders are called tiny, tiny2 and so on."""
    models = {f"tiny{place or ''}": folder for place, folder in enumerate(folders)}
    return Settings(**({"models": models} | _SETTINGS | changes))


@pytest.fixture(scope="session")
def client(exported: Path) -> Iterator[TestClient]:
    """A client of a server with one model."""
    with TestClient(create_app(make_settings(exported))) as client:
        yield client


@pytest.fixture(scope="session")
def scorer(exported: Path) -> Iterator[Scorer]:
    """The model that the server has."""
    with Scorer.load(exported, variant="onnx_fp32", threads=2) as scorer:
        yield scorer


@pytest.fixture
def serve(exported: Path) -> Iterator[Serve]:
    """Make clients of servers with other settings."""
    opened: list[TestClient] = []

    def start(**changes: Any) -> TestClient:  # noqa: ANN401 - any setting
        client = TestClient(create_app(make_settings(exported, **changes)))
        opened.append(client)
        return client.__enter__()

    yield start
    for client in opened:
        client.__exit__(None, None, None)
