"""The server as a process of its own: its start, its signals, and clients that are slow on purpose."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manylens.serving.layout import CARD, CLASSES

BODY = {"query": "red", "texts": ["hat", "shoe"]}
HEAVY = ("torch", "transformers", "openvino", "sklearn", "scipy", "datasets", "pyarrow")
#: FastAPI brings and imports the interface of OpenTelemetry, but nothing that does anything.
UNASKED = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.semconv", "manylens.serving.http.tracing")


class Server:
    """A running `manylens serve`.

    Attributes:
        process: The process.
        lines: What it logged so far.
        url: Where it listens.
    """

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        command = [sys.executable, "-c", "from manylens.cli import app; app()", "serve", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "MANYLENS_PORT": "0"} | environment
        )
        self.lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        running = self.logged(lambda line: "running on" in line["message"])
        self.url = re.findall(r"http://[\w.:]+", running["message"])[0]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(json.loads(line))
                self._news.notify_all()

    def logged(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a line of the log."""
        with self._news:
            assert self._news.wait_for(lambda: any(map(wanted, self.lines)), 30), self.lines
            return next(filter(wanted, self.lines))

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def end(self) -> int:
        """Kill it where it still runs."""
        self.process.kill()
        code = self.process.wait(20)
        self._reader.join(20)
        return code


Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Server] = []

    def run(*arguments: str | Path, **environment: str) -> Server:
        servers.append(Server(*arguments, **environment))
        return servers[-1]

    yield run
    for server in servers:
        server.end()


