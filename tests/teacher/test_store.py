from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from manylens.errors import TeacherError
from manylens.records import Judgement, Pair
from manylens.teacher.judgements import read_judgements
from manylens.teacher.store import JudgementStore, Key


def key_of(judgement: Judgement) -> Key:
    return Key(*(getattr(judgement, name) for name in Key._fields))


@pytest.fixture
def judgement(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> Judgement:
    return make_judgement(
        make_pair(1), "user_intent", "exact", raw="Größe\x00 passt", prompt_tokens=7, finish_reason="stop"
    )


def test_answers_outlive_the_store_and_are_never_overwritten(tmp_path: Path, judgement: Judgement) -> None:
    path = tmp_path / "store.sqlite"
    with JudgementStore(path) as store:
        store.add([judgement])
        store.add([replace(judgement, raw="another answer to the same question", label="irrelevant")])
    with JudgementStore(path) as store:
        assert len(store) == 1
        assert store.get(key_of(judgement)) == judgement


def test_every_part_of_the_question_makes_another_answer(tmp_path: Path, judgement: Judgement) -> None:
    changes: dict[str, object] = {
        "pair_id": "q2:p2",
        "perspective": "business_rules",
        "sample": 1,
        "teacher": "another",
        "sampling": '{"temperature":1}',
        "prompt_hash": "1" * 64,
    }
    with JudgementStore(tmp_path / "store.sqlite") as store:
        store.add([judgement])
        for number, (name, value) in enumerate(changes.items(), start=2):
            other = replace(judgement, **{name: value})
            assert key_of(other) not in store
            assert store.get(key_of(other)) is None
            store.add([other])
            assert key_of(other) in store
            assert len(store) == number


def test_a_batch_is_added_wholly_or_not_at_all(tmp_path: Path, judgement: Judgement) -> None:
    with JudgementStore(tmp_path / "store.sqlite") as store:
        with pytest.raises(TeacherError, match=r"NOT NULL constraint failed: judgements\.raw"):
            store.add([judgement, replace(judgement, sample=1, raw=None)])  # type: ignore[arg-type]
        assert len(store) == 0


def test_two_processes_may_share_a_store(tmp_path: Path, judgement: Judgement) -> None:
    path = tmp_path / "store.sqlite"
    with JudgementStore(path) as first, JudgementStore(path) as second:
        first.add([judgement])
        assert key_of(judgement) in second
        second.add([replace(judgement, sample=1)])
        assert len(first) == 2


def test_export_is_sorted_and_whole(tmp_path: Path, judgement: Judgement) -> None:
    judgements = [replace(judgement, pair_id=f"q{number}:p") for number in (3, 1, 2)]
    with JudgementStore(tmp_path / "store.sqlite") as store:
        store.add(judgements)
        assert store.export(tmp_path / "all.parquet") == 3
    assert list(read_judgements(tmp_path / "all.parquet")) == sorted(judgements, key=key_of)


def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, judgement: Judgement) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, and rather a lot of them\n" * 100)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE judgements (a)")
    connection.close()
    later = tmp_path / "later.sqlite"
    with JudgementStore(later) as store:
        store.add([judgement])
    with sqlite3.connect(later) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path, problem in (
        (text, "not a database"),
        (foreign, "is a database, but not a judgement store"),
        (later, "has store version 99, this manylens reads 2"),
        (text / "store.sqlite", "File exists|Not a directory"),
    ):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(TeacherError, match=problem):
            JudgementStore(path)
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_store_makes_its_folder(tmp_path: Path, judgement: Judgement) -> None:
    with JudgementStore(tmp_path / "new" / "folder" / "store.sqlite") as store:
        store.add([judgement])
    assert (tmp_path / "new" / "folder" / "store.sqlite").is_file()


def test_statistics_go_by_teacher_and_perspective(tmp_path: Path, judgement: Judgement) -> None:
    with JudgementStore(tmp_path / "store.sqlite") as store:
        store.add(
            [
                replace(judgement, completion_tokens=10),
                replace(judgement, sample=1, completion_tokens=20, label=None, reason="truncated"),
                replace(judgement, sample=2, completion_tokens=None),
                replace(judgement, sample=3, completion_tokens=None, label=None, reason="no_label"),
                replace(judgement, perspective="business_rules", completion_tokens=None),
                replace(judgement, teacher="another", completion_tokens=99),
                replace(judgement, sampling='{"temperature":1}', completion_tokens=99),
            ]
        )
        assert store.statistics(judgement.teacher, judgement.sampling) == {
            "user_intent": (4, 2, 15.0, 0.5),
            "business_rules": (1, 0, None, 0.0),
        }
