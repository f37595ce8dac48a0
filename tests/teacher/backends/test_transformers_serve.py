"""The backend against a real server of a real, if tiny, model: ``transformers serve``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manylens.config import OpenAITeacher
from manylens.errors import TeacherError
from manylens.records import ESCI, Pair
from manylens.teacher import load_perspective
from manylens.teacher.backends.openai import OpenAIBackend
from manylens.teacher.perspectives import Messages
from manylens.teacher.questions import requests_of
from servers.transformers_serve import transformers_serve
from tiny_teacher import make_teacher

pytestmark = pytest.mark.slow

PAIR = Pair(pair_id="q:p", query_id="q", product_id="p", query="red mug", title="A red mug")
REQUESTS = list(requests_of([PAIR], [load_perspective("user_intent")], ESCI, samples=3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with transformers_serve(model, tmp_path_factory.mktemp("serve") / "serve.log") as url:
        yield url


def backend(url: str, model: object, **settings: object) -> OpenAIBackend:
    known: dict[str, Any] = {"sampling": {"max_tokens": 12, "temperature": 1.0}, "timeout": 60, "max_concurrency": 2}
    tree = {"backend": "openai", "model": str(model), "base_url": url, **known, **settings}
    return OpenAIBackend(OpenAITeacher.model_validate(tree))


def prompt_tokens(model: Path, messages: Messages, **variables: object) -> int:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **variables))


def test_answers_and_their_tokens(url: str, model: Path) -> None:
    answers = dict((request.sample, answer) for request, answer in backend(url, model).ask(REQUESTS))
    assert sorted(answers) == [0, 1, 2]
    for answer in answers.values():
        assert answer is not None
        assert answer.prompt_tokens == prompt_tokens(model, REQUESTS[0].messages)
        assert answer.completion_tokens is not None
        assert answer.finish_reason == ("length" if answer.completion_tokens == 12 else "stop")


def test_the_templates_variables_reach_it(url: str, model: Path) -> None:
    thoughtless = {"enable_thinking": False}
    ((_, answer),) = backend(url, model, chat_template_kwargs=thoughtless).ask(REQUESTS[:1])
    assert answer is not None
    assert answer.prompt_tokens == prompt_tokens(model, REQUESTS[0].messages, **thoughtless)
    assert answer.prompt_tokens > prompt_tokens(model, REQUESTS[0].messages)


def test_the_same_seed_gives_the_same_answer(url: str, model: Path) -> None:
    one_at_a_time = backend(url, model, max_concurrency=1)
    first, again = (list(one_at_a_time.ask(REQUESTS)) for _ in range(2))
    assert first == again


def test_another_model_stops_the_run(url: str) -> None:
    with pytest.raises(TeacherError, match=r"HTTP 400: Server is pinned to .*; requested 'other'"):
        list(backend(url, "other").ask(REQUESTS))


def test_a_key_that_the_server_does_not_know_stops_the_run(url: str, model: Path) -> None:
    with pytest.raises(TeacherError, match="HTTP 422: Unexpected fields in the request"):
        list(backend(url, model, extra_body={"brew_coffee": True}).ask(REQUESTS))
