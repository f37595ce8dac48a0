"""Backends: who answers the prompts. Here the protocol, and answers recorded in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manylens.config import TeacherConfig
from manylens.errors import BadRowError, ConfigError, UnknownNameError
from manylens.records import Pair
from manylens.teacher.answers import format_answer
from manylens.teacher.perspectives import Messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question to a teacher.

    Attributes:
        pair: The pair to judge; a backend that computes sends `messages` and nothing else of it.
        perspective: The perspective's name.
        sample: Which of several samples, from 0.
        messages: The chat messages.
        prompt_hash: SHA-256 of `messages`.
    """

    pair: Pair
    perspective: str
    sample: int
    messages: Messages
    prompt_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: The answer, untouched.
        prompt_tokens: Tokens of the prompt, or ``None`` where the backend does not say.
        completion_tokens: Tokens of the answer, or ``None``.
        finish_reason: The backend's word for why the answer ended, or ``None``.
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
    """

    @property
    def name(self) -> str:
        """The teacher's identity."""

    @property
    def sampling(self) -> str:
        """The sampling settings."""

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


class _RecordedRow(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    pair_id: str | None = Field(default=None, min_length=1)
    query_id: str | None = Field(default=None, min_length=1)
    product_id: str | None = Field(default=None, min_length=1)
    perspective: str = Field(min_length=1)
    sample: int = Field(default=0, ge=0)
    rationale: str
    label: str

    @model_validator(mode="after")
    def _names_its_pair(self) -> _RecordedRow:
        if self.pair_id is None and (self.query_id is None or self.product_id is None):
            raise ValueError("expected pair_id, or query_id and product_id")
        return self

    def key(self) -> tuple[str, str, int]:
        return self.pair_id or f"{self.query_id}:{self.product_id}", self.perspective, self.sample


class RecordedBackend:
    """A teacher whose judgements stand in a JSONL file; it answers what is there and nothing else.

    A row has ``query_id`` and ``product_id`` (or ``pair_id``), ``perspective``, ``sample`` (0 where absent),
    ``rationale`` and ``label``. Only the rows' places are kept in memory.
    """

    sampling = canonical_json({})

    def __init__(self, path: Path) -> None:
        """Check and index the file.

        Args:
            path: The JSONL file.

        Raises:
            BadRowError: If it cannot be read, a row is wrong, or two rows answer the same question.
        """
        self.path = path
        self._places: dict[tuple[str, str, int], int] = {}
        digest, place = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    digest.update(line)
                    if line.strip():
                        self._index(line, number, place)
                    place += len(line)
        except OSError as error:
            raise BadRowError(
                f"expected a JSONL file of recorded judgements: {error.strerror}", file=str(path)
            ) from error
        self.name = f"recorded:{digest.hexdigest()[:16]}"

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        """Answer each request from the file, in order; ``None`` where the file has no row for it."""
        with self.path.open("rb") as file:
            for request in requests:
                place = self._places.get((request.pair.pair_id, request.perspective, request.sample))
                if place is None:
                    yield request, None
                    continue
                file.seek(place)
                row = _RecordedRow.model_validate_json(file.readline())
                yield request, Answer(text=format_answer(row.rationale, row.label))

    def _index(self, line: bytes, number: int, place: int) -> None:
        try:
            key = _RecordedRow.model_validate_json(line).key()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = str(first["loc"][0]) if first["loc"] else None
            problem = first["msg"].removeprefix("Value error, ")
            raise BadRowError(problem, file=str(self.path), row=number, field=field) from error
        if key in self._places:
            problem = f"pair {key[0]!r}, perspective {key[1]!r}, sample {key[2]} is recorded twice; keep one row"
            raise BadRowError(problem, file=str(self.path), row=number)
        self._places[key] = place


def _recorded(config: TeacherConfig, default_path: Path | None) -> RecordedBackend:
    path = Path(config.path) if config.path is not None else default_path
    if path is None:
        raise ConfigError("teacher.path is required: this data brings no recorded judgements; give a JSONL file")
    return RecordedBackend(path)


#: From a name in the recipe to what builds the backend; a heavy library is imported inside its builder.
BACKENDS: dict[str, Callable[[TeacherConfig, Path | None], Backend]] = {"recorded": _recorded}


def build_backend(config: TeacherConfig, default_path: Path | None) -> Backend:
    """Build the backend that a recipe names.

    Args:
        config: The recipe's section.
        default_path: Recorded judgements that come with the data, or ``None``.

    Returns:
        The backend.

    Raises:
        UnknownNameError: If no backend has this name.
        ConfigError: If a setting is missing.
        BadRowError: If recorded judgements are wrong.
    """
    if config.backend not in BACKENDS:
        raise UnknownNameError("teacher backend", config.backend, BACKENDS)
    return BACKENDS[config.backend](config, default_path)
