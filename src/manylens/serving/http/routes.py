"""The routes that score: /rerank and /predict, each in the shapes that clients already speak."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, HTTPException, Request
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.responses import Response

from manylens.records import Pair
from manylens.serving.http.batcher import Outcome
from manylens.serving.http.contracts import (
    Classification,
    ClassScore,
    DocumentsRequest,
    ErrorBody,
    PredictBody,
    ProductFields,
    ProductsRequest,
    RankedText,
    Ranking,
    RerankBody,
    TextsRequest,
    parse,
)
from manylens.serving.http.errors import RequestError
from manylens.serving.http.models import Loaded, Models
from manylens.serving.http.scoring import check_count, check_lengths, pairs_of, score

#: How each way to refuse a request is described in /docs.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in (
        (401, "The key is missing or wrong."),
        (404, "There is no such model."),
        (408, "The body was not there in time."),
        (413, "The body, a text or the number of texts is too large."),
        (415, "The body is no JSON by its Content-Type."),
        (422, "The body is no JSON, or does not fit the contract."),
        (424, "The engine failed."),
        (429, "Too much waits; Retry-After says when to come back."),
        (500, "The server failed."),
        (504, "The scores were not there in time."),
    )
}


class _JsonRequest(Request):
    """A request whose JSON is read by `contracts.parse`."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON
        try:
            return parse(await self.body())
        except ValueError:
            # FastAPI lets its own exception through, and makes a 400 of any other.
            raise HTTPException(422, "the body is no valid JSON") from None


class JsonRoute(APIRoute):
    """A route that takes JSON, or says that it does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            if kind != "application/json" and not kind.endswith("+json"):
                raise RequestError(415, "expected the header Content-Type: application/json")
            return await handler(_JsonRequest(request.scope, request.receive))

        return handle


def scoring_router(models: Models) -> APIRouter:
    """Return the routes /rerank, /v1/rerank, /v2/rerank and /predict over loaded models."""
    router = APIRouter(route_class=JsonRoute, responses=REFUSALS, tags=["scoring"])
    settings = models.settings

    @router.post("/rerank", response_model=Ranking | list[RankedText], summary="Rank texts or documents")
    async def rerank(request: Request, body: RerankBody) -> Response:
        if isinstance(body, DocumentsRequest):
            return await rank_documents(request, body)
        return await rank_texts(request, body)

    @router.post("/v1/rerank", response_model=Ranking, summary="Rank documents")
    @router.post("/v2/rerank", response_model=Ranking, summary="Rank documents")
    async def rank_documents(request: Request, body: DocumentsRequest) -> Response:
        model = models.get(body.model)
        outcome = await score(request, models, model, pairs_of(body.query, body.documents, settings))
        scores = model.scorer.expected_gains(outcome.table)
        order = np.argsort(-scores, kind="stable")[: body.most]
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": value}
            for index, value in zip(order.tolist(), scores[order].tolist(), strict=True)
        ]
        if body.return_documents:
            for result in results:
                result["document"] = _document(body.documents[result["index"]])
        usage = _usage(outcome)
        return _json(
            {
                "id": uuid4().hex,
                "object": "list",
                "model": model.name,
                "usage": usage,
                "meta": {
                    "api_version": {"version": "1" if request.url.path == "/v1/rerank" else "2"},
                    "billed_units": {"search_units": 1},
                    "tokens": {"input_tokens": usage["total_tokens"]},
                },
                "results": results,
            }
        )

    async def rank_texts(request: Request, body: TextsRequest) -> Response:
        model = models.get(body.model)
        outcome = await score(request, models, model, pairs_of(body.query, body.texts, settings))
        scores = model.scorer.expected_gains(outcome.table)
        order = np.argsort(-scores, kind="stable")
        results: list[dict[str, Any]] = [
            {"index": index, "score": value}
            for index, value in zip(order.tolist(), scores[order].tolist(), strict=True)
        ]
        if body.return_text:
            for result in results:
                result["text"] = body.texts[result["index"]]
        return _json(results)

    @router.post(
        "/predict",
        response_model=Classification | list[ClassScore] | list[list[ClassScore]],
        summary="Classify products",
    )
    async def predict(request: Request, body: PredictBody) -> Response:
        model = models.get(body.model)
        if isinstance(body, ProductsRequest):
            outcome = await score(request, models, model, pairs_of(body.query, body.products, settings))
            return _json(_classification(model, outcome))
        single = isinstance(body.inputs, tuple)
        inputs = [body.inputs] if isinstance(body.inputs, tuple) else body.inputs
        check_count(len(inputs), settings)
        pairs = [Pair(pair_id="", query_id="", product_id="", query=query, title=text) for query, text in inputs]
        check_lengths(pairs, settings)
        outcome = await score(request, models, model, pairs)
        rows = [_ranked_classes(model, row) for row in outcome.table.tolist()]
        return _json(rows[0] if single else rows)

    return router


def _ranked_classes(model: Loaded, row: list[float]) -> list[dict[str, Any]]:
    ranked = sorted(zip(row, model.scorer.labels, strict=True), key=lambda pair: -pair[0])
    return [{"score": value, "label": label} for value, label in ranked]


def _classification(model: Loaded, outcome: Outcome) -> dict[str, Any]:
    labels = model.scorer.labels
    best, scores = outcome.table.argmax(axis=1).tolist(), model.scorer.expected_gains(outcome.table).tolist()
    return {
        "model": model.name,
        "usage": _usage(outcome),
        "results": [
            {
                "index": index,
                "label": labels[best[index]],
                "score": scores[index],
                "probabilities": dict(zip(labels, row, strict=True)),
            }
            for index, row in enumerate(outcome.table.tolist())
        ],
    }


def _document(document: str | ProductFields) -> dict[str, Any]:
    if isinstance(document, str):
        return {"text": document}
    fields = document.model_dump(exclude_none=True)
    return {"text": fields.pop("title"), **fields}


def _usage(outcome: Outcome) -> dict[str, int]:
    return {"prompt_tokens": outcome.tokens, "total_tokens": outcome.tokens}


def _json(value: Any) -> Response:  # noqa: ANN401 - any JSON
    return Response(to_json(value), media_type="application/json")
