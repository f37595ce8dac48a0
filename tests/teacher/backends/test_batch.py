from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manylens.config import OpenAITeacher
from manylens.errors import BadRowError, TeacherError
from manylens.records import ESCI, Pair
from manylens.teacher import JudgementStore, judgements_of, load_perspective
from manylens.teacher.backends import Answer, Request
from manylens.teacher.backends.batch import BatchResults, custom_id, ingest, requests_due, write_batch
from manylens.teacher.backends.openai import OpenAIBackend
from manylens.teacher.questions import requests_of
from servers.scripted import completion

PANEL = [load_perspective("user_intent"), load_perspective("business_rules")]
PAIRS = [
    Pair(pair_id=f"q{n}:p{n}", query_id=f"q{n}", product_id=f"p{n}", query=f"mug {n}", title=f"A mug {n}")
    for n in range(10)
]
RIGHT, WRONG = "It fits.\n\nLabel: exact", "It fits."


@pytest.fixture
def backend() -> OpenAIBackend:
    return OpenAIBackend(OpenAITeacher(backend="openai", model="gpt", sampling={"temperature": 0.7}))  # type: ignore[arg-type]


def questions() -> list[Request]:
    return list(requests_of(PAIRS, PANEL, ESCI))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answered(name: str, content: str = RIGHT) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": "r", "body": completion(content)}
    return {"id": "b", "custom_id": name, "response": response, "error": None}


def refused(name: str, status: int = 400) -> dict[str, Any]:
    body = {"error": {"message": "no"}}
    return {"id": "b", "custom_id": name, "response": {"status_code": status, "body": body}, "error": None}


