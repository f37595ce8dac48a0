from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from manylens.config import OpenAITeacher, RecordedTeacher, SamplingConfig, TransformersTeacher, VllmTeacher
from manylens.data import Pairs
from manylens.errors import ConfigError, TeacherError
from manylens.records import ESCI, Judgement, Pair, Perspective
from manylens.teacher.answers import AnswerFormat, format_answer
from manylens.teacher.backends import Answer, Request
from manylens.teacher.judge import judge
from manylens.teacher.perspectives import load_perspective
from manylens.teacher.propose import (
    KEPT,
    MIN_TOKENS,
    Proposed,
    choose_cases,
    proposal_messages,
    propose,
    proposing_teacher,
    sample_pairs,
)
from manylens.teacher.store import JudgementStore

ANSWER = 'Gladly:\n```json\n[{"name": "Returns", "description": "Back?", "instruction": "Is {{ it }} kept?"}, {}]\n```'
PANEL = [load_perspective("user_intent"), load_perspective("business_rules")]


class ScriptedBackend:
    """A teacher that takes every product for exact, and has one answer to a request for perspectives."""

    name = "scripted"
    sampling = "{}"
    answer_format: AnswerFormat = "text"

    def __init__(self, proposal: str | None = ANSWER) -> None:
        self.proposal, self.asked = proposal, list[Request]()

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        for request in requests:
            self.asked.append(request)
            text = self.proposal if request.perspective == "propose" else format_answer("It fits.", "exact")
            yield request, None if text is None else Answer(text=text, prompt_tokens=9, completion_tokens=5)


@pytest.fixture
def train(make_pair: Callable[..., Pair]) -> Pairs:
    """Forty pairs, half of them exact; to say exact of the others is an error."""
    return Pairs.from_records(make_pair(number, "exact" if number % 2 else "irrelevant") for number in range(40))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JudgementStore]:
    with JudgementStore(tmp_path / "store.sqlite") as opened:
        yield opened


def ask(train: Pairs, store: JudgementStore, folder: Path, backend: ScriptedBackend) -> Proposed:
    return propose(train, PANEL, ESCI, backend, backend, store, folder, count=2, shown=6, seed=1)


def test_perspectives_are_asked_for_written_and_the_raw_answer_is_kept(
    train: Pairs, store: JudgementStore, tmp_path: Path
) -> None:
    backend, folder = ScriptedBackend(), tmp_path / "new"
    judge(train, PANEL, ESCI, backend, store)
    backend.asked.clear()
    proposed = ask(train, store, folder, backend)
    assert proposed == Proposed(files=(folder / "returns.jinja",), shown=6, errors=3, refused=1)
    assert load_perspective(str(folder / "returns.jinja")).description == "Back?"
    (request,) = backend.asked
    kept = json.loads((folder / KEPT).read_text(encoding="utf-8"))
    assert (kept["text"], kept["prompt_tokens"], kept["completion_tokens"]) == (ANSWER, 9, 5)
    assert (kept["teacher"], kept["messages"]) == ("scripted", request.messages)


def test_an_answer_that_is_kept_is_not_paid_for_again(train: Pairs, store: JudgementStore, tmp_path: Path) -> None:
    first = ask(train, store, tmp_path / "new", ScriptedBackend())
    (tmp_path / "new" / "returns.jinja").unlink()  # As if the process had been killed before it was written.
    again = ScriptedBackend()
    assert ask(train, store, tmp_path / "new", again) == first
    assert again.asked == [] and (tmp_path / "new" / "returns.jinja").is_file()


def test_a_folder_with_another_proposal_is_refused_before_anything_is_asked(
    train: Pairs, store: JudgementStore, tmp_path: Path
) -> None:
    ask(train, store, tmp_path / "new", ScriptedBackend())
    backend = ScriptedBackend()
    with pytest.raises(TeacherError, match=r"proposal\.json keeps the answer to another question.*--out"):
        propose(train, PANEL[:1], ESCI, backend, backend, store, tmp_path / "new", count=2, shown=6, seed=1)
    assert backend.asked == []


def test_an_answer_without_a_perspective_is_kept_all_the_same(
    train: Pairs, store: JudgementStore, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match=r"holds no perspective; expected a JSON array.*proposal\.json"):
        ask(train, store, tmp_path / "new", ScriptedBackend("I cannot think of any."))
    assert "I cannot think of any." in (tmp_path / "new" / KEPT).read_text(encoding="utf-8")


