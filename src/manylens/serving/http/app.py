"""The application: models, routes and the gate, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from manylens._version import __version__
from manylens.errors import MissingExtraError
from manylens.serving.http import errors
from manylens.serving.http.about import Readiness, about_router
from manylens.serving.http.explain import explaining_router
from manylens.serving.http.gate import Gate
from manylens.serving.http.metrics import Metrics
from manylens.serving.http.models import Models
from manylens.serving.http.page import page_router
from manylens.serving.http.routes import scoring_router
from manylens.serving.http.settings import Settings
from manylens.serving.scorer import Scorer

if TYPE_CHECKING:
    from manylens.serving.http.tracing import Spans

#: FastAPI's own spans and logs have the URL's query and what was invalid; `Tracing` has neither. Old ones ignore this.
_NO_TELEMETRY = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)


def create_app(settings: Settings, load: Callable[..., Scorer] | None = None) -> FastAPI:
    """Load the models and return the application that serves them.

    Its ``state`` has ``models`` and ``readiness``.

    Args:
        settings: What the operator decided.
        load: As `Models` takes it.

    Raises:
        ManylensError: If a model cannot be loaded.
        MissingExtraError: If requests are to be traced, and OpenTelemetry is not installed.
    """
    spans = _spans() if settings.otel else None
    metrics = Metrics()
    models, readiness = Models(settings, metrics, load), Readiness()
    metrics.watch_queue(lambda: ((model.name, model.batcher.pairs) for model in models))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()
        if spans is not None:
            await spans.close()

    app = FastAPIOffline(
        title="manylens",
        version=__version__,
        summary="Ranks and classifies products for a query.",
        lifespan=lifespan,
        redoc_url=None,
        strict_content_type=False,
        telemetry=_NO_TELEMETRY,
        exception_handlers={
            errors.RequestError: errors.on_refused,
            RequestValidationError: errors.on_invalid,
            HTTPException: errors.on_http,
        },
    )
    app.state.models, app.state.readiness = models, readiness
    app.include_router(scoring_router(models))
    app.include_router(explaining_router(models))
    app.include_router(about_router(models, readiness))
    if settings.page:
        app.include_router(page_router())
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if spans is not None:
        from manylens.serving.http.tracing import Tracing

        app.add_middleware(Tracing, tracer=spans.tracer)  # The last one is around the others.
    return app


def _spans() -> Spans:
    """Return what traces requests; nothing else imports OpenTelemetry."""
    try:
        from manylens.serving.http.tracing import Spans
    except ModuleNotFoundError:  # Of what part does not matter: other libraries bring some of it.
        raise MissingExtraError("opentelemetry", "otel") from None
    return Spans()
