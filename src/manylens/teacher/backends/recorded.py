"""Answers recorded in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manylens.errors import BadRowError
from manylens.teacher.answers import AnswerFormat, format_answer
from manylens.teacher.backends.protocol import Answer, Request, canonical_json


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
    answer_format: AnswerFormat = "text"

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
                place = self._places.get((request.pair_id, request.perspective, request.sample))
                if place is None or request.attempt:
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
