"""The route /explain: a pair's score, the teacher's rationales nearest to it, and its words' weights."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from pydantic_core import to_json
from starlette.responses import Response
from typing_extensions import TypedDict

from manylens.serving.explain import why_not
from manylens.serving.http.batcher import BackendError
from manylens.serving.http.contracts import Contract, ProductFields
from manylens.serving.http.errors import RequestError
from manylens.serving.http.gate import TRACE
from manylens.serving.http.models import Models
from manylens.serving.http.routes import REFUSALS, JsonRoute
from manylens.serving.http.scoring import pairs_of, score

_LOG = logging.getLogger(__name__)
#: Most training pairs that are shown for each latent.
_MOST_NEIGHBOURS = 50


class ExplainRequest(Contract):
    """A query and a product whose score is to be explained."""

    query: str
    product: str | ProductFields
    model: str | None = None
    top_k: Annotated[int, Field(ge=1, le=_MOST_NEIGHBOURS, description="Nearest training pairs of each latent.")] = 3


class ExplainedConfidence(TypedDict):
    """How near the pair is to what the student was trained towards."""

    similarity: float
    percentile: float
    in_domain: bool


class ExplainingRationale(TypedDict):
    """A rationale of a training pair, the label that it argues for, and the pair's own."""

    pair_id: str
    query: str
    title: str
    label: str
    gold_label: str | None
    rationale: str
    similarity: float


class ExplainedWord(TypedDict):
    """A word, its characters, and its weight between 0 and 1."""

    text: str
    start: int
    end: int
    weight: float


class ExplainedTokens(TypedDict):
    """Words' weights; ``largest`` is the shift behind the weight 1, ``skipped`` counts words without a weight."""

    query: list[ExplainedWord]
    product: list[ExplainedWord]
    product_text: str
    largest: float
    skipped: int


class ExplainedPair(TypedDict):
    """A pair's score and what it rests on."""

    model: str
    label: str
    score: float
    probabilities: dict[str, float]
    confidence: ExplainedConfidence
    rationales: dict[str, list[ExplainingRationale]]
    tokens: ExplainedTokens


def explaining_router(models: Models) -> APIRouter:
    """Return the route /explain over loaded models."""
    router = APIRouter(route_class=JsonRoute, responses=REFUSALS, tags=["scoring"])

    @router.post("/explain", response_model=ExplainedPair, summary="Explain a product's score")
    async def explain(request: Request, body: ExplainRequest) -> Response:
        model = models.get(body.model)
        scorer = model.scorer
        explainer = scorer.explainer
        if explainer is None:
            raise RequestError(404, why_not(scorer.engine.outputs))
        if scorer.states is not None:
            raise RequestError(
                404, "this model reads stored states, and explaining runs the whole graph; ask a model without"
            )
        (pair,) = pairs_of(body.query, [body.product], models.settings)
        batcher = model.batcher
        try:
            with batcher.held():
                async with asyncio.timeout(models.settings.timeout):
                    question = await batcher.aside(partial(explainer.ask, pair, scorer.tokenizer))
                    outcome = await score(request, models, model, question.pairs)
                    assert outcome.latents is not None  # Of variants.
                    answer = partial(explainer.answer, question, outcome.table, outcome.latents, top_k=body.top_k)
                    explanation = await batcher.aside(partial(answer, labels=scorer.labels, gains=scorer.gains))
        except TimeoutError:
            raise RequestError(504, "the explanation was not there in time") from None
        except BackendError as error:
            fields = {**request.scope[TRACE].ids, "model": model.name}
            _LOG.error("%s", error, exc_info=error.__cause__, extra={"fields": fields})
            raise RequestError(424, f"{error}; the server's log says why") from None
        return Response(to_json({"model": model.name, **asdict(explanation)}), media_type="application/json")

    return router
