"""A local model, run by transformers: batched generation, on a GPU or, for a small model, on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from manylens.config import TransformersTeacher
from manylens.errors import MissingExtraError
from manylens.teacher.answers import AnswerFormat
from manylens.teacher.backends.local import model_identity
from manylens.teacher.backends.protocol import Answer, Request, canonical_json
from manylens.teacher.tokens import chunks

if TYPE_CHECKING:
    from manylens.teacher.backends.generation import Generator

#: Batches that are taken at a time and sorted by length, so that little of a batch is padding.
_BATCHES = 16


class TransformersBackend:
    """A teacher that transformers runs in this process; the model is loaded when it is first asked.

    Up to rounding, an answer depends neither on the batch that it is generated in nor on the order of the
    requests: padding is masked, and each request draws from a random generator of its own.
    """

    answer_format: AnswerFormat = "text"

    def __init__(self, config: TransformersTeacher) -> None:
        """Take the settings; nothing is loaded yet."""
        self._config = config
        self.sampling = canonical_json(
            {
                **config.sampling.model_dump(),
                "chat_template_kwargs": config.chat_template_kwargs,
                "dtype": config.dtype,
            }
        )

    @cached_property
    def name(self) -> str:
        """The teacher's identity: the model's id, or its folder's name and content; likewise the adapter's."""
        return f"transformers:{model_identity(self._config.model, self._config.adapter)}"

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Answer requests, a batch at a time.

        Takes 16 batches of requests at once and sorts them by length; the longest go first, so that
        memory, if it runs out, does so early.

        Args:
            requests: The questions.

        Yields:
            Each request with its answer, as soon as its batch is done.

        Raises:
            MissingExtraError: If torch, transformers or peft is not installed.
            TeacherError: If the model cannot be loaded, a prompt leaves no room for an answer, or memory
                runs out.
        """
        size = self._config.batch_size
        for window in chunks(requests, _BATCHES * size):
            prompts = zip(window, self._generator.encode(window), strict=True)
            longest_first = sorted(prompts, key=lambda prompt: len(prompt[1]), reverse=True)
            for batch in chunks(longest_first, size):
                answers = self._generator.answer(batch)
                yield from zip((request for request, _ in batch), answers, strict=True)

    @cached_property
    def _generator(self) -> Generator:
        try:
            from manylens.teacher.backends.generation import Generator
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "transformers", "teacher") from None
        return Generator(self._config)
