from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from scripted_teacher import ScriptedTeacher

from manylens.data import Pairs
from manylens.recipe import load_config
from manylens.records import ESCI, Pair
from manylens.teacher.backends import Request
from manylens.teacher.judge import judge
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective
from manylens.teacher.preview import preview, preview_view
from manylens.teacher.store import JudgementStore

CONFIG = load_config(
    {
        "name": "previewed",
        "data": {"loader": "demo"},
        "labels": {"scale": "esci"},
        "judge": {"samples": 2},
        "teacher": {"backend": "openai", "model": "m", "price": {"input": 1.0, "output": 2.0}},
    }
)


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> Pairs:
    return Pairs.from_records(
        make_pair(number, None if number % 2 else "exact", split="train", brand="Pellumire", description="Soft. " * 200)
        for number in range(8)
    )


def answer(request: Request) -> str | None:
    said = {
        "user_intent": "The shopper wants [no scent].\n\nLabel: exact",
        "structured_analysis": "The scent is not stated.\n\nLabel: substitute",
        "business_rules": "I would say [bold]it fits[/bold].",
    }
    return None if request.perspective == "business_rules" and request.pair_id == "q0:p0" else said[request.perspective]


def shown(pairs: Pairs, store: JudgementStore, count: int, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(
        preview_view(preview(CONFIG, pairs, ScriptedTeacher(answer), store, count), width)
    )
    return stream.getvalue().splitlines()


def test_a_preview_is_part_of_the_run(pairs: Pairs, store: JudgementStore) -> None:
    teacher = ScriptedTeacher()
    previewed = preview(CONFIG, pairs, teacher, store, 3)
    assert (len(previewed.panels), previewed.report.asked) == (3, 9)
    for pair, judgements in previewed.panels:
        assert [(judgement.pair_id, judgement.perspective) for judgement in judgements] == [
            (pair.pair_id, name) for name in PERSPECTIVES
        ]
    again = ScriptedTeacher()
    assert preview(CONFIG, pairs, again, store, 3).panels == previewed.panels
    assert again.asked == []
    panel = [load_perspective(name) for name in PERSPECTIVES]
    report = judge(pairs.split(*CONFIG.judge.splits), panel, ESCI, teacher, store, samples=2)
    assert (report.requested, report.reused) == (48, 9)


@pytest.mark.parametrize(("width", "abreast"), [(40, 1), (80, 2), (130, 3)])
def test_perspectives_stand_side_by_side_as_far_as_they_fit(
    pairs: Pairs, store: JudgementStore, width: int, abreast: int
) -> None:
    lines = shown(pairs, store, 1, width)
    assert max(map(len, lines)) <= width
    (first,) = [line for line in lines if "user_intent" in line]
    assert sum(name in first for name in PERSPECTIVES) == abreast


def test_everything_that_matters_is_shown(pairs: Pairs, store: JudgementStore) -> None:
    lines = shown(pairs, store, 8, 200)
    text = "\n".join(lines)
    assert "unscented lotion 2 ─ Pellumire Body Lotion 2  q2:p2, gold: exact" in text
    assert "q3:p3, no gold label" in text
    assert text.count("exact, right") == text.count("substitute, wrong") == 4
    assert "The shopper wants [no scent]." in text
    # Without a label the raw answer and the reason; the product's text is cut.
    assert text.count("no label (no_label)") == 7 and "I would say [bold]it fits[/bold]." in text
    assert text.count("no label (unanswered)") == 1
    assert text.count("…") == 8 and "Brand: Pellumire | Description: Soft. Soft." in text
    assert text.count(" + 5 tokens") == 23
    assert lines[-1].startswith("asked 24; without an answer 1; known before 0; ")
    assert "tokens, $0.0" in lines[-1]
    assert shown(pairs, store, 8, 200)[-1] == "asked 1; without an answer 1; known before 23"