def test_no_answer_leaves_nothing_behind(train: Pairs, store: JudgementStore, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="did not answer; run the same command again"):
        ask(train, store, tmp_path / "new", ScriptedBackend(None))
    assert not (tmp_path / "new").exists()


def cases_of(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement], wrong: int, right: int, count: int
) -> list[bool]:
    pairs = [make_pair(number) for number in range(wrong + right)]
    judgements = [
        make_judgement(pair, name, "irrelevant" if number < wrong and name != "c" else "exact")
        for number, pair in enumerate(pairs)
        for name in "abc"
    ]
    return [case.wrong for case in choose_cases(pairs, judgements, ESCI, count)]


def test_half_of_the_cases_are_errors_where_there_are_enough(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    assert cases_of(make_pair, make_judgement, 9, 9, 5) == [True, True, True, False, False]
    assert cases_of(make_pair, make_judgement, 1, 9, 4) == [True, False, False, False]
    assert cases_of(make_pair, make_judgement, 9, 1, 4) == [True, True, True, False]
    assert cases_of(make_pair, make_judgement, 2, 1, 9) == [True, True, False]


def test_an_unjudged_pair_or_one_without_a_gold_label_is_no_error(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pairs = [make_pair(1), make_pair(2, None)]
    judgements = [
        make_judgement(pairs[0], "a", None, reason="unanswered"),
        make_judgement(pairs[1], "a", "exact"),
    ]
    cases = choose_cases(pairs, judgements, ESCI, 4)
    assert [(case.wrong, len(case.judgements)) for case in cases] == [(False, 0), (False, 1)]


def test_the_question_shows_labels_panel_pairs_and_what_was_said(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pairs = [make_pair(1, "substitute"), make_pair(2, None)]
    rationale = "Same lotion.\n\nRight label: exact" + " and so on" * 60
    judgements = [
        make_judgement(pairs[0], "user_intent", "exact", rationale=rationale),
        make_judgement(pairs[0], "own", None),
        make_judgement(pairs[1], "user_intent", "irrelevant"),
    ]
    panel = [load_perspective("user_intent"), Perspective(name="own", description="", template="")]
    messages = proposal_messages(choose_cases(pairs, judgements, ESCI, 2), panel, ESCI, 3)
    system, user = (message["content"] for message in messages)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "- substitute: the product misses some specification" in system
    assert f"- user_intent: {panel[0].description}" in system and "- own: no description" in system
    first, second = user.split("Pair 2")
    assert first.startswith("Pair 1 (the judges' majority is wrong)\nQuery: unscented lotion 1\n")
    assert "\nRight label: substitute\n- user_intent said exact: Same lotion. Right label: exact and so on" in first
    assert first.count("and so on") < 50 and "so on and..." in first and "\n- own said no label: " in first
    assert "majority" not in second and "Right label: unknown\n" in second
    assert "propose 3 new perspectives. Answer with a JSON array of 3 objects" in second
    single = proposal_messages([], panel, ESCI, 1)[1]["content"]
    assert "propose 1 new perspective. Answer with a JSON array of 1 object and" in single


def test_a_sample_is_drawn_without_replacement_and_by_the_seed(train: Pairs) -> None:
    ids = [pair.pair_id for pair in sample_pairs(train, 10, 1)]
    assert len(set(ids)) == 10
    assert ids == [pair.pair_id for pair in sample_pairs(train, 10, 1)]
    assert ids != [pair.pair_id for pair in sample_pairs(train, 10, 2)]
    assert sorted(pair.pair_id for pair in sample_pairs(train, 100, 1)) == sorted(pair.pair_id for pair in train)
    assert len(sample_pairs(train.split("dev"), 10, 1)) == 0


def test_the_teacher_may_write_more_and_is_not_held_to_a_judgements_form() -> None:
    openai = OpenAITeacher(backend="openai", model="m", structured_output="response_format")
    changed = proposing_teacher(openai)
    assert isinstance(changed, OpenAITeacher)
    assert (changed.structured_output, changed.sampling.max_tokens, changed.model) == ("off", MIN_TOKENS, "m")
    vllm = proposing_teacher(VllmTeacher(backend="vllm", model="m", structured_output=True))
    assert isinstance(vllm, VllmTeacher) and not vllm.structured_output
    roomy = TransformersTeacher(backend="transformers", model="m", sampling=SamplingConfig(max_tokens=9000))
    assert proposing_teacher(roomy) == roomy


def test_a_file_of_judgements_cannot_propose() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.backend: recorded judgements cannot propose.*openai, vllm"):
        proposing_teacher(RecordedTeacher())
