"""Any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from rich.markup import escape

from manylens.config import OpenAITeacher
from manylens.errors import ConfigError, ManylensError
from manylens.progress import console
from manylens.teacher.answers import AnswerFormat
from manylens.teacher.backends.chat import is_openai, request_body, sampling_settings
from manylens.teacher.backends.client import Client
from manylens.teacher.backends.loops import event_loop
from manylens.teacher.backends.protocol import Answer, Request, canonical_json


class OpenAIBackend:
    """A model behind an API; many requests are in flight at a time, as many as the server bears.

    Its identity is the model's name: the server, its key and its speed may change without asking anything again.
    """

    def __init__(self, config: OpenAITeacher) -> None:
        """Take the settings; nothing is connected.

        Args:
            config: The recipe's section.

        Raises:
            ConfigError: If the base URL is no URL.
        """
        url = urlsplit(config.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(
                f"teacher.base_url: expected a URL such as http://localhost:8000/v1, got {config.base_url!r}"
            )
        self.config = config
        self.name = f"openai:{config.model}"
        self.sampling = canonical_json(sampling_settings(config))
        self.answer_format: AnswerFormat = config.answer_format

    def body(self, request: Request) -> dict[str, Any]:
        """Return the body of the request for a chat completion, without the key."""
        return request_body(self.config, request)

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Answer requests; no more than ``max_concurrency`` of them are in memory at a time.

        Args:
            requests: The questions, taken in the thread that iterates.

        Yields:
            Each request with its answer, as it comes; ``None`` where the server refuses the request, or met it
            with faults ``max_attempts`` times.

        Raises:
            ConfigError: If OpenAI's API is asked without a key.
            TeacherError: If the server answers nothing: a wrong key, model or address, or it is down. What was in
                flight is yielded first.
        """
        client = Client(self.config, self._key())
        source, in_flight = iter(requests), 0
        with event_loop() as run:
            try:
                while True:
                    new: list[Request] = []
                    if client.error is None:
                        try:
                            new += islice(source, self.config.max_concurrency - in_flight)
                        except ManylensError as error:  # Not before what is in flight has come: it is paid for.
                            client.stop(error)
                    in_flight += len(new)
                    if not in_flight:
                        break
                    for request, answer in run(client.exchange(new)):
                        in_flight -= 1
                        yield request, answer
            finally:
                run(client.close())
                self._tell(client)
        if client.error is not None:
            raise client.error

    def _key(self) -> str | None:
        key = os.environ.get(self.config.api_key_env, "").strip()
        if not key and is_openai(self.config.base_url):
            raise ConfigError(
                f"teacher.api_key_env: {self.config.base_url} needs a key; export {self.config.api_key_env}=..., "
                "or name the variable that holds it"
            )
        return key or None

    def _tell(self, client: Client) -> None:
        """Say what went wrong on the way, if anything."""
        parts = []
        if client.retried:
            parts.append(f"{client.retried.total():,} faults, tried again ({_listed(client.retried)})")
        if client.unanswered:
            counted = f"{client.unanswered.total():,} requests without an answer ({_listed(client.unanswered)})"
            parts.append(f"{counted}, the last one: {client.last_fault}")
        if parts:
            console.print(f"[dim]{escape(f'{self.name}: ' + '; '.join(parts))}[/]", soft_wrap=True, highlight=False)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
