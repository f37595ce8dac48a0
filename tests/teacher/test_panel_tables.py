from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from manylens.config import PriceConfig
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.panel import PanelStatistics, panel_statistics
from manylens.teacher.panel_tables import cost_table, disagreement_table, pass_table
from manylens.teacher.perspectives import PERSPECTIVES


def lines(table: Table, width: int = 80) -> list[str]:
    """Return the lines of a table as a terminal of `width` columns shows them, none of which may be cut."""
    stream = StringIO()
    Console(file=stream, width=width).print(table)
    assert "…" not in stream.getvalue()
    return stream.getvalue().splitlines()


def row(table: Table, name: str) -> list[str]:
    return next(line for line in lines(table) if name in line).split()


def caption(table: Table) -> str:
    return " ".join(str(table.caption).split())


@pytest.fixture
def panel(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> Callable[..., PanelStatistics]:
    """Measure the packaged panel on one pair, all of whose samples are right but those of business_rules."""

    def build(samples: int, **fields: object) -> PanelStatistics:
        pair = make_pair(1)
        judgements = [
            make_judgement(pair, name, "irrelevant" if name == "business_rules" else "exact", sample=sample, **fields)
            for name in PERSPECTIVES
            for sample in range(samples)
        ]
        return panel_statistics([pair], judgements, ESCI, PERSPECTIVES)

    return build


def test_pass_at_k_against_the_panel(panel: Callable[..., PanelStatistics]) -> None:
    table = pass_table(panel(3).pass_at_k)
    assert "1 call" in lines(table)[2] and "3 calls" in lines(table)[2] and "6 calls" in lines(table)[2]
    assert row(table, "user_intent") == ["user_intent", "1.000", "1.000", "-"]
    assert row(table, "business_rules") == ["business_rules", "0.000", "0.000", "-"]
    assert row(table, "whole panel") == ["whole", "panel", "-", "1.000", "1.000"]
    assert caption(table) == "1 pairs with a gold label, 3 samples of each perspective"


def test_too_few_samples_are_told_with_what_to_set(panel: Callable[..., PanelStatistics]) -> None:
    table = pass_table(panel(1).pass_at_k)
    assert row(table, "user_intent") == ["user_intent", "1.000", "-"]
    assert "set judge.samples to 3 or more and a temperature above 0" in caption(table)
    assert "0 pairs" in caption(pass_table(panel_statistics([], [], ESCI, ["a"]).pass_at_k))


def test_a_row_is_right_where_a_column_is_wrong(panel: Callable[..., PanelStatistics]) -> None:
    table = disagreement_table(panel(1))
    assert row(table, "user_intent") == ["1", "user_intent", "-", "0.000", "1.000"]
    assert row(table, "business_rules") == ["3", "business_rules", "0.000", "0.000", "-"]


def test_the_cost_of_what_is_kept(panel: Callable[..., PanelStatistics]) -> None:
    statistics = panel(2, prompt_tokens=600, completion_tokens=100)
    table = cost_table(statistics, PriceConfig(input=2.0, output=8.0))
    # Two answers of 700 tokens, both kept; 600 * 2 + 100 * 8 = 2000 millionths of a dollar each.
    assert row(table, "user_intent") == ["user_intent", "2", "2", "1.000", "700", "2.00"]
    assert row(table, "business_rules") == ["business_rules", "2", "0", "0.000", "-", "-"]


def test_what_is_unknown_is_shown_as_unknown(panel: Callable[..., PanelStatistics]) -> None:
    counted = panel(1, prompt_tokens=600, completion_tokens=100)
    assert row(cost_table(counted, PriceConfig(input=2.0)), "user_intent")[-2:] == ["700", "-"]
    assert row(cost_table(panel(1), PriceConfig(input=2.0, output=8.0)), "user_intent")[-2:] == ["-", "-"]


def test_names_are_no_markup(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> None:
    pair = make_pair(1)
    statistics = panel_statistics([pair], [make_judgement(pair, "[red]", "exact")], ESCI, ["[red]"])
    for table in (
        pass_table(statistics.pass_at_k),
        disagreement_table(statistics),
        cost_table(statistics, PriceConfig()),
    ):
        assert any("[red]" in line for line in lines(table))
