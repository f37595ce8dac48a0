"""What a backend is: something that answers requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from manylens.teacher.answers import AnswerFormat
from manylens.teacher.perspectives import Messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question to a teacher.

    Attributes:
        pair_id: The pair that is judged.
        perspective: The perspective's name.
        sample: Which of several samples, from 0.
        attempt: Which try at an answer that holds a label, from 0.
        messages: The chat messages; all that a model gets to see.
        prompt_hash: SHA-256 of `messages`.
    """

    pair_id: str
    perspective: str
    sample: int = 0
    attempt: int = 0
    messages: Messages
    prompt_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: The answer, untouched; thinking that came in a field of its own stands before it in
            ``<think>`` and ``</think>``, so that one text holds all that was paid for.
        prompt_tokens: Tokens of the prompt, or ``None`` where the backend does not say.
        completion_tokens: Tokens of the answer, thinking included, or ``None``.
        finish_reason: Why the answer ended, in OpenAI's words where they fit (``stop``, ``length``,
            ``content_filter``), ``refusal`` for a refusal; ``None`` where the backend does not say.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None


class Backend(Protocol):
    """Anything that answers requests.

    Attributes:
        name: Identifies the teacher, backend and model; an answer is only reused for the same name.
        sampling: The sampling settings as canonical JSON (sorted keys, no spaces); likewise.
        answer_format: The form that its answers take, which the prompts ask for: ``json`` where the backend
            constrains its model to `answers.ANSWER_SCHEMA`, else ``text``.
    """

    @property
    def name(self) -> str:
        """The teacher's identity."""

    @property
    def sampling(self) -> str:
        """The sampling settings."""

    @property
    def answer_format(self) -> AnswerFormat:
        """The form of the answers."""

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Answer requests.

        How many are in flight at a time is the backend's business: it takes as many from `requests` as it
        wants to work on, and takes them in the thread that iterates the result. An answer is yielded as soon
        as it is there, because only then is it safe.

        Args:
            requests: The questions, made lazily.

        Yields:
            Each request once, in any order, with its answer; ``None`` where there will be none in this run.
        """


def canonical_json(settings: object) -> str:
    """Return `settings` as JSON with sorted keys and without spaces, so that equal settings are equal text."""
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def request_seed(first: int, request: Request) -> int:
    """Return the sampling seed, below 2 ** 32, of one sample and attempt at one question.

    The prompt is part of it: if the first samples of all pairs were drawn with the same random numbers, prompts as
    alike as ours would get answers as alike, and the panel's errors were no longer independent between pairs.
    """
    text = f"{first}:{request.sample}:{request.attempt}:{request.prompt_hash}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
