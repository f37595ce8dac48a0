import dataclasses
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation import PREDICTION_SCHEMA, Evaluation, evaluate
from manylens.records import ESCI

from .build import random_table, shuffled, sure, table, tables

CONFIG = EvaluateConfig(bootstrap_samples=100)
EMPTY = PREDICTION_SCHEMA.empty_table()
DEV = random_table(5, 6, seed=7, skill=1.0)


def evaluated(test: pa.Table, dev: pa.Table = DEV) -> Evaluation:
    return evaluate(dev, test, ESCI, CONFIG, 13)


def test_figures_by_hand() -> None:
    rows = [
        ("q1", "exact", sure("exact")),
        ("q1", "substitute", sure("substitute")),
        ("q2", "exact", sure("irrelevant")),
        ("q2", "complement", sure("complement")),
        ("q2", None, sure("exact")),
    ]
    report = evaluated(table(rows)).test
    assert (report.pairs, report.unjudged, report.queries) == (4, 1, 2)
    assert (report.accuracy, report.majority_accuracy) == (0.75, 0.5)
    # exact: 1 of 2 found, precision 1, F1 2/3; substitute and complement 1; irrelevant 0.
    assert [each.f1 for each in report.classes] == pytest.approx([2 / 3, 1.0, 1.0, 0.0])
    assert report.macro_f1 == pytest.approx((2 / 3 + 2) / 4)
    assert report.confusion == ((1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 0))
    assert report.mrr == 0.75
    assert set(report.intervals) == {"accuracy", "macro_f1", "ndcg", "mrr"}
    assert report.intervals["accuracy"] == (0.5, 1.0)


def test_the_temperature_comes_from_dev_alone() -> None:
    tests = [random_table(5, 6, seed=seed, skill=seed) for seed in (1, 2)]
    first, second = (evaluated(test) for test in tests)
    assert first.temperature == second.temperature
    assert first.dev == second.dev
    assert first.test != second.test


def test_slices_by_locale_and_kind() -> None:
    rows = [("q1", "exact", sure("exact")), ("q1", "exact", sure("exact")), ("q2", "exact", sure("irrelevant"))]
    report = evaluated(table(rows, locales=["us", "us", "es"], kinds=["broad", "broad", ""])).test
    assert list(report.by_locale) == ["es", "us"]
    assert (report.by_locale["us"].pairs, report.by_locale["us"].accuracy) == (2, 1.0)
    assert (report.by_locale["es"].queries, report.by_locale["es"].accuracy, report.by_locale["es"].ndcg) == (
        1,
        0.0,
        1.0,
    )
    # Pairs without a kind form no slice.
    assert list(report.by_query_kind) == ["broad"]


@pytest.mark.parametrize("dev", [EMPTY, table([("q", None, sure("exact"))])])
def test_without_judged_dev_pairs_nothing_is_scaled(dev: pa.Table) -> None:
    evaluation = evaluated(random_table(3, 3, 1, 1.0), dev)
    assert (evaluation.dev, evaluation.temperature, evaluation.test.ece_calibrated) == (None, None, None)


def test_one_query_has_figures_but_no_intervals() -> None:
    report = evaluated(table([("q", "exact", sure("exact")), ("q", "exact", sure("substitute"))])).test
    assert (report.accuracy, report.intervals) == (0.5, {})


def test_pairs_that_are_all_of_one_class() -> None:
    report = evaluated(table([(f"q{index}", "irrelevant", sure("irrelevant")) for index in range(3)])).test
    assert (report.accuracy, report.majority_accuracy, report.macro_f1) == (1.0, 1.0, 0.25)
    assert (report.ndcg, report.mrr) == (0.0, 0.0)


@pytest.mark.parametrize("test", [EMPTY, table([("q", None, sure("exact"))])])
def test_a_test_split_without_labels_is_refused(test: pa.Table) -> None:
    with pytest.raises(DataError, match="at least one test pair with a label"):
        evaluated(test)


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(0, 100))
def test_the_order_of_rows_decides_nothing(predictions: pa.Table, seed: int) -> None:
    assert evaluated(shuffled(predictions, seed), shuffled(DEV, seed)) == evaluated(predictions)


@settings(max_examples=25, deadline=None)
@given(tables())
def test_every_evaluation_survives_json(predictions: pa.Table) -> None:
    evaluation = evaluated(predictions)
    text = json.dumps(dataclasses.asdict(evaluation), allow_nan=False)
    assert TypeAdapter(Evaluation).validate_json(text) == evaluation
