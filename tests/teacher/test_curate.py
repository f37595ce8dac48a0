from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manylens.config import CurateConfig, PreferenceConfig
from manylens.errors import ConfigError, UnknownNameError
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.curate import Curated, curate, preference_pairs
from manylens.teacher.perspectives import NEUTRAL, render_prompt

Make = Callable[..., Judgement]


@pytest.fixture
def pairs(make_pair: Callable[..., Pair]) -> list[Pair]:
    return [
        make_pair(1, "exact"),
        make_pair(2, "exact"),
        make_pair(3, "substitute"),
        make_pair(4, None),
        make_pair(5, "exact", split="dev"),
        make_pair(6, "exact"),
    ]


@pytest.fixture
def judgements(pairs: list[Pair], make_judgement: Make) -> list[Judgement]:
    one, two, three, four, five, _ = pairs
    return [
        make_judgement(one, "a", "exact"),
        make_judgement(one, "b", "exact"),
        make_judgement(one, "c", None),
        make_judgement(two, "a", "exact"),
        make_judgement(two, "b", "irrelevant"),
        make_judgement(two, "c", "substitute"),
        make_judgement(three, "a", "exact"),
        make_judgement(three, "b", None, reason="unanswered"),
        make_judgement(four, "a", "exact"),
        make_judgement(four, "b", "substitute"),
        make_judgement(five, "a", "exact"),
        make_judgement(five, "b", "substitute"),
    ]


def curated(pairs: list[Pair], judgements: list[Judgement], **settings: object) -> Curated:
    return curate(pairs, judgements, ESCI, CurateConfig(**settings), seed=13)  # type: ignore[arg-type]


def test_rationales_carry_whether_they_are_right(pairs: list[Pair], judgements: list[Judgement]) -> None:
    rows = curated(pairs, judgements).rationales.to_pylist()
    assert [(row["pair_id"][:2], row["perspective"], row["consistent"]) for row in rows] == [
        ("q1", "a", True), ("q1", "b", True), ("q2", "a", True), ("q2", "b", False), ("q2", "c", False),
        ("q3", "a", False), ("q4", "a", False), ("q4", "b", False), ("q5", "a", True), ("q5", "b", False),
    ]  # fmt: skip
    assert rows[0] == {
        "pair_id": "q1:p1", "perspective": "a", "sample": 0, "label": "exact", "rationale": "a says exact",
        "consistent": True, "rationalized": False,
    }  # fmt: skip


def test_sft_rows_are_right_train_judgements_under_the_neutral_prompt(
    pairs: list[Pair], judgements: list[Judgement]
) -> None:
    rows = curated(pairs, judgements).sft.to_pylist()
    assert [(row["pair_id"][:2], row["perspective"]) for row in rows] == [("q1", "a"), ("q1", "b"), ("q2", "a")]
    assert rows[1]["prompt"] == render_prompt(NEUTRAL, pairs[0], ESCI)
    assert rows[1]["completion"] == [
        {"role": "assistant", "content": "<think>\nb says exact\n</think>\n\nLabel: exact"}
    ]


def test_without_the_filter_every_labelled_train_judgement_is_kept(
    pairs: list[Pair], judgements: list[Judgement]
) -> None:
    rows = curated(pairs, judgements, filter="none").sft.to_pylist()
    assert [(row["pair_id"][:2], row["perspective"]) for row in rows] == [
        ("q1", "a"), ("q1", "b"), ("q2", "a"), ("q2", "b"), ("q2", "c"), ("q3", "a"),
    ]  # fmt: skip
    assert rows[-2]["completion"][0]["content"].endswith("Label: substitute")


def test_preferences_are_made_where_train_panels_conflict(pairs: list[Pair], judgements: list[Judgement]) -> None:
    rows = curated(pairs, judgements).preferences.to_pylist()
    assert {(row["pair_id"], row["chosen_perspective"], row["rejected_perspective"]) for row in rows} == {
        ("q2:p2", "a", "b"), ("q2:p2", "a", "c"),
    }  # fmt: skip
    row = next(row for row in rows if row["rejected_perspective"] == "b")
    assert row["prompt"] == render_prompt(NEUTRAL, pairs[1], ESCI)
    assert row["chosen"] == [{"role": "assistant", "content": "<think>\na says exact\n</think>\n\nLabel: exact"}]
    assert row["rejected"] == [
        {"role": "assistant", "content": "<think>\nb says irrelevant\n</think>\n\nLabel: irrelevant"}
    ]


