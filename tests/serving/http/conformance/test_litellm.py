"""LiteLLM against real servers, in an environment of its own, because it is large and its pins clash with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from manylens.serving import Scorer
from serving.http.conformance.conftest import GIVEN, KEY, MAX_TEXTS, block, given
from serving.http.conformance.test_clients import DOCUMENTS, PRODUCTS, QUERY, TEXTS, expected

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
#: The providers, and whether each understands the objects that come back.
PROVIDERS = {"hosted_vllm": True, "cohere": True, "jina_ai": True, "infinity": False}
Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with the pins of litellm.txt, which it takes a network to make."""
    folder = tmp_path_factory.mktemp("litellm")
    venv.create(folder)
    interpreter = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--requirement", str(HERE / "litellm.txt")], check=True, timeout=600)
    return interpreter


def call(provider: str, url: str, key: str = KEY, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - any option
    return {"model": f"{provider}/shop", "query": QUERY, "api_base": url, "api_key": key, **options}


@pytest.fixture(scope="module")
def outcomes(python: str, servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of each call, made in one process, because importing LiteLLM takes seconds."""
    calls = {}
    for provider in PROVIDERS:
        calls |= {
            f"{provider} open": call(provider, servers["open"], documents=TEXTS, return_documents=False),
            f"{provider} top": call(provider, servers["locked"], documents=TEXTS, top_n=2, return_documents=False),
            f"{provider} fields": call(provider, servers["open"], documents=DOCUMENTS, return_documents=False),
            f"{provider} shown": call(provider, servers["open"], documents=TEXTS),
            f"{provider} many": call(provider, servers["open"], documents=["a"] * (MAX_TEXTS + 1)),
            f"{provider} key": call(provider, servers["locked"], "wrong", documents=TEXTS),
        }
    code = GIVEN + block("litellm.rerank(").replace("http://127.0.0.1:8080", servers["locked"]).replace("KEY", KEY)
    out = tmp_path_factory.mktemp("outcomes") / "outcomes.json"
    subprocess.run(
        [python, str(HERE / "litellm_calls.py"), str(out)],
        input=json.dumps({"code": code, "calls": list(calls.values())}),
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        text=True,
        check=True,
        timeout=120,
    )
    return dict(zip([*calls, "page"], json.loads(out.read_text(encoding="utf-8")), strict=True))


def ranking(outcome: Outcome) -> list[tuple[int, float]]:
    assert outcome["error"] is None, outcome
    return [(result["index"], result["relevance_score"]) for result in outcome["results"]]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_litellm_ranks_as_the_scorer_does(outcomes: dict[str, Outcome], scorer: Scorer, provider: str) -> None:
    assert ranking(outcomes[f"{provider} open"]) == expected(scorer, TEXTS)
    assert ranking(outcomes[f"{provider} top"]) == expected(scorer, TEXTS, 2)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_product_fields_go_through_the_template(outcomes: dict[str, Outcome], scorer: Scorer, provider: str) -> None:
    assert ranking(outcomes[f"{provider} fields"]) == expected(scorer, PRODUCTS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_documents_come_back(outcomes: dict[str, Outcome], scorer: Scorer, provider: str) -> None:
    outcome = outcomes[f"{provider} shown"]
    if PROVIDERS[provider]:
        assert ranking(outcome) == expected(scorer, TEXTS)
        assert [result["document"] for result in outcome["results"]] == [
            {"text": TEXTS[result["index"]]} for result in outcome["results"]
        ]
    else:
        assert "results.0.document.text" in outcome["message"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_litellm_raises_what_the_server_says(outcomes: dict[str, Outcome], provider: str) -> None:
    many, key = outcomes[f"{provider} many"], outcomes[f"{provider} key"]
    assert many["status"] == 413 and f"expected at most {MAX_TEXTS} texts" in many["message"]
    assert (key["status"], key["error"]) == (401, "AuthenticationError")


def test_the_page_ranks_as_the_scorer_does(outcomes: dict[str, Outcome], scorer: Scorer) -> None:
    asked = given()
    ranked = [(index, score) for index, score in outcomes["page"]["results"]]
    assert ranked == expected(scorer, asked["products"], 2, asked["query"])