def expired(name: str) -> dict[str, Any]:
    error = {"code": "batch_expired", "message": "This request could not be executed before the completion window."}
    return {"id": "b", "custom_id": name, "response": None, "error": error}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_lines_of_a_batch_file(backend: OpenAIBackend, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    assert write_batch(questions(), backend, path) == [(path, 20)]
    for line, request in zip(lines(path), questions(), strict=True):
        assert line == {
            "custom_id": custom_id(request, backend),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": backend.body(request),
        }
        assert line["body"]["messages"] == request.messages
    assert [file.name for file in tmp_path.iterdir()] == ["batch.jsonl"]


def test_whatever_makes_another_question_makes_another_id(backend: OpenAIBackend) -> None:
    request = questions()[0]
    others = [
        replace(request, pair_id="x"),
        replace(request, perspective="x"),
        replace(request, sample=1),
        replace(request, attempt=1),
        replace(request, prompt_hash="x"),
    ]
    names = {custom_id(each, backend) for each in [request, *others]}
    names.add(custom_id(request, OpenAIBackend(OpenAITeacher(backend="openai", model="other"))))
    names.add(custom_id(request, OpenAIBackend(OpenAITeacher(backend="openai", model="gpt"))))
    assert len(names) == 8
    assert all(len(name) == 64 for name in names)


def test_files_are_split_at_the_limits(backend: OpenAIBackend, tmp_path: Path) -> None:
    files = write_batch(questions(), backend, tmp_path / "a.jsonl", most_requests=8)
    assert [(file.path.name, file.requests) for file in files] == [("a.jsonl", 8), ("a-2.jsonl", 8), ("a-3.jsonl", 4)]

    whole = (tmp_path / "a.jsonl").read_bytes() + (tmp_path / "a-2.jsonl").read_bytes()
    sizes = [len(line) + 1 for line in whole.splitlines()]
    files = write_batch(questions(), backend, tmp_path / "b.jsonl", most_bytes=sum(sizes[:3]))
    assert files[0].requests == 3
    assert all(file.path.stat().st_size <= sum(sizes[:3]) for file in files)
    assert sum(file.requests for file in files) == 20

    # A request that is larger than a file may be stands alone: the server says what it thinks of it.
    files = write_batch(questions(), backend, tmp_path / "c.jsonl", most_bytes=1)
    assert [file.requests for file in files] == [1] * 20


def test_a_file_that_may_have_been_handed_in_is_not_overwritten(backend: OpenAIBackend, tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text("precious")
    with pytest.raises(TeacherError, match=r"batch\.jsonl exists already"):
        write_batch(questions(), backend, path)
    assert path.read_text() == "precious"
    assert write_batch([], backend, path) == []


def test_results_find_their_questions_in_any_order_and_file(backend: OpenAIBackend, tmp_path: Path) -> None:
    rows = [answered(custom_id(request, backend), f"{request.pair_id}\n\nLabel: exact") for request in questions()]
    random.Random(0).shuffle(rows)
    paths = [write_rows(tmp_path / "one.jsonl", rows[:7]), write_rows(tmp_path / "two.jsonl", rows[7:])]
    results = BatchResults(paths)
    found = dict((request.pair_id + request.perspective, answer) for request, answer in joined(results, backend))
    for request in questions():
        answer = found[request.pair_id + request.perspective]
        assert answer == Answer(
            text=f"{request.pair_id}\n\nLabel: exact", prompt_tokens=11, completion_tokens=7, finish_reason="stop"
        )
    report = results.report()
    assert (report.rows, report.answered, report.failed, report.duplicates, report.unknown) == (20, 20, {}, 0, 0)


def test_failed_rows_duplicates_and_strangers_are_counted(backend: OpenAIBackend, tmp_path: Path) -> None:
    names = [custom_id(request, backend) for request in questions()]
    broken = answered(names[4])
    broken["response"]["body"] = {"choices": []}
    rows = [
        answered(names[0]),
        answered(names[0], "Second thoughts.\n\nLabel: irrelevant"),
        refused(names[1]),
        refused(names[2], 500),
        expired(names[3]),
        broken,
        # Handed in again after it had failed: the answer counts, in whichever order.
        expired(names[5]),
        answered(names[5]),
        answered(names[6]),
        refused(names[6]),
        answered("somebody else's"),
        refused("somebody else's too"),
    ]
    results = BatchResults([write_rows(tmp_path / "rows.jsonl", rows)])
    found = joined(results, backend)
    assert [request for request, _ in found] == questions()[:7]
    texts = [answer and answer.text for _, answer in found]
    assert texts == [RIGHT, None, None, None, None, RIGHT, RIGHT]
    report = results.report()
    assert (report.rows, report.answered, report.duplicates, report.unknown) == (12, 3, 1, 2)
    assert report.failed == {"HTTP 400": 1, "HTTP 500": 1, "batch_expired": 1, "broken answer": 1}


@pytest.mark.parametrize(
    "broken",
    [
        '{"custom_id": "x", "resp',
        "[]",
        "null",
        '{"response": null, "error": null}',
        '{"custom_id": "x", "error": null}',
    ],
)
def test_a_broken_row_is_named(broken: str, backend: OpenAIBackend, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(answered("x")) + "\n\n" + broken + "\n")
    with pytest.raises(BadRowError, match=r"rows\.jsonl, row 3: expected a row of batch results"):
        BatchResults([path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRowError, match=r"gone\.jsonl: expected a JSONL file of batch results"):
        BatchResults([tmp_path / "gone.jsonl"])


def test_answers_land_in_the_store_once(backend: OpenAIBackend, tmp_path: Path) -> None:
    rows = [answered(custom_id(request, backend)) for request in questions()[:15]]
    rows.append(refused(custom_id(questions()[15], backend)))
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with JudgementStore(tmp_path / "store.sqlite") as store:
        assert ingest(joined(BatchResults([path]), backend), backend, ESCI, store) == 15
        assert ingest(joined(BatchResults([path]), backend), backend, ESCI, store) == 0
        assert len(store) == 15
        judgements = list(judgements_of(PAIRS, PANEL, ESCI, backend, store))
        assert [judgement.label for judgement in judgements] == ["exact"] * 15 + [None] * 5
        assert (judgements[0].raw, judgements[0].prompt_tokens, judgements[0].teacher) == (RIGHT, 11, "openai:gpt")
        # What is still due is what the store lacks.
        assert list(requests_due(questions(), backend, ESCI, store)) == questions()[15:]


def test_an_answer_without_a_label_is_due_as_a_further_attempt(backend: OpenAIBackend, tmp_path: Path) -> None:
    first, second, third = questions()[:3]
    with JudgementStore(tmp_path / "store.sqlite") as store:
        answers = [(first, Answer(text=WRONG)), (second, Answer(text=RIGHT)), (third, None)]
        assert ingest(answers, backend, ESCI, store) == 2
        asked = [first, second, third]
        assert list(requests_due(asked, backend, ESCI, store)) == [third]
        assert list(requests_due(asked, backend, ESCI, store, 1)) == [replace(first, attempt=1), third]
        assert ingest([(replace(first, attempt=1), Answer(text=WRONG))], backend, ESCI, store) == 1
        assert list(requests_due(asked, backend, ESCI, store, 1)) == [third]
        assert list(requests_due(asked, backend, ESCI, store, 2)) == [replace(first, attempt=2), third]


def joined(results: BatchResults, backend: OpenAIBackend) -> list[tuple[Request, Answer | None]]:
    return list(results.answers(questions(), backend))
