from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import ScriptedTeacher as Teacher

from manylens.config import JudgeConfig, OpenAITeacher, RecordedTeacher, SamplingConfig
from manylens.errors import ConfigError, TeacherError
from manylens.records import ESCI, Pair
from manylens.teacher.backends import Request
from manylens.teacher.judge import check_sampling, judge, judgements_of
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective
from manylens.teacher.spending import Budget
from manylens.teacher.store import JudgementStore

PANEL = [load_perspective(name) for name in PERSPECTIVES]


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> list[Pair]:
    return [make_pair(number) for number in range(5)]


def test_every_pair_is_judged_once_from_every_perspective(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher()
    report = judge(pairs, PANEL, ESCI, teacher, store, samples=2)
    assert (report.requested, report.reused, report.asked, report.unanswered, report.unparsed) == (30, 0, 30, 0, {})
    assert report.by_perspective["user_intent"].asked == 10
    assert (report.tokens.completion, report.tokens.uncounted, report.cost) == (30 * 5, 0, None)
    assert report.tokens.prompt == sum(counts.tokens.prompt for counts in report.by_perspective.values())
    assert len(set(teacher.asked)) == len(teacher.asked) == 30
    judgements = list(judgements_of(pairs, PANEL, ESCI, teacher, store, samples=2))
    assert [(j.pair_id, j.perspective, j.sample) for j in judgements] == [
        (pair.pair_id, name, sample) for pair in pairs for name in PERSPECTIVES for sample in range(2)
    ]
    first = judgements[0]
    assert (first.label, first.rationale, first.raw) == (
        "exact",
        "user_intent says so.",
        "user_intent says so.\n\nLabel: exact",
    )
    assert (first.completion_tokens, first.finish_reason, first.teacher) == (5, "stop", "test")


def test_only_the_difference_is_asked(store: JudgementStore, pairs: list[Pair], make_pair: Callable[..., Pair]) -> None:
    judge(pairs, PANEL[:2], ESCI, Teacher(), store)
    again, perspective, more, samples = Teacher(), Teacher(), Teacher(), Teacher()
    assert judge(pairs, PANEL[:2], ESCI, again, store).reused == 10
    assert again.asked == []
    judge(pairs, PANEL, ESCI, perspective, store)
    assert perspective.asked == [(pair.pair_id, "business_rules", 0) for pair in pairs]
    judge([*pairs, make_pair(9)], PANEL, ESCI, more, store)
    assert more.asked == [("q9:p9", name, 0) for name in PERSPECTIVES]
    judge(pairs, PANEL[:1], ESCI, samples, store, samples=2)
    assert samples.asked == [(pair.pair_id, "user_intent", 1) for pair in pairs]


def test_a_changed_text_asks_that_perspective_only(store: JudgementStore, pairs: list[Pair]) -> None:
    judge(pairs, PANEL, ESCI, Teacher(), store)
    edited = replace(PANEL[1], template=PANEL[1].template.replace("catalogue analyst", "careful catalogue analyst"))
    teacher = Teacher(lambda _: "Anew.\nLabel: substitute")
    report = judge(pairs, [PANEL[0], edited, PANEL[2]], ESCI, teacher, store)
    assert teacher.asked == [(pair.pair_id, "structured_analysis", 0) for pair in pairs]
    assert (report.reused, report.asked) == (10, 5)
    # Both answers are kept, and each panel sees its own.
    assert len(store) == 20
    new = judgements_of(pairs, [edited], ESCI, teacher, store)
    old = judgements_of(pairs, [PANEL[1]], ESCI, teacher, store)
    assert {j.label for j in new} == {"substitute"}
    assert {j.label for j in old} == {"exact"}


def test_a_changed_pair_or_teacher_is_asked_anew(store: JudgementStore, pairs: list[Pair]) -> None:
    judge(pairs, PANEL, ESCI, Teacher(), store)
    teacher, other = Teacher(), Teacher(name="other")
    judge([replace(pairs[0], title="Another title"), *pairs[1:]], PANEL, ESCI, teacher, store)
    assert teacher.asked == [(pairs[0].pair_id, name, 0) for name in PERSPECTIVES]
    assert judge(pairs, PANEL, ESCI, other, store).asked == 15
    # A gold label is not part of the question.
    assert judge([replace(pair, label="irrelevant") for pair in pairs], PANEL, ESCI, teacher, store).asked == 0


def test_unanswered_is_asked_again_and_unparsed_is_not(store: JudgementStore, pairs: list[Pair]) -> None:
    def patchy(request: Request) -> str | None:
        if request.pair_id == "q0:p0":
            return None
        return "I cannot say." if request.perspective == "user_intent" else "Why not.\nLabel: exact"

    report = judge(pairs, PANEL, ESCI, Teacher(patchy), store)
    assert (report.asked, report.unanswered, report.unparsed) == (15, 3, {"no_label": 4})
    assert report.by_perspective["user_intent"].unparsed == {"no_label": 4}
    assert report.by_perspective["business_rules"].unanswered == 1
    assert len(store) == 12
    judgements = list(judgements_of(pairs, PANEL, ESCI, Teacher(), store))
    assert [j.reason for j in judgements[:4]] == ["unanswered"] * 3 + ["no_label"]
    assert (judgements[3].label, judgements[3].raw, judgements[3].rationale) == (None, "I cannot say.", "I cannot say.")
    teacher = Teacher()
    report = judge(pairs, PANEL, ESCI, teacher, store)
    assert teacher.asked == [("q0:p0", name, 0) for name in PERSPECTIVES]
    assert (report.reused, report.unanswered) == (12, 0)


@pytest.mark.parametrize("commit_every", [1, 100])
def test_answers_are_kept_when_the_backend_fails(store: JudgementStore, pairs: list[Pair], commit_every: int) -> None:
    def failing(request: Request) -> str:
        if request.pair_id == "q3:p3":
            raise ConnectionError("gone")
        return "Why not.\nLabel: exact"

    with pytest.raises(ConnectionError, match="gone"):
        judge(pairs, PANEL, ESCI, Teacher(failing), store, commit_every=commit_every)
    assert len(store) == 9


def test_requests_are_made_lazily(store: JudgementStore, pairs: list[Pair]) -> None:
    taken = 0

    def counted() -> Iterator[Pair]:
        nonlocal taken
        for pair in pairs:
            taken += 1
            yield pair

    def watching(request: Request) -> str:
        # Three requests, one pair, are in flight: no further pair has been touched.
        assert taken == [pair.pair_id for pair in pairs].index(request.pair_id) + 1
        return "Why not.\nLabel: exact"

    assert judge(counted(), PANEL, ESCI, Teacher(watching), store).asked == 15


def by_attempt(*texts: str | None) -> Callable[[Request], str | None]:
    """Answer the first attempts with these texts, and all pairs but q0 with a label at once."""

    def answer(request: Request) -> str | None:
        return texts[request.attempt] if request.pair_id == "q0:p0" else "Why not.\nLabel: exact"

    return answer


def test_an_answer_without_a_label_is_asked_again(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher(by_attempt("Hm.", "Hm!", "At last.\nLabel: substitute"))
    report = judge(pairs, PANEL[:1], ESCI, teacher, store, retry_unparsed=3)
    assert (report.requested, report.reused, report.asked, report.retried, report.unparsed) == (
        5,
        0,
        7,
        2,
        {"no_label": 2},
    )
    assert teacher.attempts[5:] == [("q0:p0", 1), ("q0:p0", 2)]
    assert len(store) == 7
    first, *others = judgements_of(pairs, PANEL[:1], ESCI, teacher, store, retry_unparsed=3)
    assert (first.label, first.attempt, first.raw) == ("substitute", 2, "At last.\nLabel: substitute")
    assert {judgement.attempt for judgement in others} == {0}
    # Fewer attempts see less, and nothing is asked twice.
    (first, *_) = judgements_of(pairs, PANEL[:1], ESCI, teacher, store, retry_unparsed=1)
    assert (first.label, first.attempt, first.raw) == (None, 1, "Hm!")
    again = Teacher()
    assert judge(pairs, PANEL[:1], ESCI, again, store, retry_unparsed=3).reused == 5
    assert again.asked == []


def test_attempts_come_to_an_end(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher(by_attempt("Hm.", "Hm!", "Hm?"))
    report = judge(pairs, PANEL[:1], ESCI, teacher, store, retry_unparsed=2)
    assert (report.asked, report.retried, report.unparsed) == (7, 2, {"no_label": 3})
    # One more attempt asks for that one alone.
    more = Teacher(lambda request: f"{request.attempt}\nLabel: exact")
    assert judge(pairs, PANEL[:1], ESCI, more, store, retry_unparsed=3).asked == 1
    assert more.attempts == [("q0:p0", 3)]


def test_a_question_without_an_answer_is_no_further_attempt(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher(by_attempt("Hm.", None))
    report = judge(pairs, PANEL[:1], ESCI, teacher, store, retry_unparsed=3)
    assert (report.asked, report.retried, report.unanswered) == (6, 1, 1)
    silent = Teacher(lambda request: None)
    assert judge(pairs, PANEL[1:2], ESCI, silent, store, retry_unparsed=3).asked == 5
    assert {attempt for _, attempt in silent.attempts} == {0}


def test_stored_answers_are_read_by_todays_parser(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher(lambda _: "It fits.\nLabel: exact")
    judge(pairs, PANEL[:1], ESCI, teacher, store)
    (old,) = judgements_of(pairs[:1], PANEL[:1], ESCI, teacher, store)
    with JudgementStore(store.path.with_name("old.sqlite")) as older:
        older.add([replace(old, label=None, reason="no_label", rationale="")])
        assert list(judgements_of(pairs[:1], PANEL[:1], ESCI, teacher, older)) == [old]
        assert judge(pairs[:1], PANEL[:1], ESCI, teacher, older, retry_unparsed=1).asked == 0


def test_a_json_teacher_is_asked_for_json(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher(lambda _: '{"rationale": "It fits.", "label": "exact"}', answer_format="json")
    prompts: list[str] = []
    answer = teacher._answer
    teacher._answer = lambda request: prompts.append(request.messages[0]["content"]) or answer(request)  # type: ignore[func-returns-value]
    judge(pairs, PANEL[:1], ESCI, teacher, store)
    assert all(prompt.endswith('substitute | complement | irrelevant>"}') for prompt in prompts)
    assert {j.label for j in judgements_of(pairs, PANEL[:1], ESCI, teacher, store)} == {"exact"}


def test_pairs_that_can_be_had_only_once_are_refused_where_that_is_too_few(
    store: JudgementStore, pairs: list[Pair]
) -> None:
    for options in ({"retry_unparsed": 1}, {"budget": Budget(1e9, "tokens")}):
        with pytest.raises(TeacherError, match=r"several times, got a list_iterator; give a list or Pairs"):
            judge(iter(pairs), PANEL, ESCI, Teacher(), store, **options)  # type: ignore[arg-type]


def test_several_answers_need_a_temperature() -> None:
    greedy = OpenAITeacher(backend="openai", model="m")
    warm = greedy.model_copy(update={"sampling": SamplingConfig(temperature=0.7)})
    check_sampling(greedy, JudgeConfig())
    for teacher in (warm, RecordedTeacher()):
        check_sampling(teacher, JudgeConfig(samples=3, retry_unparsed=2))
    with pytest.raises(
        ConfigError, match=r"judge.samples is 2, but at teacher.sampling.temperature 0 .* or judge.samples to 1"
    ):
        check_sampling(greedy, JudgeConfig(samples=2))
    with pytest.raises(ConfigError, match=r"judge.retry_unparsed is 1, .* or judge.retry_unparsed to 0"):
        check_sampling(greedy, JudgeConfig(retry_unparsed=1))


def test_two_perspectives_of_one_name_are_refused(store: JudgementStore, pairs: list[Pair]) -> None:
    with pytest.raises(ConfigError, match=r"each needs a name of its own, got \['user_intent', 'user_intent'\]"):
        judge(pairs, [PANEL[0], PANEL[0]], ESCI, Teacher(), store)


def test_the_example_in_the_docs_runs(tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs/teacher.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"pairs": pairs, "backend": Teacher()}
    exec(code, names)
    assert names["report"].asked == len(names["judgements"]) == 10
