"""The application: models, routes and the gate, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from manylens._version import __version__
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


def create_app(settings: Settings, load: Callable[[Path], Scorer] | None = None) -> FastAPI:
    """Load the models and return the application that serves them.

    Its ``state`` has ``models`` and ``readiness``.

    Args:
        settings: What the operator decided.
        load: Loads a model's folder; ``None`` means `Scorer.load` with the settings.

    Raises:
        ManylensError: If a model cannot be loaded.
    """
    metrics = Metrics()
    models, readiness = Models(settings, metrics, load), Readiness()
    metrics.watch_queue(lambda: ((model.name, model.batcher.pairs) for model in models))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()

    app = FastAPIOffline(
        title="manylens",
        version=__version__,
        summary="Ranks and classifies products for a query.",
        lifespan=lifespan,
        redoc_url=None,
        strict_content_type=False,
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
    return app
