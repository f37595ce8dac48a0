from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manylens.errors import ConfigError
from manylens.records import ESCI, Pair
from manylens.teacher.backends import Answer, Request
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective
from manylens.teacher.store import JudgementStore

PANEL = [load_perspective(name) for name in PERSPECTIVES]


class Teacher:
    """A backend that answers in reverse order, three at a time, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Request], str | None] | None = None, name: str = "test") -> None:
        self.name, self.sampling = name, "{}"
        self.asked: list[tuple[str, str, int]] = []
        self._answer = answer or (lambda request: f"{request.perspective} says so.\n\nLabel: exact")

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Answer | None]]:
        waiting: list[Request] = []
        for request in requests:
            self.asked.append((request.pair_id, request.perspective, request.sample))
            waiting.append(request)
            if len(waiting) == 3:
                yield from self._answered(waiting)
        yield from self._answered(waiting)

    def _answered(self, waiting: list[Request]) -> Iterator[tuple[Request, Answer | None]]:
        while waiting:
            request = waiting.pop()
            text = self._answer(request)
            yield request, None if text is None else Answer(text=text, completion_tokens=5, finish_reason="stop")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JudgementStore]:
    with JudgementStore(tmp_path / "store.sqlite") as store:
        yield store


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> list[Pair]:
    return [make_pair(number) for number in range(5)]


def test_every_pair_is_judged_once_from_every_perspective(store: JudgementStore, pairs: list[Pair]) -> None:
    teacher = Teacher()
    report = judge(pairs, PANEL, ESCI, teacher, store, samples=2)
    assert (report.requested, report.reused, report.asked, report.unanswered, report.unparsed) == (30, 0, 30, 0, {})
    assert report.by_perspective["user_intent"].asked == 10
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
