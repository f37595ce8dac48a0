from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from manylens.records import Pair
from manylens.serving import Scorer
from manylens.serving.explain import Explainer
from manylens.serving.http.app import create_app
from manylens.serving.http.batcher import Batcher
from manylens.serving.layout import CLASSES
from manylens.serving.tokens import PairTokenizer
from serving.explaining import PERSPECTIVES, copy_with_rationales
from serving.http.conftest import make_settings
from serving.http.engine import SlowEngine, slow_scorer
from student.build import DIM

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "explanations.md").read_text(encoding="utf-8")
BODY = {"query": "red shoe", "product": {"title": "blue hat", "brand": "acme"}}


@pytest.fixture(scope="module")
def explained(exported: Path, student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_with_rationales(exported, student_folder, tmp_path_factory.mktemp("explained"))


@pytest.fixture(scope="module")
def explaining(explained: Path) -> Iterator[TestClient]:
    with TestClient(create_app(make_settings(explained))) as client:
        yield client


def test_the_answer_is_the_scorers_explanation(explaining: TestClient, explained: Path) -> None:
    answer = explaining.post("/explain", json={**BODY, "top_k": 2})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    found = answer.json()
    with Scorer.load(explained, variant="onnx_fp32", threads=2) as scorer:
        wanted = scorer.explain("red shoe", BODY["product"], top_k=2)
    assert list(found) == ["model", "label", "score", "probabilities", "confidence", "rationales", "tokens"]
    assert (found["model"], found["label"]) == ("tiny", wanted.label)
    assert found["score"] == pytest.approx(wanted.score, abs=1e-6)
    assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-6)
    assert found["confidence"] == {
        "similarity": pytest.approx(wanted.confidence.similarity, abs=2e-6),
        "percentile": pytest.approx(wanted.confidence.percentile, abs=1e-3),
        "in_domain": wanted.confidence.in_domain,
    }
    assert list(found["rationales"]) == list(PERSPECTIVES)
    for perspective, shown in found["rationales"].items():
        assert 1 <= len(shown) <= 2
        assert shown == [
            {**dataclasses.asdict(each), "similarity": pytest.approx(each.similarity, abs=2e-6)}
            for each in wanted.rationales[perspective]
        ]
        assert list(shown[0]) == ["pair_id", "query", "title", "label", "gold_label", "rationale", "similarity"]
    tokens = found["tokens"]
    assert (tokens["product_text"], tokens["skipped"]) == ("blue hat | acme", 0)
    assert tokens["largest"] == pytest.approx(wanted.tokens.largest, abs=1e-5)
    for side in ("query", "product"):
        assert tokens[side] == [
            {**dataclasses.asdict(word), "weight": pytest.approx(word.weight, abs=1e-3)}
            for word in getattr(wanted.tokens, side)
        ]


