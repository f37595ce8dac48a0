"""Real servers for real clients, which may reach nothing else."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.http.test_server import Server

KEY = "secret"
MAX_TEXTS = 6
PAGE = (Path(__file__).parents[4] / "docs/server.md").read_text(encoding="utf-8")
#: The code blocks of the section Clients: the first has what the others rank.
GIVEN, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.partition("\n## Clients\n")[2], flags=re.DOTALL)


def block(words: str) -> str:
    """Return the one code block that has some words."""
    (found,) = (block for block in BLOCKS if words in block)
    return found


def given() -> dict[str, Any]:
    """Return the query and the products of the page."""
    names: dict[str, Any] = {}
    exec(GIVEN, names)
    return {name: names[name] for name in ("query", "products")}


@pytest.fixture(scope="session")
def servers(exported: Path) -> Iterator[dict[str, str]]:
    """Addresses of two servers: ``open``, and ``locked`` with a key."""
    common = {"MANYLENS_VARIANT": "onnx_fp32", "MANYLENS_MAX_TEXTS": str(MAX_TEXTS)}
    running: dict[str, Server] = {}
    try:
        for name, key in (("open", ""), ("locked", KEY)):
            running[name] = Server(f"shop={exported}", **common, MANYLENS_API_KEY=key)
        yield {name: server.url for name, server in running.items()}
    finally:
        for server in running.values():
            server.end()


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See that no client asks for another host; telemetry would."""
    asked: set[Any] = set()
    resolve = socket.getaddrinfo

    def watched(host: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as socket has it
        host = host.decode() if isinstance(host, bytes) else host
        asked.add(host)
        if host != "127.0.0.1":
            raise OSError(f"{host} is not this machine")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    yield
    assert asked <= {"127.0.0.1"}
