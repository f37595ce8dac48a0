"""HTTP/1.1 as cheap as it gets: a request is bytes that were made before, and of an answer little is looked at.

The load comes from the cores that the servers need, so that a client with more comfort would be measured too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from time import perf_counter
from typing import Any, NamedTuple, cast

from httptools import HttpParserError, HttpResponseParser

HOST = "127.0.0.1"
#: What stands for the status of a request that was not answered: in time, at all, or that was never sent.
TIMEOUT, BROKEN, UNSENT = "timeout", "broken", "unsent"
#: Pause of a client whose connection broke, so that a server that is gone is not hammered.
_PAUSE = 0.01


class Answer(NamedTuple):
    """An answer.

    Attributes:
        status: The status code in digits, or `TIMEOUT`, `BROKEN` or `UNSENT`.
        seconds: Until its last byte was there.
        body: Its body.
    """

    status: str
    seconds: float
    body: bytes = b""


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a request.

    Args:
        path: The path.
        body: The body.
        headers: In place of the content's type, which is JSON.
    """
    given = {"Content-Type": "application/json"} if headers is None else headers
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in given.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def rerank(query: str, products: list[str]) -> bytes:
    """Return the bytes of a request that all servers understand."""
    return post("/rerank", json.dumps({"query": query, "documents": products}).encode())


class _Protocol(asyncio.Protocol):
    """A connection on which one request at a time is answered."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser: Any = HttpResponseParser(self)
        self._body: list[bytes] = []
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.usable = True

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # That of uvloop is none by its classes.

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    def close(self) -> None:
        self.usable = False
        self.transport.close()


class Client:
    """A client with one connection, which is made when it is needed and again when the server closed it."""

    def __init__(self, port: int, timeout: float) -> None:
        """Say where the server listens on this machine, and the longest that an answer may take, in seconds."""
        self._port, self._timeout = port, timeout
        self._protocol: _Protocol | None = None

    async def connect(self) -> None:
        """Make the connection, unless it is there."""
        if self._protocol is None or not self._protocol.usable:
            loop = asyncio.get_running_loop()
            _, self._protocol = await loop.create_connection(_Protocol, HOST, self._port)

    async def ask(self, request: bytes) -> Answer:
        """Send a request, and wait for its answer."""
        began = perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                await self.connect()
                assert self._protocol is not None
                status, body = await self._protocol.send(request)
        except TimeoutError:
            self.close()
            return Answer(TIMEOUT, perf_counter() - began)
        except OSError:
            self.close()
            await asyncio.sleep(_PAUSE)
            return Answer(BROKEN, perf_counter() - began)
        return Answer(str(status), perf_counter() - began, body)

    def close(self) -> None:
        """Close the connection."""
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None
