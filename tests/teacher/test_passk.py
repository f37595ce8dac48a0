from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.teacher.passk import EqualCalls, Tried, at_equal_calls, oracle_at, pass_at_k


def tried(answered: int, right: int) -> Tried:
    return Tried(answered=answered, right=right, wrong=answered - right)


def enumerated(outcomes: list[bool], draws: int) -> float:
    drawn = list(combinations(outcomes, draws))
    return sum(map(any, drawn)) / len(drawn)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_all_draws_with_a_right_one(outcomes: list[bool], data: st.DataObject) -> None:
    draws = data.draw(st.integers(1, len(outcomes)))
    assert pass_at_k(len(outcomes), sum(outcomes), draws) == pytest.approx(enumerated(outcomes, draws))


def test_a_pass_at_k_by_hand() -> None:
    # 1 - C(3, 2) / C(5, 2) = 1 - 3/10; too few wrong ones to draw: certain.
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert pass_at_k(5, 2, 4) == 1.0
    assert (pass_at_k(5, 0, 5), pass_at_k(5, 5, 1)) == (0.0, 1.0)


@given(st.lists(st.lists(st.booleans(), min_size=2, max_size=4), min_size=2, max_size=3), st.integers(1, 2))
def test_the_oracle_is_the_share_of_all_joint_draws_with_a_right_one(panel: list[list[bool]], draws: int) -> None:
    joint = list(product(*(list(combinations(outcomes, draws)) for outcomes in panel)))
    expected = sum(any(any(drawn) for drawn in each) for each in joint) / len(joint)
    counted = [tried(len(outcomes), sum(outcomes)) for outcomes in panel]
    assert oracle_at(counted, draws) == pytest.approx(expected)


def test_a_panel_of_two_with_four_samples_by_hand() -> None:
    panels = {
        (tried(4, 4), tried(4, 0)): 1,  # a alone is right
        (tried(4, 1), tried(4, 2)): 2,
        (tried(4, 0), tried(4, 0)): 1,
        (tried(3, 3), tried(4, 4)): 5,  # a sample without an answer: left out
    }
    figures = at_equal_calls(panels, ["a", "b"])
    assert (figures.samples, figures.pairs) == (4, 4)
    # a, of the two middle pairs: 1/4, 1 - 3/6, 1 with 1, 2, 4 draws of 4; b: 2/4, 1 - 1/6, 1.
    # Both, with one of each: 1 - 3/4 * 2/4; two of each: 1 - 3/6 * 1/6; four of each: certain.
    assert figures.rows == (
        EqualCalls(calls=1, by_perspective={"a": (1 + 2 / 4) / 4, "b": (2 * 2 / 4) / 4}, panel=None),
        EqualCalls(
            calls=2,
            by_perspective={"a": (1 + 2 / 2) / 4, "b": pytest.approx((2 * 5 / 6) / 4)},
            panel=pytest.approx((1 + 2 * 5 / 8) / 4),
        ),
        EqualCalls(calls=4, by_perspective={"a": 3 / 4, "b": 2 / 4}, panel=pytest.approx((1 + 2 * 11 / 12) / 4)),
        EqualCalls(calls=8, by_perspective={"a": None, "b": None}, panel=3 / 4),
    )


def test_the_most_draws_that_a_single_perspective_can_match_are_among_the_rows() -> None:
    figures = at_equal_calls({(tried(9, 1), tried(9, 1), tried(9, 1)): 1}, ["a", "b", "c"])
    assert [row.calls for row in figures.rows] == [1, 3, 6, 9, 12, 24]
    assert figures.rows[3].by_perspective["a"] == 1.0
    assert figures.rows[3].panel == pytest.approx(1 - (6 / 9) ** 3)


def test_one_sample_gives_no_comparison_and_nothing_gives_no_rows() -> None:
    figures = at_equal_calls({(tried(1, 1), tried(1, 0)): 3, (tried(1, 0), tried(1, 0)): 1}, ["a", "b"])
    assert figures.rows == (
        EqualCalls(calls=1, by_perspective={"a": 0.75, "b": 0.0}, panel=None),
        EqualCalls(calls=2, by_perspective={"a": None, "b": None}, panel=0.75),
    )
    assert at_equal_calls({}, ["a"]).rows == ()


def test_a_panel_of_one_has_its_own_pass_at_k_and_no_oracle() -> None:
    figures = at_equal_calls({(tried(2, 1),): 1}, ["a"])
    assert figures.rows == (
        EqualCalls(calls=1, by_perspective={"a": 0.5}, panel=None),
        EqualCalls(calls=2, by_perspective={"a": 1.0}, panel=None),
    )
