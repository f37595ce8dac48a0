from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import TeacherError
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.votes import VOTE_SCHEMA, Ballot, Votes, cast_votes, fit_accuracies, vote, weight

ACCURACIES = {"a": 0.9, "b": 0.5, "c": 0.45}


def ballot(**labels: str) -> Ballot:
    return tuple(labels.items())


def test_accuracies_are_smoothed_towards_a_guess() -> None:
    ballots = [("exact", ballot(a="exact", b="irrelevant")), ("irrelevant", ballot(a="irrelevant", b="irrelevant"))]
    assert fit_accuracies(ballots, ["a", "b", "c"], 4) == {"a": 3 / 6, "b": 2 / 6, "c": 1 / 4}


def test_weights_are_the_log_odds_against_a_guess() -> None:
    assert weight(0.25, 4) == pytest.approx(0.0)
    assert weight(0.9, 4) == pytest.approx(math.log(0.9 / (0.1 / 3)))
    assert weight(0.1, 4) < 0.0
    assert weight(0.8, 2) == pytest.approx(math.log(4))


def test_the_majority_wins_and_one_good_perspective_outweighs_two_poor_ones() -> None:
    divided = ballot(a="exact", b="irrelevant", c="irrelevant")
    assert vote(divided, ESCI, ACCURACIES, "majority") == "irrelevant"
    # log(27) = 3.30 against log(3) + log(2.45) = 2.00.
    assert vote(divided, ESCI, ACCURACIES, "weighted") == "exact"


def test_of_equals_the_more_accurate_voters_win_then_the_better_label() -> None:
    assert vote(ballot(b="exact", a="irrelevant"), ESCI, ACCURACIES, "majority") == "irrelevant"
    assert vote(ballot(b="irrelevant", c="complement"), ESCI, {"b": 0.5, "c": 0.5}, "majority") == "complement"
    assert vote(ballot(b="irrelevant", c="complement"), ESCI, {"b": 0.5, "c": 0.5}, "weighted") == "complement"


def test_a_perspective_that_is_worse_than_a_guess_speaks_against_its_label() -> None:
    accuracies = {"a": 0.1, "b": 0.3}
    assert vote(ballot(a="exact", b="irrelevant"), ESCI, accuracies, "weighted") == "irrelevant"
    assert vote(ballot(a="exact"), ESCI, accuracies, "weighted") == "exact"  # Nobody spoke for another.


def test_an_empty_ballot_elects_nobody() -> None:
    assert vote((), ESCI, ACCURACIES, "majority") is None
    assert vote((), ESCI, ACCURACIES, "weighted") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(ESCI.names)), min_size=1, max_size=9))
def test_the_weighted_vote_is_the_likeliest_label_by_bayes(votes: list[tuple[str, str]]) -> None:
    """The posterior under independent perspectives whose errors spread evenly, from equal priors."""

    def likelihood(gold: str) -> float:
        return math.prod(ACCURACIES[name] if label == gold else (1 - ACCURACIES[name]) / 3 for name, label in votes)

    elected = vote(tuple(votes), ESCI, ACCURACIES, "weighted")
    assert elected is not None
    assert likelihood(elected) == pytest.approx(max(map(likelihood, ESCI.names)), rel=1e-6)


@given(st.permutations([("a", "exact"), ("b", "irrelevant"), ("c", "irrelevant"), ("a", "complement")]))
def test_the_order_of_the_ballot_is_nothing(votes: list[tuple[str, str]]) -> None:
    assert vote(tuple(votes), ESCI, ACCURACIES, "majority") == "irrelevant"
    assert vote(tuple(votes), ESCI, ACCURACIES, "weighted") == "exact"