def test_the_report_counts_everything(pairs: list[Pair], judgements: list[Judgement]) -> None:
    report = curated(pairs, judgements).report
    assert {(row.perspective, row.label, row.outcome): row.count for row in report.outcomes} == {
        ("a", "exact", "kept"): 3,
        ("a", "substitute", "wrong_label"): 1,
        ("a", None, "no_gold"): 1,
        ("b", "exact", "kept"): 1,
        ("b", "exact", "wrong_label"): 2,
        ("b", "substitute", "unanswered"): 1,
        ("b", None, "no_gold"): 1,
        ("c", "exact", "no_label"): 1,
        ("c", "exact", "wrong_label"): 1,
    }
    assert sum(row.count for row in report.outcomes) == len(judgements)
    assert (report.all_right, report.all_wrong, report.mixed, report.conflicts) == (1, 1, 2, 1)
    assert (report.sft_rows, report.preference_rows) == (3, 2)
    assert [asdict(row) for row in report.combinations] == [
        {"chosen": "a", "rejected": "b", "count": 1},
        {"chosen": "a", "rejected": "c", "count": 1},
    ]


def test_no_judgements_make_empty_tables_with_their_columns(pairs: list[Pair]) -> None:
    nothing = curated(pairs, [])
    assert nothing.sft.column_names == ["prompt", "completion", "pair_id", "perspective"]
    assert (nothing.rationales.num_rows, nothing.sft.num_rows, nothing.preferences.num_rows) == (0, 0, 0)


def test_tables_survive_parquet(pairs: list[Pair], judgements: list[Judgement], tmp_path: Path) -> None:
    result = curated(pairs, judgements)
    for name in ("rationales", "sft", "preferences"):
        table = getattr(result, name)
        pq.write_table(table, tmp_path / f"{name}.parquet")
        assert pq.read_table(tmp_path / f"{name}.parquet").to_pylist() == table.to_pylist()


@pytest.fixture
def conflict(pairs: list[Pair], make_judgement: Make) -> list[Judgement]:
    """Two samples each: a is right twice, b once, c never."""
    verdicts = {"a": ("exact", "exact"), "b": ("exact", "substitute"), "c": ("irrelevant", "substitute")}
    return [
        make_judgement(pairs[0], perspective, label, sample=sample, rationale=f"{perspective}{sample}")
        for perspective, labels in verdicts.items()
        for sample, label in enumerate(labels)
    ]


def most(number: int, **settings: object) -> PreferenceConfig:
    return PreferenceConfig(max_per_pair=number, **settings)  # type: ignore[arg-type]


def test_preferred_and_rejected_come_from_different_perspectives(pairs: list[Pair], conflict: list[Judgement]) -> None:
    found = preference_pairs(pairs[0], conflict, most(100), seed=1)
    assert {(pair.chosen.rationale, pair.rejected.rationale) for pair in found} == {
        ("a0", "b1"), ("a1", "b1"), ("a0", "c0"), ("a0", "c1"), ("a1", "c0"), ("a1", "c1"), ("b0", "c0"), ("b0", "c1"),
    }  # fmt: skip
    assert len(found) == 8


def test_combinations_take_turns(pairs: list[Pair], conflict: list[Judgement]) -> None:
    for seed in range(20):
        for limit, expected in ((1, [1]), (3, [1, 1, 1]), (4, [1, 1, 2]), (7, [2, 2, 3])):
            found = preference_pairs(pairs[0], conflict, most(limit), seed=seed)
            combinations = Counter((pair.chosen.perspective, pair.rejected.perspective) for pair in found)
            assert sorted(combinations.values()) == expected


def test_the_choice_follows_the_seed_and_the_pair_alone(pairs: list[Pair], conflict: list[Judgement]) -> None:
    def choice(pair: Pair, seed: int) -> list[tuple[str, str]]:
        own = [replace(judgement, pair_id=pair.pair_id) for judgement in conflict]
        return [(p.chosen.rationale, p.rejected.rationale) for p in preference_pairs(pair, own, most(1), seed=seed)]

    assert choice(pairs[0], 1) == choice(pairs[0], 1)
    assert len({tuple(choice(pairs[0], seed)) for seed in range(50)}) > 3
    # Over many pairs, each combination gets its share of the single place: 1/3 of 600, give or take 5 deviations.
    chosen = Counter(
        "".join(name[0] for name in choice(replace(pairs[0], pair_id=str(number)), 1)[0]) for number in range(600)
    )
    assert set(chosen) == {"ab", "ac", "bc"}
    assert all(140 < count < 260 for count in chosen.values())


