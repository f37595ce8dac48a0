from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from manylens.config import AnnotateConfig, SamplingConfig, TransformersOptions, TuneConfig
from manylens.errors import BudgetError, ConfigError
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.annotate import RATIONALIZE, annotate, check_annotating, rationalize
from manylens.teacher.answers import AnswerFormat, format_answer, format_thought
from manylens.teacher.backends import Answer, RecordedBackend, Request
from manylens.teacher.perspectives import NEUTRAL
from manylens.teacher.rows import RATIONALE_SCHEMA, Rows, rationale_row
from manylens.teacher.spending import Budget
from manylens.teacher.store import JudgementStore


class Scripted:
    """A teacher that says the same of every pair, and writes down what it was asked."""

    answer_format: AnswerFormat = "text"

    def __init__(self, name: str, says: Callable[[Request], str]) -> None:
        self.name, self.sampling = name, '{"max_tokens":20}'
        self._says = says
        self.asked: list[Request] = []

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        for request in requests:
            self.asked.append(request)
            yield request, Answer(text=self._says(request), prompt_tokens=300, completion_tokens=20)


def obedient(request: Request) -> str:
    """Close with the label that the prompt gives, where it gives one, except for pair 3."""
    shown = request.messages[1]["content"]
    given = shown.partition("Label given by an expert: ")[2].splitlines()
    return format_answer("It says so.", given[0] if given and "lotion 3" not in shown else "complement")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JudgementStore]:
    with JudgementStore(tmp_path / "judgements.sqlite") as opened:
        yield opened


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> list[Pair]:
    return [
        make_pair(1, "exact"),
        make_pair(2, "substitute"),
        make_pair(3, "irrelevant"),
        make_pair(4, None),
        make_pair(5, "substitute", split="dev"),
    ]


@pytest.fixture
def known(pairs: list[Pair], make_judgement: Callable[..., Judgement]) -> pa.Table:
    """The panel reached the label of pair 1 alone."""
    rows = Rows(RATIONALE_SCHEMA)
    for pair, label in zip(pairs, ("exact", "exact", "exact", "exact", "exact"), strict=True):
        rows.add(**rationale_row(make_judgement(pair, "a", label), pair.label))
    return rows.table()


def test_a_tuned_teachers_thoughts_are_its_rationales(pairs: list[Pair], store: JudgementStore) -> None:
    teacher = Scripted("tuned", lambda request: format_thought("The titles agree.", "exact"))
    found = annotate(pairs[:2], ESCI, NEUTRAL, {"unified": teacher}, store, AnnotateConfig())
    assert found.rationales.to_pylist() == [
        {
            "pair_id": pair.pair_id, "perspective": "neutral", "sample": 0, "label": "exact",
            "rationale": "The titles agree.", "consistent": pair.label == "exact", "rationalized": False,
        }
        for pair in pairs[:2]
    ]  # fmt: skip
    assert found.rationales.schema == RATIONALE_SCHEMA
    assert (found.reports["unified"].requested, found.reports["unified"].asked) == (2, 2)
    assert all("Label given" not in message["content"] for request in teacher.asked for message in request.messages)
    again = annotate(pairs, ESCI, NEUTRAL, {"unified": teacher}, store, AnnotateConfig())
    assert (again.reports["unified"].reused, again.rationales.num_rows) == (2, 5)


def test_members_of_an_ensemble_are_told_apart(pairs: list[Pair], store: JudgementStore) -> None:
    members = {
        "a": Scripted("tuned a", lambda request: format_thought("Because.", "exact")),
        "b": Scripted("tuned b", lambda request: "I cannot say."),
        "c": Scripted("tuned c", lambda request: format_thought("No.", "irrelevant")),
    }
    rows = annotate(pairs[:2], ESCI, NEUTRAL, members, store, AnnotateConfig(samples=2)).rationales.to_pylist()
    assert [(row["perspective"], row["pair_id"][:2], row["sample"]) for row in rows] == [
        (name, pair, sample) for name in ("a", "c") for pair in ("q1", "q2") for sample in (0, 1)
    ]


def test_the_label_is_given_only_where_none_was_reached(
    pairs: list[Pair], known: pa.Table, store: JudgementStore
) -> None:
    teacher = Scripted("base", obedient)
    found = rationalize(pairs, known, ESCI, teacher, store)
    # Pair 1 was reached, pair 4 has no label, pair 5 is no train pair; of pair 3 the teacher will not be told.
    assert [request.pair_id[:2] for request in teacher.asked] == ["q2", "q3"]
    assert found.rationales.to_pylist() == [
        {
            "pair_id": "q2:p2", "perspective": RATIONALIZE, "sample": 0, "label": "substitute",
            "rationale": "It says so.", "consistent": True, "rationalized": True,
        }
    ]  # fmt: skip
    prompt = teacher.asked[0].messages
    assert "do not mention the expert" in prompt[0]["content"] and "substitute: the product" in prompt[0]["content"]
    assert "Label given by an expert: substitute" in prompt[1]["content"]
    assert prompt[0] == teacher.asked[1].messages[0]  # One system message for all, for the prefix cache.
    assert rationalize(pairs, known, ESCI, teacher, store).rationales == found.rationales
    assert len(teacher.asked) == 2


def test_a_corrected_label_is_asked_anew(pairs: list[Pair], known: pa.Table, store: JudgementStore) -> None:
    teacher = Scripted("base", obedient)
    rationalize(pairs[1:2], known, ESCI, teacher, store)
    found = rationalize([replace(pairs[1], label="irrelevant")], known, ESCI, teacher, store)
    assert found.rationales["label"].to_pylist() == ["irrelevant"] and len(teacher.asked) == 2


def test_recorded_rationalisations_are_found(
    pairs: list[Pair], known: pa.Table, store: JudgementStore, tmp_path: Path
) -> None:
    recorded = tmp_path / "judgements.jsonl"
    row = {
        "pair_id": "q2:p2",
        "perspective": RATIONALIZE,
        "rationale": "It could serve.",
        "label": "substitute",
    }
    recorded.write_text(json.dumps(row))
    found = rationalize(pairs, known, ESCI, RecordedBackend(recorded), store)
    assert found.rationales["rationale"].to_pylist() == ["It could serve."]
    assert found.reports[RATIONALIZE].unanswered == 1


def test_rationalising_stays_within_the_budget(pairs: list[Pair], known: pa.Table, store: JudgementStore) -> None:
    with pytest.raises(BudgetError, match="no room for another request"):
        rationalize(pairs, known, ESCI, Scripted("base", obedient), store, budget=Budget(10, "tokens"))


def test_samples_of_a_greedy_teacher_are_refused() -> None:
    greedy = TuneConfig()
    drawn = TuneConfig(generate=TransformersOptions(sampling=SamplingConfig(temperature=0.7)))
    check_annotating(AnnotateConfig(), greedy)
    check_annotating(AnnotateConfig(samples=3), drawn)
    check_annotating(AnnotateConfig(samples=3), None)
    with pytest.raises(ConfigError, match=r"annotate\.samples is 3, but at tune\.generate\.sampling\.temperature 0"):
        check_annotating(AnnotateConfig(samples=3), greedy)
