from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from manylens.data import Pairs
from manylens.errors import TeacherError
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.additions import Addition, additions_table, judge_additions, measure_additions
from manylens.teacher.backends import RecordedBackend
from manylens.teacher.perspectives import load_perspective
from manylens.teacher.store import JudgementStore


def test_figures_worked_out_by_hand(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> None:
    rows: list[tuple[str | None, str | None, str | None, str]] = [
        ("exact", "exact", "exact", "exact"),
        ("exact", "irrelevant", "substitute", "exact"),  # rescued
        ("exact", "irrelevant", None, "irrelevant"),
        ("substitute", "irrelevant", "irrelevant", "-"),  # the candidate was not answered
        (None, "exact", "exact", "exact"),  # no gold label: left out
        ("exact", "-", "-", "-"),  # nothing answered: left out
    ]
    pairs = [make_pair(number, row[0], query_id=f"q{number // 2}") for number, row in enumerate(rows)]
    judgements = [
        make_judgement(
            pair,
            name,
            None if label == "-" else label,
            reason="unanswered" if label == "-" else None if label else "no_label",
            prompt_tokens=None if label == "-" else 100,
            completion_tokens=None if label == "-" else number,
        )
        for number, (pair, row) in enumerate(zip(pairs, rows, strict=True))
        for name, label in zip(("a", "b", "new"), row[1:], strict=True)
    ]
    additions = measure_additions(pairs, judgements, ["a", "b"], ["new"])
    assert (additions.pairs, additions.queries, additions.panel) == (4, 2, ("a", "b"))
    assert (additions.oracle, additions.oracle_with_all) == (1 / 4, 2 / 4)
    # Labels of a and b beside the candidate's: two equal, none of two, one of one.
    assert additions.candidates == (
        Addition(
            name="new",
            answered=3,
            accuracy=pytest.approx(2 / 3),
            rescued=1,
            gain=1 / 4,
            agreement=pytest.approx(3 / 5),
            tokens=pytest.approx((100 + 101 + 102) / 3),
        ),
    )


def test_candidates_are_measured_apart_and_together(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pairs = [make_pair(number) for number in range(3)]
    right = {"panel": (0,), "one": (0, 1), "two": (1, 2)}
    judgements = [
        make_judgement(pair, name, "exact" if number in rights else "irrelevant")
        for number, pair in enumerate(pairs)
        for name, rights in right.items()
    ]
    additions = measure_additions(pairs, judgements, ["panel"], ["one", "two"])
    assert [(each.rescued, each.tokens) for each in additions.candidates] == [(1, None), (2, None)]
    assert (additions.oracle, additions.oracle_with_all) == (pytest.approx(1 / 3), 1.0)


def test_the_table_fits_eighty_columns_and_names_are_no_markup(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pair, name = make_pair(1), "[bold]perspective"
    judgements = [make_judgement(pair, "user_intent", "irrelevant"), make_judgement(pair, name, "exact")]
    stream = StringIO()
    Console(file=stream, width=80).print(
        additions_table(measure_additions([pair], judgements, ["user_intent"], [name, "silent"]))
    )
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert [name, "1", "1.000", "1", "+1.000", "0.000", "-"] in lines
    assert ["silent", "0", "-", "0", "+0.000", "-", "-"] in lines
    assert "Oracle of the panel (user_intent): 0.000; with all of these 1.000" in " ".join(stream.getvalue().split())


def test_only_what_the_store_lacks_is_asked_and_only_labelled_pairs(
    make_pair: Callable[..., Pair], tmp_path: Path
) -> None:
    dev = [make_pair(number, "exact" if number % 2 else None, split="dev") for number in range(40)]
    file = tmp_path / "judgements.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for pair in dev:
            for name in ("user_intent", "neutral"):
                label = "exact" if name == "neutral" else "irrelevant"
                line = {"pair_id": pair.pair_id, "perspective": name, "rationale": "So.", "label": label}
                stream.write(json.dumps(line) + "\n")
    panel, candidates = [load_perspective("user_intent")], [load_perspective("neutral")]
    with JudgementStore(tmp_path / "store.sqlite") as store:

        def measure(most: int) -> tuple[int, int]:
            additions = judge_additions(
                Pairs.from_records(dev), panel, candidates, ESCI, RecordedBackend(file), store, most=most, seed=1
            )
            assert (additions.oracle, additions.oracle_with_all) == (0.0, 1.0)
            return additions.pairs, len(store)

        assert measure(5) == (5, 10)
        assert measure(5) == (5, 10)
        assert measure(8) == (8, 16)
        assert measure(100) == (20, 40)


def test_without_a_gold_label_there_is_nothing_to_measure(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    file = tmp_path / "judgements.jsonl"
    file.touch()
    pairs = Pairs.from_records([make_pair(1, None)])
    with (
        JudgementStore(tmp_path / "store.sqlite") as store,
        pytest.raises(TeacherError, match="none of the 1 dev pairs has a gold label"),
    ):
        judge_additions(pairs, [], [], ESCI, RecordedBackend(file), store, most=3, seed=1)