def test_no_preferences_without_a_conflict(pairs: list[Pair], conflict: list[Judgement], make_judgement: Make) -> None:
    same_perspective = [judgement for judgement in conflict if judgement.perspective == "b"]
    unparseable = [conflict[0], make_judgement(pairs[0], "c", None)]
    for panel in (same_perspective, unparseable, conflict[:2]):
        assert preference_pairs(pairs[0], panel, most(4), seed=1) == []
    assert preference_pairs(replace(pairs[0], label=None), conflict, most(4), seed=1) == []


def test_aligned_preferences_come_from_samples_of_one_perspective(pairs: list[Pair], conflict: list[Judgement]) -> None:
    found = preference_pairs(pairs[0], conflict, most(100, between="same_perspective"), seed=1)
    assert [(pair.chosen.rationale, pair.rejected.rationale) for pair in found] == [("b0", "b1")]
    only_a = most(100, between="same_perspective", perspectives=["a"])
    assert preference_pairs(pairs[0], conflict, only_a, seed=1) == []


def test_preferences_use_the_named_perspectives_alone(pairs: list[Pair], conflict: list[Judgement]) -> None:
    found = preference_pairs(pairs[0], conflict, most(100, perspectives=["a", "b"]), seed=1)
    assert {(pair.chosen.rationale, pair.rejected.rationale) for pair in found} == {("a0", "b1"), ("a1", "b1")}


def test_sft_rows_come_from_the_named_perspectives_alone(pairs: list[Pair], judgements: list[Judgement]) -> None:
    result = curated(pairs, judgements, sft_perspectives=["b"])
    assert [(row["pair_id"][:2], row["perspective"]) for row in result.sft.to_pylist()] == [("q1", "b")]
    assert result.report.sft_rows == 1
    # What is distilled, and what is preferred, is another matter.
    everything = curated(pairs, judgements)
    assert result.rationales == everything.rationales and result.preferences == everything.preferences


def test_rows_are_made_with_the_wanted_prompt(pairs: list[Pair], judgements: list[Judgement], tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text('{% extends "perspective.jinja" %}{% block instruction %}Mind the colour.{% endblock %}')
    result = curated(pairs, judgements, prompt=str(own))
    for row in (result.sft.to_pylist()[0], result.preferences.to_pylist()[0]):
        assert "Mind the colour." in row["prompt"][0]["content"]
    with pytest.raises(UnknownNameError, match="unknown perspective 'neutrl'"):
        curated(pairs, judgements, prompt="neutrl")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"sft_perspectives": ["a", "z"]}, "curate.sft_perspectives"),
        ({"preferences": {"perspectives": ["z"]}}, "curate.preferences.perspectives"),
    ],
)
def test_a_perspective_that_judged_nothing_is_refused(
    settings: dict[str, object], key: str, pairs: list[Pair], judgements: list[Judgement]
) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: .* got \['z'\]; judged are a, b, c"):
        curated(pairs, judgements, **settings)
    assert curated(pairs, [], **settings).sft.num_rows == 0


@pytest.mark.parametrize(
    ("labels", "consistent", "outcomes"),
    [
        (("exact", "exact", "substitute"), [True, True, False], ["kept", "kept", "no_gold"]),
        (("exact", "exact", None), [True, True], ["kept", "kept", "no_label"]),
        (("exact", "substitute", None), [False, False], ["no_gold", "no_gold", "no_label"]),
        (("exact", "substitute", "irrelevant"), [False] * 3, ["no_gold"] * 3),
        (("irrelevant", None, None), [True], ["kept", "no_label", "no_label"]),
    ],
)
def test_without_a_gold_label_more_than_half_of_the_panel_decides_and_nothing_is_tuned_on(
    labels: tuple[str | None, ...],
    consistent: list[bool],
    outcomes: list[str],
    make_pair: Callable[..., Pair],
    make_judgement: Make,
) -> None:
    pair = make_pair(1, None)
    found = curated([pair], [make_judgement(pair, name, label) for name, label in zip("abc", labels, strict=True)])
    assert found.rationales["consistent"].to_pylist() == consistent
    assert {row.perspective: row.outcome for row in found.report.outcomes} == dict(zip("abc", outcomes, strict=True))
    unfiltered = curated([pair], [make_judgement(pair, "a", "exact")], filter="none")
    assert found.sft.num_rows == found.preferences.num_rows == unfiltered.sft.num_rows == 0