def first(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the keys and types of some JSON, of lists those of the first."""
    if isinstance(value, dict):
        return {name: first(inner) for name, inner in value.items()}
    return [first(inner) for inner in value[:1]] if isinstance(value, list) else type(value).__name__


def test_the_example_of_the_page_is_answered_in_its_shape(explaining: TestClient) -> None:
    body, shown = map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL))
    answer, unnamed = explaining.post("/explain", json=body).json(), {"rationales", "probabilities"}
    assert {name: first(answer[name]) for name in answer if name not in unnamed} == {
        name: first(shown[name]) for name in shown if name not in unnamed
    }
    assert first(next(iter(answer["rationales"].values()))) == first(shown["rationales"]["user_intent"])
    assert first(answer["probabilities"]) == first(shown["probabilities"])


def test_the_code_of_the_page_runs(explained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(code.replace("runs/demo", str(explained)), {})
    assert "user_intent of p" in capsys.readouterr().out


def test_the_figures_of_the_page_are_those_of_the_evidence() -> None:
    evidence = (DOCS / "evidence.md").read_text(encoding="utf-8")
    rows = [line.split(" | ", 2)[2] for line in PAGE.splitlines() if "±" in line]
    assert len(rows) == 4 and all(row in evidence for row in rows)


def test_a_product_may_be_a_text_and_a_model_may_be_named(explaining: TestClient) -> None:
    answer = explaining.post("/explain", json={"query": "red shoe", "product": "blue hat", "model": "tiny"})
    assert answer.status_code == 200
    assert all(len(shown) <= 3 for shown in answer.json()["rationales"].values())


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": "red"}, 422, "product: Field required"),
        ({"query": "red", "product": 3}, 422, "product: expected a string, or an object with a title"),
        ({"query": "red", "product": {"brand": "acme"}}, 422, "product.title: Field required"),
        ({**BODY, "top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({**BODY, "top_k": 51}, 422, "top_k: Input should be less than or equal to 50"),
        ({"query": "red", "product": "a" * 60_001}, 413, "expected texts of at most 60000 characters"),
        ({"query": "a" * 60_001, "product": "red"}, 413, "expected texts of at most 60000 characters"),
    ],
)
def test_what_does_not_fit_is_refused(
    explaining: TestClient, body: dict[str, object], status: int, message: str
) -> None:
    answer = explaining.post("/explain", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"] and answer.json()["error_type"] == "Validation"


def test_long_texts_are_explained_in_bounded_work(explaining: TestClient) -> None:
    answer = explaining.post("/explain", json={"query": "red " * 10_000, "product": "hat " * 10_000})
    tokens = answer.json()["tokens"]
    assert (len(tokens["query"]), len(tokens["product"])) == (16, 48) and len(tokens["product_text"]) < 200


def test_a_model_without_rationales_says_why(client: TestClient) -> None:
    answer = client.post("/explain", json=BODY)
    assert answer.status_code == 404 and answer.json()["error_type"] == "NotFound"
    assert answer.json()["error"].startswith("no rationales were exported beside this model")


def test_an_unknown_model_is_not_found(explained: Path, exported: Path) -> None:
    with TestClient(create_app(make_settings(explained, exported))) as client:
        assert client.post("/explain", json={**BODY, "model": "other"}).status_code == 404
        assert client.post("/explain", json={**BODY, "model": "tiny1"}).status_code == 404
        assert client.post("/explain", json={**BODY, "model": "tiny"}).status_code == 200


def test_a_model_without_latents_says_so(exported: Path) -> None:
    engine = SlowEngine()
    engine.release(2)
    with TestClient(create_app(make_settings(exported), lambda path: slow_scorer(exported, engine))) as client:
        answer = client.post("/explain", json=BODY)
    assert answer.status_code == 404 and answer.json()["error"].startswith("this model has no latents")


class Latents(SlowEngine):
    """Has latents, all of them equal."""

    outputs = ("probabilities", "latents")  # type: ignore[assignment]

    def run(self, batch, *, alone=False):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        found = super().run(batch, alone=alone)
        return {**found, "latents": np.ones((len(found["probabilities"]), 1, DIM), dtype=np.float32)}


def slow_explaining(explained: Path, engine: Latents) -> Scorer:
    """Return a scorer on the engine that can explain."""
    tokenizer = PairTokenizer.load(explained / CLASSES, engine.inputs)
    made = slow_scorer(explained, engine)
    return Scorer(engine, tokenizer, made.labels, made.gains, explainer=Explainer.beside(explained / CLASSES))


def pair(query: str, title: str = "hat") -> Pair:
    return Pair(pair_id="", query_id="", product_id="", query=query, title=title)


def test_ranking_waits_for_no_more_than_the_batch_that_runs(explained: Path) -> None:
    async def scenario() -> None:
        engine = Latents()
        batcher = Batcher(scorer=slow_explaining(explained, engine), max_pairs=1000)
        explainer = batcher.scorer.explainer
        assert explainer is not None
        question = explainer.ask(pair("red red", " ".join(["cup"] * 30)), batcher.scorer.tokenizer)
        explaining = asyncio.create_task(batcher.probabilities(question.pairs))
        assert await engine.began() == ["red"]
        ranking = asyncio.create_task(batcher.probabilities([pair("blue")]))
        await asyncio.sleep(0.2)
        engine.release()
        # At most the rest of the turn that had begun comes before it.
        assert "blue" in (await engine.began()) + (await asyncio.wait_for(next_of(engine), 20))
        engine.release(100)
        assert (await ranking).latents is None
        outcome = await explaining
        assert outcome.latents is not None and outcome.latents.shape == (33, 1, DIM) and (outcome.latents == 1).all()
        assert outcome.table.shape == (33, 4) and (outcome.table == 0.25).all()
        batcher.close()

    async def next_of(engine: Latents) -> list[str]:
        engine.release()
        return await engine.began()

    asyncio.run(scenario())


def test_variants_count_as_pairs_that_wait(explained: Path) -> None:
    engine = Latents()
    engine.release()
    settings = make_settings(explained, max_queue_pairs=4)
    app = create_app(settings, lambda path: slow_explaining(explained, engine))
    with TestClient(app) as client:
        batcher = client.app.state.models.default.batcher  # type: ignore[attr-defined]
        batcher.pairs += 3
        answer = client.post("/explain", json=BODY)
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        batcher.pairs -= 3
        answer = client.post("/explain", json=BODY, headers={"X-Timeout-Ms": "50"})
        assert answer.status_code == 504 and answer.json()["error_type"] == "Timeout"
        engine.failure = RuntimeError("broken")
        engine.release(100)
        answer = client.post("/explain", json=BODY)
        assert answer.status_code == 424 and answer.json()["error_type"] == "Backend"


def test_an_explainer_that_fails_is_a_backend_that_fails(explained: Path) -> None:
    with TestClient(create_app(make_settings(explained))) as client:
        client.app.state.models.default.scorer.explainer.close()  # type: ignore[attr-defined]
        answer = client.post("/explain", json=BODY)
        assert answer.status_code == 424 and "the explainer failed" in answer.json()["error"]


def test_a_search_that_takes_too_long_is_given_up(explained: Path) -> None:
    with TestClient(create_app(make_settings(explained, timeout=0.3))) as client:
        release = threading.Event()
        client.app.state.models.default.batcher._aside.submit(release.wait, 20)  # type: ignore[attr-defined]
        answer = client.post("/explain", json=BODY)
        assert answer.status_code == 504
        assert client.post("/rerank", json={"query": "red", "texts": ["hat"]}).status_code == 200
        release.set()


def test_a_model_is_not_closed_while_it_explains(explained: Path) -> None:
    async def scenario() -> None:
        engine = Latents()
        batcher = Batcher(scorer=slow_explaining(explained, engine), max_pairs=1000)
        with batcher.held():
            waiting = asyncio.create_task(batcher.drained())
            assert await batcher.aside(lambda: 7) == 7
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)
        batcher.close()

    asyncio.run(scenario())
