"""The process that serves: uvicorn, its signals, and a deadline for headers."""

from __future__ import annotations

import asyncio
import logging.config
import signal
from asyncio import TimerHandle
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import disable_created_metrics
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manylens.serving.http.app import create_app
from manylens.serving.http.logs import log_config
from manylens.serving.http.settings import Settings

#: Most bytes of a request before its headers are whole.
_MAX_HEADER_BYTES = 65_536


def serve(settings: Settings, *, log_level: str) -> None:
    """Load the models and serve them until SIGTERM or SIGINT; SIGHUP loads them anew.

    Args:
        settings: What the operator decided.
        log_level: The least level that is logged.

    Raises:
        ManylensError: If a model cannot be loaded.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    logging.config.dictConfig(log_config(log_level))
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_protocol(settings.header_timeout),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.drain,
    )
    _Server(config, app, settings.drain_delay).run()


class _Server(uvicorn.Server):
    """Ends in order, and loads its models anew on SIGHUP."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_delay: float) -> None:
        super().__init__(config)
        self._app, self._drain_delay = app, drain_delay
        self._reloads: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[Any] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        readiness = self._app.state.readiness
        if readiness.ready and self._drain_delay and self._loop is not None:
            self._captured_signals.append(sig)
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_delay, self._end)
        else:
            super().handle_exit(sig, frame)
        readiness.ready = False

    def _end(self) -> None:
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._app.state.models.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)


def _protocol(header_timeout: float) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with a deadline and a limit for headers, which it has not."""

    class Protocol(HttpToolsProtocol):
        _due: TimerHandle | None = None
        _header_bytes = 0

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as uvicorn has it
            super().connection_made(transport)
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._due is not None:
                self._header_bytes += len(data)
            super().data_received(data)
            if self._due is not None and self._header_bytes > _MAX_HEADER_BYTES:
                self.transport.close()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._due is None:
                self._start()

        def on_headers_complete(self) -> None:
            self._stop()
            super().on_headers_complete()

        def _start(self) -> None:
            self._due, self._header_bytes = self.loop.call_later(header_timeout, self.transport.close), 0

        def _stop(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

    return Protocol
