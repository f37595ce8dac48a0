from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from manylens.config import RecordedTeacher
from manylens.errors import BadRowError, ConfigError
from manylens.records import ESCI, Pair
from manylens.teacher.answers import parse_answer
from manylens.teacher.backends import RecordedBackend, Request, build_backend

ROW = {
    "query_id": "q1",
    "product_id": "p1",
    "perspective": "user_intent",
    "sample": 0,
    "rationale": "Fits.",
    "label": "exact",
}


def without(field: str) -> dict[str, object]:
    return {name: value for name, value in ROW.items() if name != field}


def write(path: Path, *rows: dict[str, object] | str | bytes) -> Path:
    lines = [
        row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else json.dumps(row).encode()
        for row in rows
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def request(pair: Pair, perspective: str = "user_intent", sample: int = 0) -> Request:
    return Request(pair_id=pair.pair_id, perspective=perspective, sample=sample, messages=[], prompt_hash="")


def test_recorded_judgements_are_answered_and_missing_ones_are_not(
    tmp_path: Path, make_pair: Callable[..., Pair]
) -> None:
    second = {"pair_id": "q2:p2", "perspective": "business_rules", "rationale": "Größe\npasst.", "label": "S"}
    other_sample = {**ROW, "sample": 3, "rationale": "Still fits."}
    backend = RecordedBackend(write(tmp_path / "r.jsonl", ROW, "", second, other_sample))
    requests = [
        request(make_pair(2), "business_rules"),
        request(make_pair(1), "business_rules"),
        request(make_pair(1)),
        request(make_pair(1), sample=3),
    ]
    answers = list(backend.ask(iter(requests)))
    assert [asked for asked, _ in answers] == requests
    assert [answer and answer.text for _, answer in answers] == [
        "Größe\npasst.\n\nLabel: S",
        None,
        "Fits.\n\nLabel: exact",
        "Still fits.\n\nLabel: exact",
    ]


def test_a_recorded_label_is_read_like_any_other(tmp_path: Path, make_pair: Callable[..., Pair]) -> None:
    backend = RecordedBackend(write(tmp_path / "r.jsonl", {**ROW, "label": "fine"}, {**ROW, "sample": 1, "label": "E"}))
    answers = [answer for _, answer in backend.ask([request(make_pair(1)), request(make_pair(1), sample=1)])]
    assert [parse_answer(answer.text, ESCI).reason for answer in answers if answer] == ["unknown_label", None]


def test_numbers_as_ids_are_read_as_text(tmp_path: Path, make_pair: Callable[..., Pair]) -> None:
    backend = RecordedBackend(write(tmp_path / "r.jsonl", {**ROW, "query_id": 5, "product_id": 6}))
    ((_, answer),) = backend.ask([request(make_pair(1, pair_id="5:6"))])
    assert answer is not None


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ("{not json", None, "Invalid JSON"),
        (json.dumps(ROW)[:-9], None, "Invalid JSON"),
        ("[]", None, "should be an object"),
        (b'{"query_id": "\xff"}', None, "Invalid JSON"),
        (without("query_id"), None, "expected pair_id, or query_id and product_id"),
        (without("perspective"), "perspective", "required"),
        (without("label"), "label", "required"),
        ({**ROW, "rationale": None}, "rationale", "valid string"),
        ({**ROW, "product_id": ""}, "product_id", "at least 1 character"),
        ({**ROW, "sample": -1}, "sample", "greater than or equal to 0"),
        ({**ROW, "sample": "first"}, "sample", "valid integer"),
        (ROW, None, "recorded twice"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(
    tmp_path: Path, row: dict[str, object] | str | bytes, field: str | None, problem: str
) -> None:
    path = write(tmp_path / "r.jsonl", ROW, row)
    with pytest.raises(BadRowError, match=problem) as caught:
        RecordedBackend(path)
    assert (caught.value.file, caught.value.row, caught.value.field) == (str(path), 2, field)


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(BadRowError, match="expected a JSONL file of recorded judgements") as caught:
            RecordedBackend(path)
        assert caught.value.file == str(path)


def test_the_content_of_the_file_is_the_teacher(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROW)
    copy = Path(shutil.copy(path, tmp_path / "b.jsonl"))
    other = write(tmp_path / "c.jsonl", {**ROW, "label": "substitute"})
    assert RecordedBackend(path).name == RecordedBackend(copy).name
    assert RecordedBackend(path).name != RecordedBackend(other).name
    assert RecordedBackend(path).name.startswith("recorded:")


def test_building_from_the_recipe(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROW)
    other = write(tmp_path / "b.jsonl", {**ROW, "sample": 1})
    assert build_backend(RecordedTeacher(), path).name == RecordedBackend(path).name
    assert build_backend(RecordedTeacher(path=str(other)), path).name == RecordedBackend(other).name
    with pytest.raises(ConfigError, match=r"teacher\.path is required"):
        build_backend(RecordedTeacher(), None)
