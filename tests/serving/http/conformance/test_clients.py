"""Unmodified clients against real servers: they get the order and the scores of `Scorer.rank`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cohere
import huggingface_hub
import pytest
from cohere.core.api_error import ApiError
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from manylens.serving import Scorer
from serving.http.conformance.conftest import BLOCKS, KEY, MAX_TEXTS, block, given

QUERY = "red shoe"
TEXTS = ["blue hat", "red shoe | acme", "lamp", "shoe", "red"]
#: What the template makes of fields is another text than any of the titles.
DOCUMENTS = [
    "blue hat",
    {"text": "shoe", "brand": "acme", "attributes": {"colour": "red"}, "sku": "7"},
    {"text": "lamp"},
]
PRODUCTS = ["blue hat", {"title": "shoe", "brand": "acme", "attributes": {"colour": "red"}}, "lamp"]
Ranking = list[tuple[int, float]]
Rank = Callable[[str, str, Sequence[Any], int | None], Ranking]


def expected(scorer: Scorer, products: Sequence[Any], most: int | None = None, query: str = QUERY) -> Any:  # noqa: ANN401 - approx
    return [(place.index, pytest.approx(place.score, abs=1e-6)) for place in scorer.rank(query, products)][:most]


def places(results: Sequence[Any]) -> Ranking:
    return [(result.index, result.relevance_score) for result in results]


def cohere_v1(url: str, key: str, documents: Sequence[Any], most: int | None) -> Ranking:
    options = {} if most is None else {"top_n": most}
    return places(cohere.Client(key, base_url=url).rerank(query=QUERY, documents=documents, **options).results)


def cohere_v2(url: str, key: str, documents: Sequence[Any], most: int | None) -> Ranking:
    client = cohere.ClientV2(key, base_url=url)
    return places(client.rerank(model="shop", query=QUERY, documents=documents, top_n=most).results)


def langchain(url: str, key: str, documents: Sequence[Any], most: int | None) -> Ranking:
    reranker = CohereRerank(base_url=url, cohere_api_key=key, model="shop")
    return [(place["index"], place["relevance_score"]) for place in reranker.rerank(documents, QUERY, top_n=most)]


def llama_index(url: str, key: str, documents: Sequence[Any], most: int | None) -> Ranking:
    reranker = TextEmbeddingInference(
        base_url=url, auth_token=f"Bearer {key}", top_n=len(documents) if most is None else most
    )
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(index))) for index, text in enumerate(documents)]
    return [(int(node.node.node_id), node.score) for node in reranker.postprocess_nodes(nodes, query_str=QUERY)]


CLIENTS: list[Rank] = [cohere_v1, cohere_v2, langchain, llama_index]
with_each_client = pytest.mark.parametrize("rank", CLIENTS, ids=lambda rank: rank.__name__)
with_cohere = pytest.mark.parametrize("rank", [cohere_v1, cohere_v2], ids=lambda rank: rank.__name__)


@with_each_client
@pytest.mark.parametrize("most", [None, 1, 3])
@pytest.mark.parametrize("server", ["open", "locked"])
def test_a_client_ranks_as_the_scorer_does(
    servers: dict[str, str], scorer: Scorer, rank: Rank, server: str, most: int | None
) -> None:
    assert rank(servers[server], KEY, TEXTS, most) == expected(scorer, TEXTS, most)


@with_cohere
def test_product_fields_go_through_the_template(servers: dict[str, str], scorer: Scorer, rank: Rank) -> None:
    assert rank(servers["open"], KEY, DOCUMENTS, None) == expected(scorer, PRODUCTS)
    assert expected(scorer, PRODUCTS) != expected(scorer, ["blue hat", "shoe", "lamp"])


def test_documents_come_back(servers: dict[str, str], scorer: Scorer) -> None:
    client = cohere.Client(KEY, base_url=servers["locked"])
    answer = client.rerank(query=QUERY, documents=DOCUMENTS, return_documents=True)
    shown = [{"text": "blue hat"}, {"text": "shoe", "brand": "acme", "attributes": {"colour": "red"}}, {"text": "lamp"}]
    assert [result.document.dict() for result in answer.results] == [
        shown[place.index] for place in scorer.rank(QUERY, PRODUCTS)
    ]
    assert answer.meta.billed_units.search_units == 1 and answer.meta.tokens.input_tokens > 0


def test_langchain_keeps_the_metadata_of_documents(servers: dict[str, str], scorer: Scorer) -> None:
    documents = [Document(text, metadata={"sku": index}) for index, text in enumerate(TEXTS)]
    reranker = CohereRerank(base_url=servers["locked"], cohere_api_key=KEY, model="shop", top_n=2)
    ranked = reranker.compress_documents(documents, QUERY)
    assert [(each.metadata["sku"], each.metadata["relevance_score"]) for each in ranked] == expected(scorer, TEXTS, 2)
    assert [each.page_content for each in ranked] == [TEXTS[each.metadata["sku"]] for each in ranked]


def test_langchain_sends_an_object_as_yaml(servers: dict[str, str], scorer: Scorer) -> None:
    rows = [{"title": "blue hat", "brand": "acme"}, {"title": "lamp", "brand": "acme"}]
    sent = [f"title: {row['title']}\nbrand: {row['brand']}\n" for row in rows]
    assert langchain(servers["open"], KEY, rows, None) == expected(scorer, sent)


@pytest.mark.parametrize("rank", [cohere_v1, cohere_v2, langchain], ids=lambda rank: rank.__name__)
def test_cohere_raises_what_the_server_says(servers: dict[str, str], rank: Rank) -> None:
    with pytest.raises(ApiError) as refused:
        rank(servers["open"], KEY, ["a"] * (MAX_TEXTS + 1), None)
    assert refused.value.status_code == 413
    assert refused.value.body == {
        "error": f"expected at most {MAX_TEXTS} texts, got {MAX_TEXTS + 1}; send them in parts",
        "error_type": "Validation",
    }
    with pytest.raises(cohere.UnauthorizedError):
        rank(servers["locked"], "wrong", TEXTS, None)


@with_cohere
def test_cohere_raises_what_does_not_fit(servers: dict[str, str], rank: Rank) -> None:
    with pytest.raises(cohere.UnprocessableEntityError) as refused:
        rank(servers["open"], KEY, [], None)
    assert refused.value.body["error"].startswith("documents: ")


def test_llama_index_fails_without_the_reason(servers: dict[str, str]) -> None:
    # It reads an error's body as if it were a ranking.
    with pytest.raises(AssertionError):
        llama_index(servers["open"], KEY, ["a"] * (MAX_TEXTS + 1), None)
    with pytest.raises(AssertionError):
        llama_index(servers["locked"], "wrong", TEXTS, None)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub reach this machine, which the tests otherwise forbid, and no other."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("server", ["open", "locked"])
def test_the_inference_client_classifies_as_the_scorer_does(
    servers: dict[str, str], scorer: Scorer, server: str
) -> None:
    client = huggingface_hub.InferenceClient(model=f"{servers[server]}/predict", token=KEY)
    for text, prediction in zip(TEXTS, scorer.predict([(QUERY, text) for text in TEXTS]), strict=True):
        classes = client.text_classification([[QUERY, text]])
        assert classes[0].label == prediction.label
        assert {each.label: each.score for each in classes} == pytest.approx(prediction.probabilities, abs=1e-6)


@pytest.mark.usefixtures("online")
def test_the_inference_client_raises_what_the_server_says(servers: dict[str, str]) -> None:
    client = huggingface_hub.InferenceClient(model=f"{servers['open']}/predict")
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match=f"expected at most {MAX_TEXTS} texts"):
        client.text_classification([[QUERY, "a"]] * (MAX_TEXTS + 1))
    stranger = huggingface_hub.InferenceClient(model=f"{servers['locked']}/predict", token="wrong")
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="Authorization: Bearer KEY"):
        stranger.text_classification([[QUERY, "a"]])


def run_block(client: str, url: str) -> dict[str, Any]:
    """Return what the page's block of a client leaves, with a server that runs for the one on the page."""
    names = given()
    exec(block(f"{client}(").replace("http://127.0.0.1:8080", url).replace("KEY", KEY), names)
    return names


@pytest.mark.parametrize("client", ["cohere.Client", "cohere.ClientV2", "CohereRerank", "TextEmbeddingInference"])
def test_the_page_ranks_as_the_scorer_does(servers: dict[str, str], scorer: Scorer, client: str) -> None:
    names = run_block(client, servers["locked"])
    products = [
        {"title": product.pop("text"), **product} if isinstance(product, dict) else product
        for product in names.get("documents", names["products"])
    ]
    assert names["ranking"] == expected(scorer, products, 2, names["query"])


@pytest.mark.usefixtures("online")
def test_the_page_classifies_as_the_scorer_does(servers: dict[str, str], scorer: Scorer) -> None:
    names = run_block("InferenceClient", servers["locked"])
    predictions = scorer.predict([(names["query"], product) for product in names["products"]])
    assert [classes[0].label for classes in names["classes"]] == [prediction.label for prediction in predictions]


def test_every_block_of_the_page_is_run() -> None:
    assert len(BLOCKS) == 6  # Those of this file, and LiteLLM's.
