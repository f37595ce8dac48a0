"""The routes that tell of the server: /health, /ready, /info, /metrics and /v1/models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from manylens._version import __version__
from manylens.serving.http.metrics import MEDIA_TYPE
from manylens.serving.http.models import Loaded, Models


class Readiness:
    """Whether the server wants requests.

    Attributes:
        ready: It does.
    """

    def __init__(self) -> None:
        """Start ready: an application exists only once its models are loaded."""
        self.ready = True


def about_router(models: Models, readiness: Readiness) -> APIRouter:
    """Return the routes over loaded models."""
    router = APIRouter(tags=["about"])

    @router.get("/health", summary="Whether the server runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", summary="Whether the server wants requests", responses={503: {"description": "It does not."}})
    async def ready() -> Response:
        if readiness.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"error": "the server is about to end", "error_type": "Unhealthy"}, 503)

    @router.get("/info", summary="What is served, and its limits")
    async def info() -> dict[str, Any]:
        return _info(models)

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(models.metrics.text(), media_type=MEDIA_TYPE)

    @router.get("/v1/models", summary="The loaded models, as OpenAI lists them")
    async def list_models() -> dict[str, Any]:
        entries = [
            {"id": name, "object": "model", "created": model.created, "owned_by": "manylens"}
            for model in models
            for name in (model.name, *model.aliases)
        ]
        return {"object": "list", "data": entries}

    return router


def _info(models: Models) -> dict[str, Any]:
    default, settings = models.default, models.settings
    labels = default.scorer.labels
    return {
        "model_id": default.name,
        "model_sha": None,
        "model_dtype": (default.scorer.variant or "").rpartition("_")[2] or None,
        "model_type": {
            "reranker": {
                "id2label": {str(index): label for index, label in enumerate(labels)},
                "label2id": {label: index for index, label in enumerate(labels)},
            }
        },
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": default.scorer.tokenizer.max_length,
        "max_batch_tokens": default.scorer.token_budget * default.scorer.engine.streams,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": True,
        "version": __version__,
        "any_model": models.any_model,
        "models": [_model_info(model) for model in models],
    }


def _model_info(model: Loaded) -> dict[str, Any]:
    scorer = model.scorer
    return {
        "name": model.name,
        "aliases": list(model.aliases),
        "variant": scorer.variant,
        "labels": list(scorer.labels),
        "gains": scorer.gains.tolist(),
        "max_length": scorer.tokenizer.max_length,
        "streams": scorer.engine.streams,
        "states": None
        if scorer.states is None
        else {"precision": scorer.states.precision, "hits": scorer.states.hits, "misses": scorer.states.misses},
        "created": model.created,
    }
