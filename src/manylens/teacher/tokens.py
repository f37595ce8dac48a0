"""Prompt tokens: what a backend sends to its model, and how many there are, before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

from jinja2 import TemplateError

from manylens.config import OpenAITeacher, RecordedTeacher, TeacherConfig
from manylens.errors import MissingExtraError, TeacherError
from manylens.teacher.perspectives import Messages

#: Characters of English text in a token: OpenAI's rule of thumb ("What are tokens and how to count them?").
CHARACTERS_PER_TOKEN = 4
#: Prompts that are tokenised at a time: enough for the tokenizer's threads, little memory.
_CHUNK = 256

_T = TypeVar("_T")


class ChatTokenizer:
    """A model's tokenizer with its chat template: from messages to exactly the tokens that the model gets."""

    def __init__(self, model: str, chat_template_kwargs: Mapping[str, Any]) -> None:
        """Load the tokenizer.

        Args:
            model: A Hugging Face model by id or path.
            chat_template_kwargs: Variables of the chat template, such as ``{"enable_thinking": False}``.

        Raises:
            MissingExtraError: If transformers is not installed.
            TeacherError: If there is no such tokenizer, or it has no chat template.
        """
        try:
            from transformers import AutoTokenizer
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "transformers", "teacher") from None
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise TeacherError(
                f"expected a tokenizer's folder or Hugging Face id, got {model!r}, which cannot be loaded: {error}"
            ) from error
        if self.tokenizer.chat_template is None:
            raise TeacherError(f"{model}: the tokenizer has no chat template; take an instruction-tuned model")
        self._model, self._template_kwargs = model, dict(chat_template_kwargs)

    def encode(self, conversations: Sequence[Messages]) -> list[list[int]]:
        """Return the token ids of prompts, up to where the assistant begins to write.

        Args:
            conversations: The prompts.

        Returns:
            One list of token ids per prompt, neither padded nor cut.

        Raises:
            TeacherError: If the chat template refuses the messages.
        """
        try:
            ids = self.tokenizer.apply_chat_template(
                list(conversations),
                add_generation_prompt=True,
                return_dict=False,
                tokenizer_kwargs={"verbose": False},
                **self._template_kwargs,
            )
        except TemplateError as error:
            raise TeacherError(
                f"{self._model}: the chat template refuses a system and a user message: {error}; take another model"
            ) from error
        return cast(list[list[int]], ids)


class TokenCounter:
    """Counts the prompt tokens of chat messages.

    Attributes:
        exact: Whether the counts are the model's own; otherwise they are estimates from characters.
    """

    def __init__(self, tokenizer: ChatTokenizer | None = None) -> None:
        """Count with a tokenizer, or estimate `CHARACTERS_PER_TOKEN` characters a token without one."""
        self._tokenizer = tokenizer
        self.exact = tokenizer is not None

    def count(self, messages: Messages) -> int:
        """Return the number of prompt tokens of one prompt."""
        return next(self.count_all([messages]))

    def count_all(self, conversations: Iterable[Messages]) -> Iterator[int]:
        """Yield the number of prompt tokens of each prompt; faster than one by one.

        Args:
            conversations: The prompts; any number, they are streamed.

        Yields:
            The counts, in order.

        Raises:
            TeacherError: If the chat template refuses the messages.
        """
        for chunk in chunks(conversations, _CHUNK):
            if self._tokenizer is None:
                yield from (_estimate(messages) for messages in chunk)
            else:
                yield from map(len, self._tokenizer.encode(chunk))


def token_counter(config: TeacherConfig) -> TokenCounter:
    """Return the counter for a teacher: exact where its tokenizer is at hand, else an estimate.

    Args:
        config: The recipe's section.

    Returns:
        The counter.

    Raises:
        MissingExtraError: If transformers is wanted and not installed.
        TeacherError: If the tokenizer cannot be loaded.
    """
    if isinstance(config, RecordedTeacher):
        return TokenCounter()
    model = config.tokenizer if isinstance(config, OpenAITeacher) else config.model
    return TokenCounter(ChatTokenizer(model, config.chat_template_kwargs) if model is not None else None)


def chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield `size` items at a time, and what is left, taking no item before it is due."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _estimate(messages: Messages) -> int:
    return sum(math.ceil(len(message["content"]) / CHARACTERS_PER_TOKEN) for message in messages)
