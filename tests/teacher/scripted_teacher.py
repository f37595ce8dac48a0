"""A teacher whose answers a test writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from manylens.teacher.answers import AnswerFormat
from manylens.teacher.backends import Answer, Request


class ScriptedTeacher:
    """A backend that answers in reverse order, some at a time, and remembers what it was asked."""

    def __init__(
        self,
        answer: Callable[[Request], str | None] | None = None,
        name: str = "test",
        *,
        at_a_time: int = 3,
        answer_format: AnswerFormat = "text",
    ) -> None:
        self.name, self.sampling, self.answer_format = name, '{"max_tokens":20}', answer_format
        self.asked: list[tuple[str, str, int]] = []
        self.attempts: list[tuple[str, int]] = []
        self._at_a_time = at_a_time
        self._answer = answer or (lambda request: f"{request.perspective} says so.\n\nLabel: exact")

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        waiting: list[Request] = []
        for request in requests:
            self.asked.append((request.pair_id, request.perspective, request.sample))
            self.attempts.append((request.pair_id, request.attempt))
            waiting.append(request)
            if len(waiting) == self._at_a_time:
                yield from self._answered(waiting)
        yield from self._answered(waiting)

    def _answered(self, waiting: list[Request]) -> Iterator[tuple[Request, Answer | None]]:
        while waiting:
            request = waiting.pop()
            text = self._answer(request)
            # Tokens as a tokenizer of four bytes a token would have them, and a chat template of 12.
            size = sum(len(message["content"].encode()) for message in request.messages) // 4 + 12
            answer = Answer(text=text or "", prompt_tokens=size, completion_tokens=5, finish_reason="stop")
            yield request, None if text is None else answer
