from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens.errors import TeacherError
from manylens.records import Judgement, Pair
from manylens.teacher.judgements import JUDGEMENT_SCHEMA, by_pair, read_judgements, write_judgements


def test_the_schema_follows_the_record() -> None:
    assert set(JUDGEMENT_SCHEMA.names) == {field.name for field in fields(Judgement)}


def test_judgements_come_back_as_written(
    tmp_path: Path, make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    judgements = [
        make_judgement(
            make_pair(1), "user_intent", "exact", prompt_tokens=7, completion_tokens=9, finish_reason="stop"
        ),
        make_judgement(make_pair(1), "business_rules", None, sample=2),
    ]
    path = tmp_path / "judgements.parquet"
    assert write_judgements(path, iter(judgements)) == 2
    assert list(read_judgements(path)) == judgements
    assert write_judgements(path, []) == 0
    assert list(read_judgements(path)) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    def failing() -> Iterator[Judgement]:
        yield make_judgement(make_pair(2), "user_intent", "exact")
        raise RuntimeError("stop")

    path = tmp_path / "judgements.parquet"
    old = [make_judgement(make_pair(1), "user_intent", "exact")]
    write_judgements(path, old)
    with pytest.raises(RuntimeError, match="stop"):
        write_judgements(path, failing())
    assert list(read_judgements(path)) == old


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TeacherError, match=r"other\.parquet: expected the columns \['pair_id'"):
        list(read_judgements(path))
    path.write_text("text")
    with pytest.raises(TeacherError, match="expected a Parquet file of judgements"):
        list(read_judgements(path))
    with pytest.raises(TeacherError, match="expected a Parquet file of judgements"):
        list(read_judgements(tmp_path / "none.parquet"))


def test_judgements_are_joined_to_their_pairs(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    one, two, three = (make_pair(number) for number in (1, 2, 3))
    a, b, c = make_judgement(one, "a", "exact"), make_judgement(one, "b", "exact"), make_judgement(three, "a", "exact")
    assert list(by_pair([one, two, three], [a, b, c])) == [(one, [a, b]), (three, [c])]
    for pairs, judgements in (([one, two], [a, c]), ([one, three], [c, a])):
        with pytest.raises(TeacherError, match="not among the pairs or stands before"):
            list(by_pair(pairs, judgements))
