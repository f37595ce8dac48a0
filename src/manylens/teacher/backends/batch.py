"""OpenAI's batch files: questions written as JSONL, answered at half the price within a day, and read back.

The format is that of https://platform.openai.com/docs/guides/batch; vLLM's ``run-batch`` and others take it too.
A line's ``custom_id`` is the SHA-256 of the key under which the store keeps the answer, so that results find
their questions whatever their order, their file or their age.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from manylens.errors import BadRowError, TeacherError
from manylens.records import LabelScale
from manylens.teacher.backends.chat import BrokenCompletion, read_completion
from manylens.teacher.backends.openai import OpenAIBackend
from manylens.teacher.backends.protocol import Answer, Backend, Request, canonical_json
from manylens.teacher.questions import attempts_of, judgement_of, key_of
from manylens.teacher.store import JudgementStore

#: OpenAI's limits for one file.
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
#: Answers in one transaction; unlike those of a live server, they can be read again.
_COMMIT_EVERY = 1_000


class BatchFile(NamedTuple):
    """A file that was written, and how many requests it holds."""

    path: Path
    requests: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchReport:
    """What result files held.

    Attributes:
        rows: Lines in all files.
        answered: Questions with an answer.
        failed: Questions without one, by what the rows say: an error's code, or an HTTP status.
        duplicates: Further answers to a question that has one; the first counts.
        unknown: Rows whose custom_id belongs to none of the questions: those of another recipe, teacher or prompt.
    """

    rows: int
    answered: int
    failed: Mapping[str, int]
    duplicates: int
    unknown: int


def custom_id(request: Request, backend: Backend) -> str:
    """Return the name of a question in a batch, as hex digits."""
    return hashlib.sha256(canonical_json(key_of(request, backend)).encode("ascii")).hexdigest()


def requests_due(
    questions: Iterable[Request], backend: Backend, scale: LabelScale, store: JudgementStore, retry_unparsed: int = 0
) -> Iterator[Request]:
    """Yield what a store lacks: questions without an answer, and the next attempt where none yet holds a label.

    Args:
        questions: The questions, at attempt 0.
        backend: The teacher.
        scale: The labels to look for.
        store: Where the answers are.
        retry_unparsed: Further attempts at an answer that holds no label.

    Yields:
        The requests to be asked now.
    """
    for question in questions:
        known = attempts_of(question, backend, scale, store, retry_unparsed)
        if len(known) <= retry_unparsed and not (known and known[-1].label):
            yield replace(question, attempt=len(known))


def write_batch(
    requests: Iterable[Request],
    backend: OpenAIBackend,
    path: Path,
    *,
    most_requests: int = MOST_REQUESTS,
    most_bytes: int = MOST_BYTES,
) -> list[BatchFile]:
    """Write requests as batch files, each of which appears only when it is whole.

    Args:
        requests: The questions, streamed.
        backend: The teacher.
        path: The first file; further ones are named ``NAME-2``, ``NAME-3`` and so on.
        most_requests: Most requests in one file.
        most_bytes: Most bytes in one file.

    Returns:
        The files; none where there are no requests.

    Raises:
        TeacherError: If a file exists already.
    """
    files: list[BatchFile] = []
    lines = (_line(request, backend) for request in requests)
    line = next(lines, None)
    while line is not None:
        place = path if not files else path.with_stem(f"{path.stem}-{len(files) + 1}")
        if place.exists():
            raise TeacherError(f"{place} exists already, and may have been handed in; give another name")
        unfinished, count, size = place.with_name(f"{place.name}.unfinished"), 0, 0
        with unfinished.open("wb") as file:
            while line is not None and count < most_requests and (count == 0 or size + len(line) <= most_bytes):
                file.write(line)
                count, size = count + 1, size + len(line)
                line = next(lines, None)
        os.replace(unfinished, place)
        files.append(BatchFile(place, count))
    return files


class BatchResults:
    """The rows of result files, output and error files alike; only their places are kept in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Check and index the files.

        Args:
            paths: JSONL files as the batch API gives them.

        Raises:
            BadRowError: If a file cannot be read, or a row is broken.
        """
        self._paths = tuple(paths)
        self._answers: dict[str, tuple[int, int]] = {}
        self._failures: dict[str, str] = {}
        self._rows = self._duplicates = self._answered = 0
        self._failed: Counter[str] = Counter()
        for number, path in enumerate(self._paths):
            try:
                with path.open("rb") as file:
                    self._index(number, file)
            except OSError as error:
                raise BadRowError(
                    f"expected a JSONL file of batch results: {error.strerror}", file=str(path)
                ) from error

    def answers(self, requests: Iterable[Request], backend: Backend) -> Iterator[tuple[Request, Answer | None]]:
        """Join the rows to the questions that they answer.

        Args:
            requests: All questions that the files may answer, whether answered already or not.
            backend: The teacher that was asked.

        Yields:
            Each request that the files name, with its answer; ``None`` where it failed.
        """
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self._paths]
            for request in requests:
                name = custom_id(request, backend)
                failure = self._failures.pop(name, None)
                if place := self._answers.pop(name, None):
                    files[place[0]].seek(place[1])
                    self._answered += 1
                    yield request, _answer(json.loads(files[place[0]].readline()))
                elif failure is not None:
                    self._failed[failure] += 1
                    yield request, None

    def report(self) -> BatchReport:
        """Return the counts; those of the questions are whole once `answers` has come to its end."""
        return BatchReport(
            rows=self._rows,
            answered=self._answered,
            failed=dict(self._failed),
            duplicates=self._duplicates,
            unknown=len(self._answers.keys() | self._failures.keys()),
        )

    def _index(self, number: int, file: Iterable[bytes]) -> None:
        place = 0
        for row, line in enumerate(file, start=1):
            if line.strip():
                self._rows += 1
                try:
                    value = json.loads(line)
                    name, failure = str(value["custom_id"]), _failure(value)
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise BadRowError(
                        f"expected a row of batch results with custom_id, response and error, got {line[:80]!r}; "
                        "download the file again",
                        file=str(self._paths[number]),
                        row=row,
                    ) from error
                if failure is not None:
                    self._failures[name] = failure
                elif name in self._answers:
                    self._duplicates += 1
                else:
                    self._answers[name] = (number, place)
            place += len(line)


def ingest(
    answers: Iterable[tuple[Request, Answer | None]], backend: Backend, scale: LabelScale, store: JudgementStore
) -> int:
    """Put answers into a store, as `judge` does.

    Args:
        answers: Questions and their answers, streamed.
        backend: The teacher.
        scale: The labels to look for.
        store: Where the answers go; what it knows already stays as it is.

    Returns:
        How many it did not know yet.
    """
    new = (
        judgement_of(request, answer, backend, scale)
        for request, answer in answers
        if answer is not None and key_of(request, backend) not in store
    )
    added = 0
    while chunk := list(islice(new, _COMMIT_EVERY)):
        store.add(chunk)
        added += len(chunk)
    return added


def _line(request: Request, backend: OpenAIBackend) -> bytes:
    line = {
        "custom_id": custom_id(request, backend),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": backend.body(request),
    }
    return json.dumps(line).encode("ascii") + b"\n"


def _failure(row: Mapping[str, Any]) -> str | None:
    """Return why a row holds no answer, or ``None`` where it holds one."""
    if error := row.get("error"):
        return str(error.get("code") or error.get("message"))
    response = row["response"]
    if response["status_code"] != 200:
        return f"HTTP {response['status_code']}"
    try:
        _answer(row)
    except BrokenCompletion:
        return "broken answer"
    return None


def _answer(row: Mapping[str, Any]) -> Answer:
    return read_completion(row["response"]["body"])
