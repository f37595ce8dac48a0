from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_teacher import ScriptedTeacher

from manylens.config import Config
from manylens.data import Pairs
from manylens.recipe import load_config
from manylens.records import ESCI, Pair
from manylens.teacher import build_backend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective, render_prompt
from manylens.teacher.plan import draw, plan
from manylens.teacher.preview import preview
from manylens.teacher.spending import Tokens
from manylens.teacher.store import JudgementStore
from tiny_teacher import make_teacher

PANEL = [load_perspective(name) for name in PERSPECTIVES]


def recipe(teacher: dict[str, Any], **judge: object) -> Config:
    tree = {
        "name": "planned",
        "data": {"loader": "demo"},
        "labels": {"scale": "esci"},
        "judge": judge,
        "teacher": teacher,
    }
    return load_config(tree)


def openai(**judge: object) -> Config:
    teacher = {
        "backend": "openai", "model": "m", "price": {"input": 2.0, "output": 8.0},
        "sampling": {"max_tokens": 20, "temperature": 1.0},
    }  # fmt: skip
    return recipe(teacher, **judge)


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> Pairs:
    splits = ("train", "train", "train", "dev", "test")
    return Pairs.from_records(make_pair(number, split=splits[number % 5]) for number in range(20))


def estimated(pair: Pair, name: str) -> int:
    """Four characters a token, each message rounded up."""
    return sum(-(-len(message["content"]) // 4) for message in render_prompt(load_perspective(name), pair, ESCI))


def test_nothing_is_known_at_first(pairs: Pairs) -> None:
    planned = plan(openai(samples=2), pairs, ScriptedTeacher(), None)
    assert (planned.pairs, planned.counted_pairs, planned.exact, planned.recorded) == (16, 16, False, False)
    for each in planned.perspectives:
        assert (each.judgements, each.known, each.requests, each.answers) == (32, 0, 32, 0)
        assert each.prompt_tokens == 2 * sum(
            estimated(pair, each.perspective) for pair in pairs.split(*openai().judge.splits)
        )
        assert (each.completion_tokens, each.most_completion_tokens, each.is_bound) == (None, 32 * 20, True)
    assert (planned.requests, planned.spent, planned.is_bound) == (96, Tokens(), True)
    assert planned.tokens.completion == 96 * 20
    prompt = sum(each.prompt_tokens for each in planned.perspectives)
    assert planned.tokens.cost(planned.price) == pytest.approx((prompt * 2.0 + 96 * 20 * 8.0) / 1e6)


def test_what_the_store_has_is_not_planned_and_says_how_long_answers_are(pairs: Pairs, store: JudgementStore) -> None:
    teacher = ScriptedTeacher()  # Every answer takes 5 tokens.
    some = list(pairs)[:4]
    judge(some[:3], PANEL, ESCI, teacher, store)
    planned = plan(openai(), pairs, teacher, store)
    for each in planned.perspectives:
        assert (each.judgements, each.known, each.requests, each.answers) == (16, 3, 13, 3)
        assert (each.completion_tokens, each.is_bound) == (13 * 5, False)
        assert each.spent.completion == 3 * 5
    answered = judgements_of(some[:3], PANEL, ESCI, teacher, store)
    assert planned.spent.prompt == sum(judgement.prompt_tokens or 0 for judgement in answered)
    # Another teacher's answers, and another prompt's, are not this one's.
    assert plan(openai(), pairs, ScriptedTeacher(name="other"), store).is_bound


def test_further_attempts_are_expected(pairs: Pairs, store: JudgementStore) -> None:
    # Of eight answers two hold no label: a quarter, of which a quarter again.
    teacher = ScriptedTeacher(lambda request: "Hm." if request.pair_id in ("q0:p0", "q1:p1") else "Fits.\nLabel: exact")
    judged = list(pairs.split(*openai().judge.splits))
    judge(judged[:8], PANEL[:1], ESCI, teacher, store)
    (each,) = plan(openai(perspectives=["user_intent"]), pairs, teacher, store).perspectives
    assert (each.known, each.requests) == (8, 8)
    (each,) = plan(openai(perspectives=["user_intent"], retry_unparsed=2), pairs, teacher, store).perspectives
    # Eight open pairs and two open answers, times 1 + 1/4 + 1/16.
    assert (each.known, each.requests) == (8, round(10 * 1.3125))


def test_much_data_is_sampled_and_scaled_up(pairs: Pairs) -> None:
    whole = plan(openai(), pairs, ScriptedTeacher(), None)
    part = plan(openai(), pairs, ScriptedTeacher(), None, most_pairs=8)
    assert (part.pairs, part.counted_pairs, part.requests) == (16, 8, whole.requests)
    assert part.tokens.prompt == pytest.approx(whole.tokens.prompt, rel=0.01)


def test_recorded_judgements_take_no_tokens(pairs: Pairs) -> None:
    planned = plan(recipe({"backend": "recorded"}), pairs, ScriptedTeacher(), None)
    assert (planned.recorded, planned.requests, planned.tokens, planned.is_bound) == (True, 48, Tokens(), False)
    assert planned.tokens.cost(planned.price) == 0.0


def test_drawing_is_seeded_and_keeps_the_order(pairs: Pairs) -> None:
    first, again, other = (draw(pairs, 5, seed) for seed in (1, 1, 2))
    ids = [pair.pair_id for pair in first]
    assert ids == [pair.pair_id for pair in again] != [pair.pair_id for pair in other]
    assert len(ids) == 5
    everything = [pair.pair_id for pair in pairs]
    assert ids == sorted(ids, key=everything.index)
    assert draw(pairs, 20, 1) is pairs


def test_a_plan_after_a_preview_is_within_two_percent_of_what_is_used(
    tmp_path: Path, pairs: Pairs, store: JudgementStore
) -> None:
    model = str(make_teacher(tmp_path / "teacher"))
    teacher = {"backend": "transformers", "model": model, "sampling": {"max_tokens": 16, "temperature": 1.0}}
    config = recipe(teacher)
    backend = build_backend(config.teacher)
    preview(config, pairs, backend, store, 4)
    planned = plan(config, pairs, backend, store)
    assert planned.exact and not planned.is_bound
    report = judge(pairs.split(*config.judge.splits), PANEL, ESCI, backend, store)
    assert report.asked == planned.requests == 36
    assert report.tokens.uncounted == 0
    assert planned.tokens.prompt == report.tokens.prompt
    assert planned.tokens.total == pytest.approx(report.tokens.total, rel=0.02)
