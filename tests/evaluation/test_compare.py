import dataclasses
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation import Comparison, compare
from manylens.evaluation.significance import METRICS
from manylens.records import ESCI

from .build import random_table, shuffled, sure, table

CONFIG = EvaluateConfig(bootstrap_samples=200)
RIGHT, WRONG = sure("exact"), sure("irrelevant")


def compared(treatment: list[pa.Table], baseline: list[pa.Table]) -> Comparison:
    return compare(treatment, baseline, ESCI, CONFIG, 13)


def test_differences_by_hand() -> None:
    # Three queries of two exact products each; the baseline misses one pair of each query, at both seeds.
    queries = [f"q{index // 2}" for index in range(6)]
    best = table([(query, "exact", RIGHT) for query in queries])
    half = table([(query, "exact", RIGHT if index % 2 else WRONG) for index, query in enumerate(queries)])
    comparison = compared([best, half], [half, half])
    accuracy = comparison.metrics["accuracy"]
    assert (comparison.seeds, comparison.pairs, comparison.queries) == (2, 6, 3)
    assert (accuracy.treatment, accuracy.baseline, accuracy.difference) == (0.75, 0.5, 0.25)
    assert (accuracy.treatment_sd, accuracy.baseline_sd) == (pytest.approx(0.5 / 2**0.5), 0.0)
    # Every query shows the same difference, so every resample does.
    assert accuracy.interval == pytest.approx((0.25, 0.25))
    assert (accuracy.p_value, accuracy.verdict) == (pytest.approx(2 / 201), "gain")
    assert compared([half, half], [best, half]).metrics["accuracy"].verdict == "loss"
    assert comparison.metrics["ndcg"].verdict == "no difference shown"


def test_a_student_shows_no_difference_to_itself_whatever_the_order_of_its_seeds() -> None:
    seeds = [random_table(6, 5, seed, 0.7) for seed in range(3)]
    comparison = compared(seeds, [seeds[1], seeds[2], seeds[0]])
    for difference in comparison.metrics.values():
        assert difference.interval == (0.0, 0.0)
        assert (difference.p_value, difference.verdict) == (1.0, "no difference shown")


def test_one_seed_has_no_spread_and_one_query_no_interval() -> None:
    one = compared([table([("q", "exact", RIGHT)])], [table([("q", "exact", WRONG)])]).metrics["accuracy"]
    assert (one.treatment_sd, one.baseline_sd, one.difference) == (None, None, 1.0)
    assert (one.interval, one.p_value, one.verdict) == (None, None, "no difference shown")


def test_a_clear_difference_is_found_and_noise_is_not() -> None:
    strong = [random_table(60, 10, seed, 1.5) for seed in range(3)]
    weak = [random_table(60, 10, seed, 0.5) for seed in range(10, 13)]
    same = [random_table(60, 10, seed, 0.5) for seed in range(20, 23)]
    assert {each.verdict for each in compared(strong, weak).metrics.values()} == {"gain"}
    assert {each.verdict for each in compared(same, weak).metrics.values()} == {"no difference shown"}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_swapping_the_sides_turns_every_sign(first: int, second: int) -> None:
    treatment, baseline = [random_table(6, 5, first, 0.9)], [random_table(6, 5, second, 0.5)]
    forth, back = compared(treatment, baseline), compared(baseline, treatment)
    opposite = {"gain": "loss", "loss": "gain", "no difference shown": "no difference shown"}
    for name in METRICS:
        one, other = forth.metrics[name], back.metrics[name]
        assert one.interval is not None and other.interval is not None
        assert one.difference == -other.difference
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]), abs=1e-12)
        assert (one.p_value, one.verdict) == (other.p_value, opposite[other.verdict])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_rows_decides_nothing(seed: int) -> None:
    treatment, baseline = random_table(6, 5, 1, 0.9), random_table(6, 5, 2, 0.5)
    assert compared([shuffled(treatment, seed)], [shuffled(baseline, seed + 1)]) == compared([treatment], [baseline])


def test_unjudged_pairs_need_not_match() -> None:
    judged = [("q1", "exact", RIGHT), ("q2", "exact", RIGHT)]
    comparison = compared([table([*judged, ("q3", None, RIGHT)])], [table(judged)])
    assert (comparison.pairs, comparison.queries) == (2, 2)


def test_a_comparison_survives_json() -> None:
    comparison = compared([random_table(6, 5, 1, 0.9)], [random_table(6, 5, 2, 0.5)])
    text = json.dumps(dataclasses.asdict(comparison), allow_nan=False)
    assert TypeAdapter(Comparison).validate_json(text) == comparison


@pytest.mark.parametrize(
    ("treatment", "baseline", "message"),
    [
        ([], [], "got 0 tables against 0"),
        ([random_table(2, 2, 1, 1.0)] * 2, [random_table(2, 2, 1, 1.0)], "got 2 tables against 1"),
        ([random_table(2, 2, 1, 1.0)], [random_table(2, 3, 1, 1.0)], "same pairs, queries and labels"),
        (
            [table([("q", "exact", RIGHT)])],
            [table([("q", "irrelevant", RIGHT)])],
            "2 rows differ, such as pair 'q:0' of query 'q' with label 'exact'",
        ),
        ([table([("q", None, RIGHT)])], [table([("q", None, RIGHT)])], "at least one pair with a label"),
    ],
)
def test_sides_that_cannot_be_paired_are_refused(
    treatment: list[pa.Table], baseline: list[pa.Table], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        compared(treatment, baseline)


def test_the_interval_over_seeds_too_by_hand() -> None:
    # All queries agree, so only the seeds differ: the treatment gains 0.5 at one of two seeds and nothing at the other.
    queries = [f"q{index // 2}" for index in range(6)]
    best = table([(query, "exact", RIGHT) for query in queries])
    half = table([(query, "exact", RIGHT if index % 2 else WRONG) for index, query in enumerate(queries)])
    accuracy = compared([best, half], [half, half]).metrics["accuracy"]
    assert accuracy.by_seed == (0.5, 0.0)
    assert accuracy.interval == pytest.approx((0.25, 0.25))
    # A quarter of the draws takes the seed without a gain twice, another the other one twice.
    assert accuracy.interval_seeds == pytest.approx((0.0, 0.5))
    assert accuracy.p_value_seeds is not None and 0.3 < accuracy.p_value_seeds < 0.7


def test_one_seed_has_no_interval_over_seeds() -> None:
    ndcg = compared([random_table(6, 5, 1, 0.9)], [random_table(6, 5, 2, 0.5)]).metrics["ndcg"]
    assert (ndcg.interval_seeds, ndcg.p_value_seeds, len(ndcg.by_seed)) == (None, None, 1)


def test_the_interval_over_queries_and_seeds_is_wider() -> None:
    strong = [random_table(60, 10, seed, 1.5) for seed in range(5)]
    weak = [random_table(60, 10, seed, 0.5) for seed in range(10, 15)]
    for found in compared(strong, weak).metrics.values():
        assert found.interval is not None and found.interval_seeds is not None
        widths = [high - low for low, high in (found.interval, found.interval_seeds)]
        assert widths[0] < widths[1]
