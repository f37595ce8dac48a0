from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manylens.serving import Scorer
from serving.http.conftest import Serve

QUERY = "red shoe"
TEXTS = ["blue hat", "red shoe | acme", "lamp"]


def ranked(scorer: Scorer, products: list[Any], name: str = "relevance_score") -> list[dict[str, Any]]:
    return [
        {"index": place.index, name: pytest.approx(place.score, abs=1e-6)} for place in scorer.rank(QUERY, products)
    ]


def test_texts_are_ranked_as_text_embeddings_inference_does(client: TestClient, scorer: Scorer) -> None:
    answer = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == ranked(scorer, TEXTS, "score")
    answer = client.post("/rerank", json={"query": QUERY, "texts": TEXTS, "return_text": True, "raw_scores": True})
    assert answer.json() == [{**place, "text": TEXTS[place["index"]]} for place in ranked(scorer, TEXTS, "score")]


@pytest.mark.parametrize(("path", "version"), [("/rerank", "2"), ("/v1/rerank", "1"), ("/v2/rerank", "2")])
def test_documents_are_ranked_as_cohere_and_jina_do(
    client: TestClient, scorer: Scorer, path: str, version: str
) -> None:
    answer = client.post(path, json={"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS}).json()
    tokens = int(scorer.tokenizer.encode([pair_of(text) for text in TEXTS]).lengths.sum())
    assert isinstance(answer.pop("id"), str)
    assert answer == {
        "object": "list",
        "model": "tiny",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens},
        },
        "results": ranked(scorer, TEXTS),
    }


def pair_of(text: str) -> Any:  # noqa: ANN401 - a pair
    from student.build import make_pair

    return make_pair(QUERY, text)


@pytest.mark.parametrize("name", ["top_n", "top_k"])
@pytest.mark.parametrize("most", [1, 2, 99])
def test_the_best_come_back_with_their_documents(client: TestClient, scorer: Scorer, name: str, most: int) -> None:
    documents = ["blue hat", {"text": "red shoe", "brand": "acme", "price": 3, "locale": None}, {"title": "lamp"}]
    fields = ["blue hat", {"title": "red shoe", "brand": "acme"}, {"title": "lamp"}]
    body = {"query": QUERY, "documents": documents, name: most, "return_documents": True}
    shown = [{"text": "blue hat"}, {"text": "red shoe", "brand": "acme"}, {"text": "lamp"}]
    expected = [{**place, "document": shown[place["index"]]} for place in ranked(scorer, fields)]
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        assert client.post(path, json=body).json()["results"] == expected[:most]


def test_numbers_in_attributes_are_text_and_nulls_are_left_out(client: TestClient) -> None:
    documents = [{"title": "hat", "attributes": {"size": 10, "colour": None, "weight": 1.5}}]
    answer = client.post("/v1/rerank", json={"query": QUERY, "documents": documents, "return_documents": True})
    (result,) = answer.json()["results"]
    assert result["document"] == {"text": "hat", "attributes": {"size": "10", "colour": None, "weight": "1.5"}}


def test_inputs_are_classified_as_text_embeddings_inference_does(client: TestClient, scorer: Scorer) -> None:
    pairs = [(QUERY, text) for text in TEXTS]
    expected = [
        [
            {"label": label, "score": pytest.approx(value, abs=1e-6)}
            for label, value in sorted(prediction.probabilities.items(), key=lambda item: -item[1])
        ]
        for prediction in scorer.predict(pairs)
    ]
    assert client.post("/predict", json={"inputs": pairs}).json() == expected
    assert client.post("/predict", json={"inputs": pairs[0]}).json() == expected[0]
    assert client.post("/predict", json={"inputs": [pairs[0]]}).json() == expected[:1]