@pytest.fixture
def cast(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> Callable[..., Votes]:
    """Let perspectives a and b vote on pairs given as (split, gold label, a's label, b's label)."""

    def build(*rows: tuple[str, str | None, str | None, str | None]) -> Votes:
        pairs = [make_pair(number, gold, split=split) for number, (split, gold, *_) in enumerate(rows)]
        judgements = [
            make_judgement(pair, name, label)
            for pair, (_, _, *labels) in zip(pairs, rows, strict=True)
            for name, label in zip("ab", labels, strict=True)
        ]
        return cast_votes(pairs, judgements, ESCI, ["a", "b"])

    return build


def test_votes_on_other_splits_use_all_of_dev(cast: Callable[..., Votes]) -> None:
    votes = cast(
        ("train", "irrelevant", "exact", "irrelevant"),
        ("train", None, None, None),
        ("dev", "exact", "substitute", "exact"),
        ("dev", "exact", "substitute", "exact"),
        ("dev", "exact", "substitute", "irrelevant"),
        ("test", "complement", "complement", "irrelevant"),
    )
    assert votes.table.schema == VOTE_SCHEMA
    # b is right on two of three dev pairs, a on none: (2 + 1) / (3 + 4) and 1 / 7.
    assert votes.accuracies == {"a": 1 / 7, "b": 3 / 7}
    rows = {row["pair_id"]: row for row in votes.table.to_pylist()}
    assert rows["q0:p0"] == {
        "pair_id": "q0:p0",
        "query_id": "q0",
        "split": "train",
        "label": "irrelevant",
        "majority": "irrelevant",
        "weighted": "irrelevant",
    }
    assert (rows["q1:p1"]["majority"], rows["q1:p1"]["weighted"]) == (None, None)
    assert rows["q5:p5"]["majority"] == "irrelevant"
    assert votes.oracle == ["irrelevant", None, "exact", "exact", "irrelevant", "complement"]
    assert votes.alone["a"] == ["exact", None, "substitute", "substitute", "substitute", "complement"]
    assert votes.calls == 2


def test_a_vote_on_dev_has_not_seen_its_own_gold_label(cast: Callable[..., Votes]) -> None:
    # Each dev query is a fold of its own. On the first a alone is right; seen from the second, b is the better one.
    votes = cast(("dev", "exact", "exact", "irrelevant"), ("dev", "exact", "irrelevant", "exact"))
    assert votes.table["majority"].to_pylist() == ["irrelevant", "irrelevant"]
    assert votes.table["weighted"].to_pylist() == ["irrelevant", "irrelevant"]


def test_pairs_of_one_query_stay_together(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    # Two queries of two pairs. If pairs were dealt apart, each would see its twin, and a's label would win.
    pairs = [make_pair(number, "exact", query_id=f"q{number // 2}", split="dev") for number in range(4)]
    right = {0: "a", 1: "a", 2: "b", 3: "b"}
    judgements = [
        make_judgement(pair, name, "exact" if right[number] == name else "irrelevant")
        for number, pair in enumerate(pairs)
        for name in "ab"
    ]
    votes = cast_votes(pairs, judgements, ESCI, ["a", "b"])
    assert votes.table["weighted"].to_pylist() == ["irrelevant"] * 4


def test_samples_all_vote_and_the_first_stands_for_its_perspective(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pairs = [make_pair(number, "exact", split="dev") for number in range(2)]
    judgements = [
        make_judgement(pair, name, label, sample=sample)
        for pair in pairs
        for name, labels in (
            ("a", ["irrelevant", "exact"]),
            ("b", ["exact", "exact"]),
            ("left out", ["irrelevant"] * 9),
        )
        for sample, label in enumerate(labels)
    ]
    votes = cast_votes(pairs, judgements, ESCI, ["a", "b"])
    assert votes.table["majority"].to_pylist() == ["exact", "exact"]
    assert votes.alone == {"a": ["irrelevant", "irrelevant"], "b": ["exact", "exact"]}
    assert votes.calls == 4


def test_a_pair_without_any_answer_has_no_row_and_one_with_some_is_incomplete(
    make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]
) -> None:
    pairs = [make_pair(number, "exact", split="dev") for number in range(3)]
    judgements = [
        make_judgement(pair, name, "exact" if answered else None, reason=None if answered else "unanswered")
        for pair, says in zip(pairs, [(True, True), (True, False), (False, False)], strict=True)
        for name, answered in zip("ab", says, strict=True)
    ]
    votes = cast_votes(pairs, judgements, ESCI, ["a", "b"])
    assert votes.table["pair_id"].to_pylist() == ["q0:p0", "q1:p1"]
    assert votes.complete == [True, False]


@pytest.mark.parametrize(
    "rows",
    [[("train", "exact", "exact", "exact")], [("dev", "exact", "exact", "exact"), ("dev", None, "exact", "exact")]],
)
def test_without_dev_there_is_nothing_to_go_by(cast: Callable[..., Votes], rows: list[tuple[str, ...]]) -> None:
    with pytest.raises(TeacherError, match=r"at least two judged dev queries with gold labels.*judge\.splits"):
        cast(*rows)
