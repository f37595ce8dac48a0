"""A server whose models read stored states."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from manylens.errors import ConfigError, StudentError, UnknownNameError
from manylens.serving import Scorer
from manylens.serving.http.app import create_app
from manylens.serving.http.batcher import Batcher, Outcome
from manylens.serving.http.metrics import Metrics
from manylens.serving.http.models import Models
from manylens.serving.http.settings import parse_states
from manylens.serving.precompute import precompute
from serving.http.conftest import make_settings
from serving.splitting import PAIRS, TITLES, make_student
from student.build import make_pair

from .test_server import Start, start

__all__ = ["start"]
QUERY = "red shoe"
#: Stored ones, one with another text, one that is not there, one without an id, and a bare text.
DOCUMENTS: list[Any] = [
    *({"product_id": name, "text": title} for name, title in TITLES.items()),
    {"product_id": "p3", "title": "lamp"},
    {"product_id": 99, "title": "lamp"},
    {"title": TITLES["p5"]},
    "lamp",
]
PRODUCTS = [
    each if isinstance(each, str) else {"product_id": str(each.get("product_id", "")), "title": each["title"]}
    for each in ({"title": each["text"], **each} if "text" in each else each for each in DOCUMENTS)
]


@pytest.fixture(scope="module")
def reading(split_export: Path, stores: dict[str, Path]) -> Iterator[Scorer]:
    with Scorer.load(split_export, variant="onnx_fp32", states=stores["fp16"], threads=2) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def client(split_export: Path, stores: dict[str, Path]) -> Iterator[TestClient]:
    with TestClient(create_app(make_settings(split_export, states={"tiny": stores["fp16"]}))) as client:
        yield client


def states_of(client: TestClient) -> dict[str, Any]:
    (model,) = client.get("/info").json()["models"]
    states: dict[str, Any] = model["states"]
    return states


def test_answers_are_those_of_the_scorer_with_its_store(client: TestClient, reading: Scorer) -> None:
    before = states_of(client)
    assert before == {"precision": "fp16", "hits": 0, "misses": 0}, "that of the warm-up is not counted"
    body = {"query": QUERY, "documents": DOCUMENTS, "return_documents": True}
    results = client.post("/rerank", json=body).json()["results"]
    expected = reading.rank(QUERY, PRODUCTS)
    scores = {place.index: place.score for place in expected}
    assert {each["index"]: each["relevance_score"] for each in results} == pytest.approx(scores, abs=1e-5)
    assert results[0]["document"]["product_id"] == f"p{results[0]['index']}"
    after = states_of(client)
    assert after["precision"] == "fp16"
    assert after["hits"] - before["hits"] == len(TITLES)
    # Those without an id are two: their texts differ.
    assert after["misses"] - before["misses"] == len(DOCUMENTS) - len(TITLES)
    answer = client.post("/predict", json={"query": QUERY, "products": DOCUMENTS}).json()["results"]
    for each, prediction in zip(answer, reading.predict([(QUERY, product) for product in PRODUCTS]), strict=True):
        assert each["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)


def test_a_product_that_is_not_stored_is_computed_as_the_scorer_computes_it(client: TestClient) -> None:
    def score(document: Any) -> float:  # noqa: ANN401 - a title or fields
        (result,) = client.post("/rerank", json={"query": QUERY, "documents": [document]}).json()["results"]
        value: float = result["relevance_score"]
        return value

    before = states_of(client)
    lamps = [score("lamp"), score({"product_id": "p3", "title": "lamp"}), score({"product_id": "p98", "title": "lamp"})]
    assert lamps == pytest.approx([lamps[0]] * 3, abs=1e-6)
    assert states_of(client)["misses"] == before["misses"] + 3
    stored = score({"product_id": "p5", "title": TITLES["p5"]})
    assert states_of(client)["hits"] == before["hits"] + 1
    assert stored == pytest.approx(score(TITLES["p5"]), abs=5e-3) and stored != score(TITLES["p5"])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_requests_at_the_same_time_share_batches(split_export: Path, stores: dict[str, Path], precision: str) -> None:
    rng = np.random.default_rng(0)
    requests = [[PAIRS[place] for place in rng.integers(len(PAIRS), size=size)] for size in (1, 3, 90, 2, 70, 1, 150)]
    requests.append([make_pair("red", "lamp", product_id="p99"), PAIRS[0]])
    batches: list[int] = []

    async def run(scorer: Scorer) -> list[Outcome]:
        batcher = Batcher(scorer=scorer, max_pairs=1000, on_batch=lambda rows, width: batches.append(rows))
        return await asyncio.gather(*(batcher.probabilities(request) for request in requests))

    with Scorer.load(split_export, variant="onnx_fp32", states=stores[precision], threads=2) as scorer:
        for request, outcome in zip(requests, asyncio.run(run(scorer)), strict=True):
            np.testing.assert_allclose(outcome.table, scorer.probabilities(request), atol=1e-5)
    assert sum(batches) == sum(map(len, requests)) and max(batches) > 3


def test_what_needs_the_whole_graph_says_so(client: TestClient) -> None:
    answer = client.post("/explain", json={"query": QUERY, "product": "lamp"})
    assert (answer.status_code, answer.json()["error_type"]) == (404, "NotFound")


def test_each_model_has_its_own_store(split_export: Path, exported: Path, stores: dict[str, Path]) -> None:
    settings = make_settings(models={"plain": exported, "split": split_export, "alias": split_export})
    settings = make_settings(models=settings.models, states={"alias": stores["int8"]})
    with TestClient(create_app(settings)) as client:
        plain, split = client.get("/info").json()["models"]
        assert plain["states"] is None and split["states"]["precision"] == "int8"
        for name in settings.models:
            assert client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS, "model": name}).is_success
        assert client.get("/info").json()["models"][1]["states"]["hits"] == 2 * len(TITLES)
    with pytest.raises(StudentError, match="has no split layers"):
        Models(make_settings(exported, states={"tiny": stores["fp16"]}), Metrics())


def test_sighup_opens_the_store_anew(split_export: Path, stores: dict[str, Path], start: Start, tmp_path: Path) -> None:
    table = tmp_path / "products.jsonl"
    table.write_text(json.dumps({"product_id": "p99", "title": "lamp"}))
    precompute(make_student(), table, tmp_path / "new", precision="int8")
    precompute(make_student(seed=1), table, tmp_path / "other")
    link = tmp_path / "live"
    link.symlink_to(stores["fp16"])
    server = start(f"shop={split_export}", MANYLENS_STATES=str(link), MANYLENS_VARIANT="onnx_fp32")
    body = {"query": QUERY, "documents": [{"product_id": "p99", "title": "lamp"}]}

    def switch(target: str, said: str) -> dict[str, Any]:
        (tmp_path / "next").symlink_to(target)
        os.replace(tmp_path / "next", link)
        server.process.send_signal(signal.SIGHUP)
        return server.logged(lambda line: line["message"].startswith(said))

    def states() -> dict[str, Any]:
        assert httpx.post(f"{server.url}/rerank", json=body).status_code == 200
        found: dict[str, Any] = httpx.get(f"{server.url}/info").json()["models"][0]["states"]
        return found

    assert server.logged(lambda line: line["message"] == "loaded")["states"] == "fp16"
    assert (states()["precision"], states()["hits"]) == ("fp16", 0)
    switch("new", "reloaded")
    assert (states()["precision"], states()["hits"]) == ("int8", 2)
    assert "holds states of the student" in switch("other", "reload failed")["reason"]
    assert states()["hits"] == 3


def test_stores_are_named_by_the_command_line() -> None:
    one, several = {"shop": Path("a")}, {"shop": Path("a"), "alias": Path("a"), "other": Path("b")}
    assert parse_states([], several) == {}
    assert parse_states(["x"], one) == parse_states(["shop=x"], one) == {"shop": Path("x")}
    assert parse_states(["x"], {"shop": Path("a"), "alias": Path("a")}) == {"shop": Path("x")}
    assert parse_states(["alias=x", "other=y"], several) == {"alias": Path("x"), "other": Path("y")}
    assert parse_states(["alias=x", "shop=x"], several) == {"alias": Path("x"), "shop": Path("x")}
    for words in (["x"], ["=x"], ["shop="]):
        with pytest.raises(ConfigError, match=r"NAME=PATH where there are several, got '.*' for shop, alias, other"):
            parse_states(words, several)
    with pytest.raises(UnknownNameError, match=r"unknown model 'shpo', did you mean 'shop'\?|unknown model 'shpo'"):
        parse_states(["shpo=x"], several)
    with pytest.raises(ConfigError, match="the model 'alias' has two stores of states, x and y; take one of them"):
        parse_states(["shop=x", "alias=y"], several)
    with pytest.raises(ConfigError, match="the model 'shop' has two stores"):
        parse_states(["x", "y"], one)