def test_products_are_classified_in_their_order(client: TestClient, scorer: Scorer) -> None:
    products = ["blue hat", {"title": "red shoe", "brand": "acme"}]
    answer = client.post("/predict", json={"query": QUERY, "products": products}).json()
    assert answer["model"] == "tiny" and answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    assert answer["results"] == [
        {
            "index": index,
            "label": prediction.label,
            "score": pytest.approx(prediction.score, abs=1e-6),
            "probabilities": {name: pytest.approx(p, abs=1e-6) for name, p in prediction.probabilities.items()},
        }
        for index, prediction in enumerate(scorer.predict([(QUERY, product) for product in products]))
    ]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/rerank", b"{bad", "the body is no valid JSON"),
        ("/rerank", b'{"query": NaN}', "the body is no valid JSON"),
        ("/rerank", b"\xff\xfe{}", "the body is no valid JSON"),
        ("/rerank", b"[" * 100_000, "the body is no valid JSON"),
        ("/rerank", b'"\\ud800' + b"[" * 100_000, "the body is no valid JSON"),
        ("/rerank", b"", "body: Field required"),
        ("/rerank", b"[]", "body: expected an object with query and either texts or documents"),
        ("/rerank", b'{"query": "a"}', "body: expected an object with query and either texts or documents"),
        ("/rerank", b'{"texts": ["a"]}', "query: Field required"),
        ("/rerank", b'{"query": null, "texts": ["a"]}', "query: Input should be a valid string"),
        ("/rerank", b'{"query": "a", "texts": "b"}', "texts: Input should be a valid list"),
        ("/rerank", b'{"query": "a", "texts": ["b", 1]}', "texts.1: Input should be a valid string"),
        (
            "/rerank",
            b'{"query": "a", "texts": []}',
            "texts: List should have at least 1 item after validation, not 0",
        ),
        (
            "/rerank",
            b'{"query": "a", "texts": [1, 2, 3, 4, 5]}',
            "texts.0: Input should be a valid string; texts.1: Input should be a valid string; "
            "texts.2: Input should be a valid string; and 2 more",
        ),
        (
            "/v1/rerank",
            b'{"query": "a", "documents": []}',
            "documents: List should have at least 1 item after validation, not 0",
        ),
        (
            "/v1/rerank",
            b'{"query": "a", "documents": [{"brand": "b"}, 3]}',
            "documents.0.title: Field required; documents.1: expected a string, or an object with a title",
        ),
        (
            "/rerank",
            b'{"query": "a", "documents": [{"brand": "b"}, 3]}',
            "documents.0.title: Field required; documents.1: expected a string, or an object with a title",
        ),
        (
            "/v2/rerank",
            b'{"query": "a", "documents": ["b"], "top_n": 0}',
            "top_n: Input should be greater than or equal to 1",
        ),
        ("/v2/rerank", b'{"query": "a", "texts": ["b"]}', "documents: Field required"),
        (
            "/predict",
            b'{"inputs": ["a"]}',
            "inputs: expected a query and a text, or a list of such pairs, all of them strings",
        ),
        (
            "/predict",
            b'{"inputs": []}',
            "inputs: expected a query and a text, or a list of such pairs, all of them strings",
        ),
        ("/predict", b'{"query": "a"}', "body: expected an object with inputs, or with query and products"),
    ],
)
def test_what_does_not_fit_is_422_with_its_place(client: TestClient, path: str, body: bytes, message: str) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (422, {"error": message, "error_type": "Validation"})


def test_a_body_needs_to_be_json_by_its_header_where_it_has_one(client: TestClient) -> None:
    body = json.dumps({"query": "a", "texts": ["b"]}).encode()
    for kind, status in {
        "application/json; charset=utf-8": 200,
        "application/vnd.shop+json": 200,
        "text/plain": 415,
        "application/x-www-form-urlencoded": 415,
    }.items():
        answer = client.post("/rerank", content=body, headers={"content-type": kind})
        assert answer.status_code == status, kind
    assert client.post("/rerank", content=body).status_code == 200
    assert answer.json() == {"error": "expected the header Content-Type: application/json", "error_type": "Validation"}


def test_unknown_paths_and_methods_have_the_shape_too(client: TestClient) -> None:
    assert client.get("/nothing").json() == {"error": "Not Found", "error_type": "NotFound"}
    answer = client.get("/rerank")
    assert (answer.status_code, answer.json()["error_type"], answer.headers["allow"]) == (405, "NotFound", "POST")


@pytest.mark.parametrize(
    "text", [r"\ud800", r"\udc00 \ud83d", r"\u0000", "a\\u0000b", " ", "", "ab " * 17_000, "\\ud83d\\ude00"], ids=len
)
def test_odd_text_is_scored(client: TestClient, text: str) -> None:
    body = f'{{"query": "a", "texts": ["{text}", "hat"], "return_text": true}}'
    answer = client.post("/rerank", content=body.encode())
    assert answer.status_code == 200 and len(answer.json()) == 2
    expected = json.loads(f'"{text}"').encode("utf-8", "replace").decode()
    assert {place["text"] for place in answer.json()} == {expected, "hat"}


TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
FIELDS = st.fixed_dictionaries(
    {"title": TEXT},
    optional={
        "brand": st.none() | TEXT,
        "description": TEXT,
        "locale": TEXT,
        "attributes": st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=3),
        "unknown": st.recursive(st.none() | TEXT | st.floats(allow_nan=False, allow_infinity=False), st.lists),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=TEXT, documents=st.lists(TEXT | FIELDS, min_size=1, max_size=5), most=st.none() | st.integers(1, 9))
def test_any_documents_are_ranked(client: TestClient, query: str, documents: list[Any], most: int | None) -> None:
    body = json.dumps({"query": query, "documents": documents, "top_n": most})
    answer = client.post("/v1/rerank", content=body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert len({place["index"] for place in results}) == min(len(documents), most or 9)
    scores = [place["relevance_score"] for place in results]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)


def test_a_model_is_found_by_its_names(serve: Serve, exported: Any) -> None:  # noqa: ANN401
    body = {"query": "a", "documents": ["b"]}
    one = serve(models={"shop": exported, "rerank-v3.5": exported})
    for name in ("shop", "rerank-v3.5", "no-such", "", None):
        answer = one.post("/v1/rerank", json={**body, "model": name})
        assert (answer.status_code, answer.json()["model"]) == (200, "shop")
    assert [model["id"] for model in one.get("/v1/models").json()["data"]] == ["shop", "rerank-v3.5"]
    two = serve(models={"shop": exported, "classes": exported / "classes"})
    assert two.post("/v1/rerank", json={**body, "model": "classes"}).json()["model"] == "classes"
    unknown = two.post("/v1/rerank", json={**body, "model": "no-such"})
    assert unknown.status_code == 404
    assert unknown.json() == {"error": "there is no such model; known: shop, classes", "error_type": "NotFound"}
    assert serve(any_model=False).post("/v1/rerank", json={**body, "model": "no-such"}).status_code == 404
