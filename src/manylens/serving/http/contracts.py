"""What the server is asked and what it answers, as text-embeddings-inference, Cohere and Jina have it, and ours."""

from __future__ import annotations

import json
from typing import Annotated, Any, NotRequired

from fastapi import Body
from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import from_json
from typing_extensions import TypedDict

Count = Annotated[int, Field(ge=1)]


class Contract(BaseModel):
    """A request's body; fields that are not ours are ignored, because clients send their own."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ProductFields(Contract):
    """A product as fields; ``text`` is another name of ``title``."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    title: str = Field(validation_alias=AliasChoices("title", "text"))
    brand: str | None = None
    attributes: dict[str, str | None] | None = None
    description: str | None = None
    locale: str | None = None
    product_id: str | None = None


Products = Annotated[list[str | ProductFields], Field(min_length=1)]
#: A text pair is a query and a product's title.
TextPair = tuple[str, str]


class TextsRequest(Contract):
    """A query and texts to rank, as text-embeddings-inference takes them."""

    query: str
    texts: Annotated[list[str], Field(min_length=1)]
    return_text: bool | None = Field(default=None, description="Whether results repeat their text.")
    raw_scores: bool | None = Field(default=None, description="Accepted; the score is the expected gain either way.")
    truncate: bool | None = Field(default=None, description="Accepted; long texts are always cut as in training.")
    model: str | None = None


class DocumentsRequest(Contract):
    """A query and documents to rank, as Cohere and Jina take them."""

    query: str
    documents: Products
    model: str | None = None
    top_n: Count | None = Field(default=None, description="How many of the best to return.")
    top_k: Count | None = Field(default=None, description="Another name of top_n.")
    return_documents: bool | None = Field(default=None, description="Whether results repeat their document.")

    @property
    def most(self) -> int | None:
        """How many results are wanted; ``None`` means all."""
        return self.top_n if self.top_n is not None else self.top_k


class InputsRequest(Contract):
    """Pairs of a query and a text, or one such pair, as text-embeddings-inference takes them."""

    inputs: TextPair | Annotated[list[TextPair], Field(min_length=1)]
    raw_scores: bool | None = Field(default=None, description="Accepted; probabilities are returned either way.")
    truncate: bool | None = Field(default=None, description="Accepted; long texts are always cut as in training.")
    model: str | None = None


class ProductsRequest(Contract):
    """A query and products to classify."""

    query: str
    products: Products
    model: str | None = None


def _rerank_shape(value: Any) -> str | None:  # noqa: ANN401 - any JSON
    return _first(value, "documents", "texts")


def _predict_shape(value: Any) -> str | None:  # noqa: ANN401 - any JSON
    return _first(value, "inputs", "products")


def _first(value: Any, *names: str) -> str | None:  # noqa: ANN401 - any JSON
    return next((name for name in names if isinstance(value, dict) and name in value), None)


RerankBody = Annotated[
    Annotated[DocumentsRequest, Tag("documents")] | Annotated[TextsRequest, Tag("texts")],
    Discriminator(
        _rerank_shape,
        custom_error_type="shape",
        custom_error_message="expected an object with query and either texts or documents",
    ),
    Body(),
]
PredictBody = Annotated[
    Annotated[InputsRequest, Tag("inputs")] | Annotated[ProductsRequest, Tag("products")],
    Discriminator(
        _predict_shape,
        custom_error_type="shape",
        custom_error_message="expected an object with inputs, or with query and products",
    ),
    Body(),
]


class RankedText(TypedDict):
    """A text's place in a ranking; its text where ``return_text`` asked for it."""

    index: int
    score: float
    text: NotRequired[str]


class RankedDocument(TypedDict):
    """A document's place in a ranking; the document, its title as ``text``, where ``return_documents`` asked for it."""

    index: int
    relevance_score: float
    document: NotRequired[dict[str, Any]]


class Ranking(TypedDict):
    """Ranked documents, best first."""

    id: str
    object: str
    model: str
    usage: dict[str, int]
    meta: dict[str, Any]
    results: list[RankedDocument]


class ClassScore(TypedDict):
    """A class and its probability."""

    score: float
    label: str


class Classified(TypedDict):
    """A product's most probable class, every class's probability, and the expected gain."""

    index: int
    label: str
    score: float
    probabilities: dict[str, float]


class Classification(TypedDict):
    """Classified products, in the order that they came in."""

    model: str
    usage: dict[str, int]
    results: list[Classified]


class ErrorBody(TypedDict):
    """Every answer that is no success."""

    error: str
    error_type: str


def parse(body: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Return what a body of JSON says; half a surrogate pair, which is no text, becomes ``?``.

    Raises:
        ValueError: If it is no JSON.
    """
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        if b"\\ud" not in body.lower():
            raise
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise error from None
    return from_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"), allow_inf_nan=False)
