"""OpenTelemetry spans of requests, without a word of what users sent; nothing else here imports OpenTelemetry.

The spans' attributes are written here, and not by FastAPI or OpenTelemetry's instrumentation of ASGI, because these
take over the URL's path and query, and the client's own words in headers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from threading import Thread
from time import perf_counter, time_ns

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.semconv.attributes import service_attributes as service
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.util.types import AttributeValue
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manylens._version import __version__
from manylens.serving.http.gate import OPEN, TRACE, TRACE_ID
from manylens.serving.http.logs import Trace, event

_LOG = logging.getLogger(__name__)
#: Seconds in which the last spans may leave; a collector that does not answer must not hold up the end.
_FLUSH = 3.0
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE")
#: How OpenTelemetry calls a service that has no name.
_NAMELESS = "unknown_service"


class Spans:
    """Makes spans, and sends them from a thread of its own; what it cannot send in time is dropped.

    Attributes:
        tracer: Makes them.
    """

    def __init__(self) -> None:
        """Take the settings from the standard variables ``OTEL_*``."""
        found = Resource.create()
        if str(found.attributes[service.SERVICE_NAME]).startswith(_NAMELESS):
            found = found.merge(Resource({service.SERVICE_NAME: "manylens"}))
        resource = Resource({service.SERVICE_VERSION: __version__}).merge(found)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("manylens", __version__)

    async def close(self) -> None:
        """Send what is left, within a few seconds."""
        # A daemon, which the end of the process does not wait for.
        thread = Thread(target=self._provider.shutdown, name="spans", daemon=True)
        thread.start()
        until = perf_counter() + _FLUSH
        while thread.is_alive() and perf_counter() < until:
            await asyncio.sleep(0.01)
        if thread.is_alive():
            event(_LOG, logging.WARNING, "the last spans could not be sent in time; is the collector there?")


class Tracing:
    """An ASGI application around the gate, with a span for every request but those of probes."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        """Take the application.

        Args:
            app: The application, which leaves a `Trace` in the scope.
            tracer: Makes the spans.
        """
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        span = self._tracer.start_span(
            "HTTP" if method == "_OTHER" else method,
            extract(_headers(scope)),
            kind=SpanKind.SERVER,
            attributes=_request(scope, method),
        )
        zero = time_ns() - int(perf_counter() * 1e9)
        if (context := span.get_span_context()).is_valid:  # Not so where OTEL_SDK_DISABLED says it.
            scope[TRACE_ID] = format_trace_id(context.trace_id)
        status: int | None = None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            if span.is_recording():
                self._tell(span, scope, method, status, zero)
            span.end()

    def _tell(self, span: Span, scope: Scope, method: str, status: int | None, zero: int) -> None:
        """Write down how a request ended, and what its scoring took.

        Args:
            span: The request's.
            scope: Has its route and its `Trace`.
            method: A known one, or ``_OTHER``.
            status: Of the answer; ``None`` where the client went away before.
            zero: Nanoseconds since 1970 where `perf_counter` is 0.
        """
        route = getattr(scope.get("route"), "path", None)
        if route is not None:
            span.update_name(f"{'HTTP' if method == '_OTHER' else method} {route}")
            span.set_attribute(http_attributes.HTTP_ROUTE, route)
        if status is None:
            span.set_attribute(error_attributes.ERROR_TYPE, "client_disconnected")
        else:
            span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
            if status >= 500:
                span.set_attribute(error_attributes.ERROR_TYPE, str(status))
                span.set_status(StatusCode.ERROR)
        trace: Trace | None = scope.get(TRACE)
        if trace is None or not trace.pairs:
            return
        work = {"manylens.pairs": trace.pairs, "manylens.tokens": trace.tokens}
        span.set_attributes({"manylens.model": trace.model, **work})
        began, encoded, started, ended = (zero + int(1e9 * mark) for mark in trace.marks)
        within = set_span_in_context(span)
        stages: tuple[tuple[str, int, int, Mapping[str, AttributeValue]], ...] = (
            ("tokenise", began, encoded, {**work, "manylens.busy_seconds": trace.tokenisation}),
            ("queue", encoded, max(encoded, started), {"manylens.pairs": trace.pairs}),
            ("inference", max(encoded, started), ended, work),
        )
        for name, start, end, attributes in stages:
            self._tracer.start_span(name, within, attributes=attributes, start_time=start).end(end)


def _request(scope: Scope, method: str) -> dict[str, AttributeValue]:
    """Return what is known of a request beforehand; its path is not among it, which may be any text."""
    attributes: dict[str, AttributeValue] = {
        http_attributes.HTTP_REQUEST_METHOD: method,
        url_attributes.URL_SCHEME: scope["scheme"],
        network_attributes.NETWORK_PROTOCOL_VERSION: scope["http_version"],
    }
    if scope.get("server"):
        host, port = scope["server"]
        attributes[server_attributes.SERVER_ADDRESS] = host
        if port is not None:
            attributes[server_attributes.SERVER_PORT] = port
    return attributes


def _headers(scope: Scope) -> dict[str, str]:
    """Return the headers that propagators read, such as ``traceparent``."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
