"""OpenAI's chat completions on the wire: a request's body, and the answer in a response's."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from manylens.config import OpenAITeacher
from manylens.teacher.answers import ANSWER_SCHEMA
from manylens.teacher.backends.protocol import Answer, Request, request_seed

#: Both constrain the answer to our schema. The label may be any text there: the prompt says which labels there are,
#: and the parser checks.
STRUCTURED: dict[str, dict[str, Any]] = {
    "off": {},
    # https://platform.openai.com/docs/guides/structured-outputs
    "response_format": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "judgement", "strict": True, "schema": ANSWER_SCHEMA},
        }
    },
    # https://docs.vllm.ai/en/latest/features/structured_outputs.html
    "structured_outputs": {"structured_outputs": {"json": ANSWER_SCHEMA}},
}


class BrokenCompletion(ValueError):
    """A value is no chat completion."""


def is_openai(base_url: str) -> bool:
    """Return whether a URL is OpenAI's own API."""
    return urlsplit(base_url).hostname == "api.openai.com"


def sampling_settings(config: OpenAITeacher) -> dict[str, Any]:
    """Return what shapes the answers, beside the model and the prompt."""
    settings = config.sampling.model_dump()
    if config.structured_output != "off":
        settings["structured_output"] = config.structured_output
    for name in ("chat_template_kwargs", "extra_body"):
        if options := getattr(config, name):
            settings[name] = options
    return settings


def request_body(config: OpenAITeacher, request: Request) -> dict[str, Any]:
    """Return the body of a request for a chat completion.

    Args:
        config: The recipe's section; ``extra_body`` has the last word, and its nulls take keys away.
        request: The question.

    Returns:
        A JSON object.
    """
    sampling = config.sampling
    # OpenAI's newer models know only the new name, most other servers only the old one.
    limit = "max_completion_tokens" if is_openai(config.base_url) else "max_tokens"
    body = {
        "model": config.model,
        "messages": request.messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        limit: sampling.max_tokens,
        "seed": request_seed(sampling.seed, request),
        **STRUCTURED[config.structured_output],
    }
    if config.chat_template_kwargs:
        body["chat_template_kwargs"] = config.chat_template_kwargs
    if config.extra_body:
        body = {key: value for key, value in {**body, **config.extra_body}.items() if value is not None}
    return body


def read_completion(completion: object) -> Answer:
    """Read the answer from a chat completion.

    Reasoning that comes in a field of its own (``reasoning``, or by its older name ``reasoning_content``) is
    put before the content in ``<think>`` and ``</think>``. Halves of surrogate pairs, which neither SQLite nor
    Parquet takes, become U+FFFD.

    Args:
        completion: The response's body.

    Returns:
        The answer; its text is empty where the model said nothing.

    Raises:
        BrokenCompletion: If it is no chat completion.
    """
    try:
        choice = completion["choices"][0]  # type: ignore[index]
        message, usage = choice["message"], completion.get("usage") or {}  # type: ignore[attr-defined]
        refusal, finish_reason = _text(message.get("refusal")), choice.get("finish_reason")
        content = refusal or _text(message.get("content"))
        reasoning = _text(message.get("reasoning")) or _text(message.get("reasoning_content"))
        return Answer(
            text=_clean(f"<think>\n{reasoning}\n</think>\n\n{content}" if reasoning else content),
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            finish_reason="refusal" if refusal else None if finish_reason is None else str(finish_reason),
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise BrokenCompletion(f"expected a chat completion, got {str(completion)[:200]!r}") from error


def _text(content: object) -> str:
    """Return a message's text; some servers send it in parts."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    if not isinstance(content, str | None):
        raise TypeError(f"expected a text, got {type(content).__name__}")
    return content or ""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _clean(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
