"""From a request's products to scores: the limits, the pairs, the batcher, and what its failures are called."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fastapi import Request

from manylens.records import Pair
from manylens.serving.http.batcher import BackendError, Outcome, OverloadedError
from manylens.serving.http.contracts import ProductFields
from manylens.serving.http.errors import RequestError
from manylens.serving.http.gate import TRACE
from manylens.serving.http.logs import Trace
from manylens.serving.http.models import Loaded, Models
from manylens.serving.http.settings import Settings

_LOG = logging.getLogger(__name__)
#: A header with which a request asks for less time than the server gives it, in milliseconds.
TIMEOUT_HEADER = "x-timeout-ms"


def pairs_of(query: str, products: Sequence[str | ProductFields], settings: Settings) -> list[Pair]:
    """Return the pairs of a query and products.

    Args:
        query: The query.
        products: Titles or fields.
        settings: Has the limits.

    Raises:
        RequestError: If there are more, or longer ones, than the settings allow: 413.
    """
    check_count(len(products), settings)
    pairs = [
        Pair(pair_id="", query_id="", product_id="", query=query, title=product)
        if isinstance(product, str)
        else _pair(query, product)
        for product in products
    ]
    check_lengths(pairs, settings)
    return pairs


def check_count(count: int, settings: Settings) -> None:
    """Refuse more texts than the settings allow: 413."""
    if count > settings.max_texts:
        raise RequestError(413, f"expected at most {settings.max_texts} texts, got {count}; send them in parts")


def check_lengths(pairs: Sequence[Pair], settings: Settings) -> None:
    """Refuse texts that are longer than the settings allow: 413."""
    most = settings.max_text_chars
    if max(max(_chars(pair), len(pair.query)) for pair in pairs) > most:
        raise RequestError(413, f"expected texts of at most {most} characters; cut them, a model reads their start")


async def score(request: Request, models: Models, model: Loaded, pairs: Sequence[Pair]) -> Outcome:
    """Return the probabilities of a request's pairs.

    Args:
        request: Whose log line and headers tell of it, and whose header may shorten its time.
        models: Have the settings and the metrics.
        model: What scores.
        pairs: At least one.

    Raises:
        RequestError: Too many wait, 429; not in time, 504; the engine failed, 424.
    """
    trace: Trace = request.scope[TRACE]
    trace.model = model.name
    timeout = _timeout(request, models.settings.timeout)
    try:
        outcome = await model.batcher.probabilities(pairs, timeout=timeout)
    except OverloadedError as error:
        raise RequestError(
            429,
            f"{model.batcher.pairs} pairs wait already; send it again in {error.retry_after} s",
            {"Retry-After": str(error.retry_after)},
        ) from None
    except TimeoutError:
        raise RequestError(504, f"the scores were not there within {1000 * timeout:.0f} ms") from None
    except BackendError as error:
        _LOG.error("%s", error, exc_info=error.__cause__, extra={"fields": {**trace.ids, "model": model.name}})
        raise RequestError(424, f"{error}; the server's log says why") from None
    trace.pairs, trace.tokens, trace.queue = len(pairs), outcome.tokens, outcome.queue
    trace.tokenisation, trace.inference, trace.marks = outcome.tokenisation, outcome.inference, outcome.marks
    stages = {"queue": outcome.queue, "tokenization": outcome.tokenisation, "inference": outcome.inference}
    models.metrics.scored(model.name, len(pairs), outcome.tokens, stages)
    return outcome


def _timeout(request: Request, most: float) -> float:
    asked = request.headers.get(TIMEOUT_HEADER)
    if asked is None:
        return most
    if not (asked.isascii() and asked.isdigit()) or int(asked[:18]) == 0:
        raise RequestError(422, f"{TIMEOUT_HEADER} must be a whole number of milliseconds above 0")
    return min(most, int(asked[:18]) / 1000)


def _pair(query: str, product: ProductFields) -> Pair:
    attributes = product.attributes or {}
    return Pair(
        pair_id="",
        query_id="",
        product_id=product.product_id or "",
        query=query,
        title=product.title,
        brand=product.brand or "",
        attributes={name: value for name, value in attributes.items() if value is not None},
        description=product.description or "",
        locale=product.locale or "",
    )


def _chars(pair: Pair) -> int:
    rest = sum(len(name) + len(value) for name, value in pair.attributes.items()) if pair.attributes else 0
    texts = (pair.title, pair.brand, pair.description, pair.locale, pair.product_id)
    return sum(map(len, texts)) + rest
