import re

import pytest
from rich.console import Console
from rich.table import Table

from manylens.config import EvaluateConfig
from manylens.errors import DataError
from manylens.evaluation import (
    PREDICTION_SCHEMA,
    compare,
    comparison_table,
    evaluate,
    evaluation_table,
    per_class_table,
)
from manylens.records import ESCI

from .build import random_table, sure, table

FIGURE = re.compile(r"[±+-]?\d\.\d{3}")
CONFIG = EvaluateConfig(bootstrap_samples=100)
DEV = random_table(5, 6, seed=9, skill=1.0)
BEST = [random_table(20, 8, seed, 1.5) for seed in (1, 2)]
PLAIN = [random_table(20, 8, seed, 0.5) for seed in (3, 4)]
STUDENTS = {
    "lrkd": [evaluate(DEV, test, ESCI, CONFIG, 1) for test in BEST],
    "[bert]": [evaluate(DEV, test, ESCI, CONFIG, 1) for test in PLAIN],
}


def rendered(table: Table, width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_comparison_says_what_it_rests_on_and_what_may_be_said() -> None:
    comparison = compare(BEST, PLAIN, ESCI, CONFIG, 1)
    text = rendered(comparison_table(comparison, treatment="lrkd", baseline="[bert]"))
    accuracy = comparison.metrics["accuracy"]
    assert accuracy.interval is not None
    assert "lrkd against [bert]: 20 queries, 160 pairs, 2 training seeds" in text
    assert f"{accuracy.treatment:.3f} ±{accuracy.treatment_sd:.3f}" in text
    assert f"{accuracy.difference:+.3f}" in text
    assert f"{accuracy.interval[0]:+.3f} {accuracy.interval[1]:+.3f}" in text
    assert "95% interval" in text and "nDCG@10" in text and "gain" in text


def test_comparison_of_one_seed_and_one_query_shows_no_spread_and_no_interval() -> None:
    one, other = (table([("q", "exact", sure(label))]) for label in ("exact", "irrelevant"))
    text = rendered(comparison_table(compare([one], [other], ESCI, CONFIG, 1), treatment="a", baseline="b"))
    assert "a against b: 1 query, 1 pair, 1 training seed" in text
    assert "training seeds" not in text
    assert "±" not in text
    assert "no difference shown" in text


def test_evaluation_has_a_row_for_each_method_and_the_majority_class() -> None:
    text = rendered(evaluation_table(STUDENTS))
    reports = [evaluation.test for evaluation in STUDENTS["lrkd"]]
    assert "lrkd, 2" in text and "[bert], 2" in text and "majority" in text
    assert f"{sum(report.ece for report in reports) / 2:.3f}" in text
    assert f"{reports[0].majority_accuracy:.3f}" in text


def test_evaluation_without_dev_has_no_scaled_error() -> None:
    student = evaluate(PREDICTION_SCHEMA.empty_table(), PLAIN[0], ESCI, CONFIG, 1)
    row = next(line for line in rendered(evaluation_table({"bert": [student]})).splitlines() if "bert" in line)
    assert row.rstrip(" │").endswith("-")


def test_per_class_has_the_mean_of_each_figure() -> None:
    text = rendered(per_class_table(STUDENTS))
    for name, evaluations in STUDENTS.items():
        assert name in text
        first, second = (evaluation.test.classes[0] for evaluation in evaluations)
        figures = ((first.precision, second.precision), (first.recall, second.recall), (first.f1, second.f1))
        assert " ".join(f"{(one + other) / 2:.3f}" for one, other in figures) in text
    assert all(label in text for label in ESCI.names)


@pytest.mark.parametrize("width", [80, 100])
def test_tables_lose_nothing_in_a_narrow_terminal(width: int) -> None:
    three = {**STUDENTS, "poly": STUDENTS["lrkd"]}
    comparison = comparison_table(compare(BEST, PLAIN, ESCI, CONFIG, 1), treatment="lrkd", baseline="bert")
    for layout in (comparison, evaluation_table(three), per_class_table(three)):
        narrow, wide = rendered(layout, width), rendered(layout, 200)
        assert "…" not in narrow
        assert sorted(FIGURE.findall(narrow)) == sorted(FIGURE.findall(wide))
        assert max(map(len, narrow.splitlines())) <= width


@pytest.mark.parametrize("students", [{}, {"bert": []}])
@pytest.mark.parametrize("layout", [evaluation_table, per_class_table])
def test_nothing_to_lay_out_is_refused(layout: object, students: dict[str, list[object]]) -> None:
    assert callable(layout)
    with pytest.raises(DataError, match="at least one evaluation of each method"):
        layout(students)
