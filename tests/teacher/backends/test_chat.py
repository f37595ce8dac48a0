from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.config import OpenAITeacher
from manylens.teacher.answers import ANSWER_SCHEMA
from manylens.teacher.backends import Request, request_seed
from manylens.teacher.backends.chat import BrokenCompletion, read_completion, request_body, sampling_settings
from servers.scripted import completion

MESSAGES = [{"role": "system", "content": "Judge."}, {"role": "user", "content": "Query: mug"}]
REQUEST = Request(pair_id="q:p", perspective="user_intent", sample=2, attempt=1, messages=MESSAGES, prompt_hash="00")


def teacher(**settings: object) -> OpenAITeacher:
    known: dict[str, Any] = {"backend": "openai", "model": "tiny", "base_url": "http://localhost:1/v1"}
    return OpenAITeacher.model_validate({**known, **settings})


def test_the_body() -> None:
    config = teacher(sampling={"temperature": 0.7, "top_p": 0.9, "max_tokens": 64, "seed": 5})
    assert request_body(config, REQUEST) == {
        "model": "tiny",
        "messages": MESSAGES,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": request_seed(5, REQUEST),
    }


def test_openai_knows_the_longest_answer_by_its_newer_name() -> None:
    body = request_body(teacher(base_url="https://api.openai.com/v1"), REQUEST)
    assert body["max_completion_tokens"] == 512
    assert "max_tokens" not in body


def test_options_of_the_template_and_further_keys() -> None:
    config = teacher(
        chat_template_kwargs={"enable_thinking": False}, extra_body={"top_k": 20, "seed": None, "temperature": 0.3}
    )
    body = request_body(config, REQUEST)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["top_k"], body["temperature"]) == (20, 0.3)
    assert "seed" not in body


def test_structured_output_in_both_ways() -> None:
    body = request_body(teacher(structured_output="response_format"), REQUEST)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "judgement", "strict": True, "schema": ANSWER_SCHEMA},
    }
    body = request_body(teacher(structured_output="structured_outputs"), REQUEST)
    assert body["structured_outputs"] == {"json": ANSWER_SCHEMA}


def test_sampling_settings_hold_what_shapes_the_answers_and_no_more() -> None:
    plain = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 512, "seed": 13}
    assert sampling_settings(teacher(base_url="http://elsewhere/v1", timeout=3, max_concurrency=2)) == plain
    settings = {"structured_output": "response_format", "extra_body": {"a": 1}, "chat_template_kwargs": {"b": 2}}
    assert sampling_settings(teacher(**settings)) == {**plain, **settings}


def test_an_answer() -> None:
    answer = read_completion(completion("Fits.\n\nLabel: exact"))
    assert answer.text == "Fits.\n\nLabel: exact"
    assert (answer.prompt_tokens, answer.completion_tokens, answer.finish_reason) == (11, 7, "stop")


@pytest.mark.parametrize(
    "fields", [{"reasoning": "hm"}, {"reasoning_content": "hm"}, {"reasoning": "hm", "reasoning_content": "other"}]
)
def test_reasoning_of_its_own_stands_before_the_content(fields: dict[str, str]) -> None:
    assert read_completion(completion("Label: exact", **fields)).text == "<think>\nhm\n</think>\n\nLabel: exact"


def test_reasoning_in_the_content_stays_where_it_is() -> None:
    text = "<think>hm</think>\n\nLabel: exact"
    assert read_completion(completion(text, reasoning=None, reasoning_content="")).text == text


def test_reasoning_that_was_cut_before_there_was_content() -> None:
    answer = read_completion(completion(None, finish_reason="length", reasoning="hm"))
    assert answer.text == "<think>\nhm\n</think>\n\n"
    assert answer.finish_reason == "length"


def test_a_refusal() -> None:
    answer = read_completion(completion(None, refusal="I cannot help with that."))
    assert (answer.text, answer.finish_reason) == ("I cannot help with that.", "refusal")


def test_content_in_parts_null_and_absent() -> None:
    parts = [{"type": "text", "text": "Fits. "}, {"type": "text", "text": "Label: exact"}, {"type": "image"}]
    assert read_completion({"choices": [{"message": {"content": parts}}]}).text == "Fits. Label: exact"
    assert read_completion(completion(None)).text == ""
    bare = read_completion({"choices": [{"message": {}}]})
    assert (bare.text, bare.prompt_tokens, bare.completion_tokens, bare.finish_reason) == ("", None, None, None)


def test_usage_may_be_null_or_strange() -> None:
    for usage in (None, {}, {"prompt_tokens": None, "completion_tokens": "7"}):
        answer = read_completion({**completion("x"), "usage": usage})
        assert (answer.prompt_tokens, answer.completion_tokens) == (None, None)


def test_halves_of_surrogate_pairs_are_replaced_and_whole_ones_joined() -> None:
    answer = read_completion(completion("a\ud83d b\ud83d\ude00 c\udc00", reasoning="\ud800"))
    assert answer.text == "<think>\n\ufffd\n</think>\n\na\ufffd b\U0001f600 c\ufffd"
    answer.text.encode()


@given(st.text(st.characters(), max_size=40))  # With surrogates.
def test_every_text_can_be_stored(text: str) -> None:
    read = read_completion(completion(text)).text
    read.encode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert read == text


keys = st.sampled_from(["choices", "message", "content", "usage", "refusal", "reasoning", "text", "finish_reason"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(keys, children, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_an_answer_or_broken(value: object) -> None:
    try:
        answer = read_completion(value)
    except BrokenCompletion:
        return
    assert isinstance(answer.text, str)
    assert isinstance(answer.finish_reason, str | None)


@pytest.mark.parametrize(
    "value",
    [None, [], {}, "text", {"choices": []}, {"choices": [{}]}, {"choices": None}, {"error": {"message": "x"}}],
)
def test_what_is_no_completion(value: object) -> None:
    with pytest.raises(BrokenCompletion, match="expected a chat completion, got"):
        read_completion(value)
