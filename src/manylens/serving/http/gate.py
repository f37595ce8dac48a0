"""What every request passes: its id, the key, the limits, the clock, and the line in the log."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manylens.serving.http.errors import RequestError
from manylens.serving.http.logs import Trace, event
from manylens.serving.http.metrics import Metrics
from manylens.serving.http.page import is_page
from manylens.serving.http.settings import Settings

_LOG = logging.getLogger(__name__)
#: What needs no key, and counts against no limit.
OPEN = ("/health", "/ready")
#: An id of a client's own that is taken over.
_ID = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)
#: How many times the most bytes of a body are read and thrown away, so that the client gets to read why.
_DISCARDED = 4
#: The status in the log where the client went away.
_GONE = 499
#: Where the scope keeps the request's `Trace`.
TRACE = "manylens.trace"
#: Where it keeps the id of OpenTelemetry's trace, if there is one.
TRACE_ID = "manylens.trace_id"


class Gate:
    """An ASGI application around the server's own."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        """Take the application to guard."""
        self._app, self._settings, self._metrics = app, settings, metrics
        self._key = settings.api_key.encode() if settings.api_key else None
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, headers = perf_counter(), Headers(scope=scope)
        trace = scope[TRACE] = Trace(id=_request_id(headers), trace_id=scope.get(TRACE_ID, ""))
        status = _GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _stamp(MutableHeaders(scope=message), trace, perf_counter() - began)
            await send(message)

        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            try:
                self._check(scope["path"], headers)
                body = await self._body(scope["method"], headers, receive)
            except RequestError as refused:
                await refused.response()(scope, receive, answer)
                return
            if body is not None:
                await self._serve(scope, body, receive, answer)
        except Exception:
            _LOG.exception("fault", extra={"fields": trace.ids})
            if status != _GONE:
                raise
            fault = RequestError(500, "the server failed; its log says why")
            await fault.response()(scope, receive, answer)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.dec()
            self._note(scope, trace, status, perf_counter() - began)

    def _check(self, path: str, headers: Headers) -> None:
        if path in OPEN:
            return
        if self._key is not None and not is_page(path):
            given = headers.get("authorization", "")
            scheme, _, token = given.partition(" ")
            sent = token.strip() if scheme.lower() == "bearer" else given
            if not hmac.compare_digest(sent.encode(), self._key):
                raise RequestError(
                    401,
                    "expected the header Authorization: Bearer KEY with the server's key",
                    {"WWW-Authenticate": "Bearer", "Connection": "close"},
                )
        if self._in_flight > self._settings.max_requests:
            raise RequestError(
                429, "the server has as many requests as it takes", {"Retry-After": "1", "Connection": "close"}
            )

    async def _body(self, method: str, headers: Headers, receive: Receive) -> bytes | None:
        """Return the whole body, or nothing where the client went away."""
        if method in ("GET", "HEAD", "OPTIONS"):
            return b""
        most = self._settings.max_body_bytes
        announced = headers.get("content-length", "")
        if (
            announced.isdigit()
            and int(announced) > most
            and ("expect" in headers or int(announced) > _DISCARDED * most)
        ):
            raise _too_large(most)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                while size <= _DISCARDED * most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= most:
                        chunks.append(chunk)
                    else:
                        chunks.clear()
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise RequestError(
                408,
                f"the body was not there within {self._settings.body_timeout:g} s",
                {"Connection": "close"},
            ) from None
        if size > most:
            raise _too_large(most)
        return b"".join(chunks)

    async def _serve(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application, and end it where the client goes away."""
        gone = False
        task = asyncio.current_task()
        assert task is not None

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            task.cancel()

        watcher = asyncio.create_task(watch())
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                await asyncio.shield(watcher)
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def last(message: Message) -> None:
            # After the answer a closed connection is no reason to cancel anything.
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                watcher.cancel()
            await send(message)

        try:
            await self._app(scope, replay, last)
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
        finally:
            watcher.cancel()

    def _note(self, scope: Scope, trace: Trace, status: int, seconds: float) -> None:
        """Count the request, and write its line."""
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(route, status, trace.model or "none").inc()
        self._metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if scope["path"] in OPEN else logging.INFO
        if not _LOG.isEnabledFor(level):
            return
        fields: dict[str, Any] = {**trace.ids, "method": scope["method"], "path": route, "status": status}
        if trace.pairs:
            fields |= {"model": trace.model, "pairs": trace.pairs} | {
                f"{name}_ms": round(1000 * value, 2)
                for name, value in (
                    ("queue", trace.queue),
                    ("tokenization", trace.tokenisation),
                    ("inference", trace.inference),
                )
            }
        event(_LOG, level, "request", **fields, total_ms=round(1000 * seconds, 2))


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else uuid4().hex


def _stamp(headers: MutableHeaders, trace: Trace, seconds: float) -> None:
    headers["x-request-id"] = trace.id
    headers["x-total-time"] = str(round(1000 * seconds))
    if trace.pairs:
        headers["x-queue-time"] = str(round(1000 * trace.queue))
        headers["x-tokenization-time"] = str(round(1000 * trace.tokenisation))
        headers["x-inference-time"] = str(round(1000 * trace.inference))


def _too_large(most: int) -> RequestError:
    return RequestError(
        413, f"expected a body of at most {most} bytes; send fewer or shorter texts", {"Connection": "close"}
    )