def request(body: bytes, length: int | None = None) -> bytes:
    return (
        f"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
        f"{len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_nothing_heavy_is_imported(exported: Path) -> None:
    # The fixtures of the tests import torch, so the settings are built here.
    script = f"""
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from manylens.cli import serve
from manylens.serving.http import server
from manylens.serving.http.app import create_app
from manylens.serving.http.settings import Settings
settings = Settings(
    models={{"tiny": Path({str(exported)!r})}}, host="", port=0, variant="onnx_int8", threads=1, batch_tokens=None,
    cache_products=0, any_model=None, api_key=None, page=True, max_requests=9, max_queue_pairs=9, max_body_bytes=999,
    max_texts=9, max_text_chars=99, timeout=9, body_timeout=9, header_timeout=9, keep_alive=9, drain_delay=0, drain=9,
)
with TestClient(create_app(settings)) as client:
    assert client.post("/rerank", json={BODY!r}).status_code == 200
print([name for name in {HEAVY + UNASKED!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_first_requests_and_slow_clients(exported: Path, start: Start) -> None:
    server = start(
        f"shop={exported}",
        "--max-body-bytes",
        "1000",
        MANYLENS_API_KEY="secret",
        MANYLENS_HEADER_TIMEOUT_MS="300",
        MANYLENS_BODY_TIMEOUT_MS="300",
        MANYLENS_KEEP_ALIVE_S="1",
    )
    with httpx.Client(base_url=server.url, headers={"authorization": "Bearer secret"}) as client:
        answer = client.post("/rerank", json=BODY)
        assert (answer.status_code, len(answer.json())) == (200, 2)
        assert "server" not in answer.headers
        # Streamed without a length, and far above the limit: the answer arrives all the same.
        answer = client.post("/rerank", content=(b" " * 500 for _ in range(6)))
        assert answer.status_code == 413
        answer = client.post("/rerank", content=b" " * 3000)
        assert (answer.status_code, answer.json()["error_type"]) == (413, "Validation")
    with httpx.Client(base_url=server.url) as stranger:
        assert stranger.post("/rerank", json=BODY).status_code == 401
        assert stranger.get("/ready").status_code == 200

    with server.connect() as connection:
        assert read_all(connection) == b"", "a connection that says nothing is closed"
    with server.connect() as connection:
        connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: a\r\nX-")
        assert read_all(connection) == b"", "headers that do not end"
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nX-")
        assert read_all(connection).count(b"200 OK") == 1, "nor the second time"
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Long: " + b"a" * 70_000)
        assert read_all(connection) == b"", "headers that are too long"
    with server.connect() as connection:
        connection.sendall(
            request(b'{"que', 900).replace(b"Host: a", b"Host: a\r\nAuthorization: secret\r\nX-Request-Id: slow")
        )
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")
    assert server.logged(lambda line: line.get("id") == "slow")["status"] == 408
    with server.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_sigterm_ends_what_was_accepted_and_then_the_server(exported: Path, start: Start) -> None:
    server = start("--drain-delay-s", "0.5", MANYLENS_MODELS=f"shop={exported} other={exported}")
    names = [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]]
    assert names == ["shop", "other"]
    assert [line["model"] for line in server.lines if line["message"] == "loaded"] == ["shop"]
    body = json.dumps(BODY).encode()
    with server.connect() as connection:
        connection.sendall(request(body[:10], len(body)))
        assert httpx.get(f"{server.url}/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        while httpx.get(f"{server.url}/ready").status_code == 200:
            pass
        assert httpx.post(f"{server.url}/rerank", json=BODY).status_code == 200, "it still serves who comes late"
        server.logged(lambda line: line["message"] == "Shutting down")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
        connection.sendall(body[10:])
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"}]")
    assert server.process.wait(20) == -signal.SIGTERM


def test_sigterm_does_not_wait_for_ever(exported: Path, start: Start) -> None:
    server = start(exported, "--drain-s", "1")
    with server.connect() as connection:
        connection.sendall(request(b"{", 100))
        httpx.get(f"{server.url}/health")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(8) == -signal.SIGTERM


def test_sighup_loads_the_models_anew_without_losing_a_request(exported: Path, start: Start, tmp_path: Path) -> None:
    for name in ("one", "two", "damaged"):
        shutil.copytree(exported, tmp_path / name)
    card = json.loads((tmp_path / "two" / CLASSES / CARD).read_text())
    (tmp_path / "two" / CLASSES / CARD).write_text(json.dumps({**card, "labels": ["a", "b", "c", "d"]}))
    (tmp_path / "damaged" / CLASSES / "onnx" / "model.onnx").write_bytes(b"no graph")
    link = tmp_path / "live"
    link.symlink_to("one")
    server = start(f"shop={link}", MANYLENS_VARIANT="onnx_fp32")
    statuses: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url) as client:
            while not ended.is_set():
                statuses.append(client.post("/rerank", json=BODY).status_code)

    def switch(target: str, said: str) -> dict[str, Any]:
        (tmp_path / "next").symlink_to(target)
        (tmp_path / "next").replace(link)
        server.process.send_signal(signal.SIGHUP)
        return server.logged(lambda line: line["message"].startswith(said))

    def labels() -> list[str]:
        labels: list[str] = httpx.get(f"{server.url}/info").json()["models"][0]["labels"]
        return labels

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        assert labels()[0] == "exact"
        assert switch("two", "reloaded")["model"] == "shop"
        assert labels() == ["a", "b", "c", "d"]
        assert "cannot be loaded" in switch("damaged", "reload failed")["reason"]
        assert labels() == ["a", "b", "c", "d"]
    finally:
        ended.set()
        for client in clients:
            client.join(20)
    assert len(statuses) > 10 and set(statuses) == {200}
    metrics = httpx.get(f"{server.url}/metrics").text.splitlines()
    for result in ("loaded", "failed"):
        assert f'manylens_reloads_total{{model="shop",result="{result}"}} 1.0' in metrics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-folder"], "which is no folder"),
        (["a=x", "a=y"], "two models are called 'a'"),
        (["=x"], "a model is PATH or NAME=PATH, got '=x'"),
        (["a=x", "b=y", "--states", "z"], "NAME=PATH where there are several, got 'z' for a, b"),
        (["a=x", "--states", "b=z"], "unknown model 'b'"),
        (["x", "--log-level", "loud"], "unknown log level 'loud'"),
    ],
)
def test_a_command_that_is_wrong_says_how(arguments: list[str], message: str) -> None:
    from typer.testing import CliRunner

    from manylens.cli import app

    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == 1 and message in " ".join(done.output.split()), done.output
