"""The panel's further figures as tables for the terminal; `panel.panel_table` has the headline."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from manylens.config import PriceConfig
from manylens.records import LabelScale
from manylens.teacher.panel import PanelStatistics, PerspectiveStatistics
from manylens.teacher.passk import PassAtK
from manylens.teacher.spending import Tokens


def pass_table(figures: PassAtK) -> Table:
    """Lay out pass@k of each perspective against the oracle of the panel, at the same number of calls a pair.

    Args:
        figures: The figures; a caption says what to set where the comparison needs more samples.

    Returns:
        The table, a column for each number of calls.
    """
    names = list(figures.rows[0].by_perspective) if figures.rows else []
    caption = f"{figures.pairs:,} pairs with a gold label, {_count(figures.samples, 'sample')} of each perspective"
    if names and figures.samples < len(names) > 1:
        caption += (
            f"; to compare the panel with as many calls of one perspective, set judge.samples to {len(names)} or more "
            "and a temperature above 0"
        )
    table = _table("right in at least one of so many calls (pass@k)", caption)
    table.add_column("perspective", overflow="fold")
    for row in figures.rows:
        table.add_column(_count(row.calls, "call"), justify="right")
    for name in names:
        table.add_row(escape(name), *(_share(row.by_perspective[name]) for row in figures.rows))
    if len(names) > 1:
        table.add_section()
        table.add_row("whole panel", *(_share(row.panel) for row in figures.rows))
    return table


def disagreement_table(statistics: PanelStatistics) -> Table:
    """Lay out how often one perspective is right where another is wrong.

    Args:
        statistics: The panel's figures.

    Returns:
        The table: a row is right where a column is wrong.
    """
    caption = "Share of the pairs with a gold label on which the row has it and the column has another label."
    table = _table("right where another perspective is wrong", caption)
    table.add_column("right", overflow="fold")
    names = list(statistics.disagreement)
    for number in range(1, len(names) + 1):
        table.add_column(f"{number} wrong", justify="right")
    for number, right in enumerate(names, start=1):
        shares = (statistics.disagreement[right].get(wrong) for wrong in names)
        table.add_row(f"{number} {escape(right)}", *map(_share, shares))
    return table


def confusion_table(counts: Sequence[Sequence[int]], scale: LabelScale, first: str, second: str) -> Table:
    """Lay out how the labels of two perspectives go together.

    Args:
        counts: What `panel.label_confusion` gives.
        scale: The labels.
        first: The perspective of the rows.
        second: The perspective of the columns.

    Returns:
        The table, a row and a column for each label.
    """
    table = _table(f"labels of {escape(first)} (rows) and {escape(second)} (columns)", "Judgements of the same pair.")
    table.add_column("", overflow="fold")
    for name in scale.names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for name, row in zip(scale.names, counts, strict=True):
        table.add_row(escape(name), *(f"{count:,}" for count in row))
    return table


def cost_table(statistics: PanelStatistics, price: PriceConfig) -> Table:
    """Lay out what a kept rationale costs.

    Args:
        statistics: The panel's figures.
        price: Of the teacher's tokens; unknown money is shown as unknown.

    Returns:
        The table, a row for each perspective.
    """
    caption = (
        "Kept: the label is the gold label. Tokens of the answers that count; what a retry replaced is in the judge "
        "report."
    )
    table = _table("cost of a kept rationale", caption)
    table.add_column("perspective", overflow="fold")
    for heading in ("answers", "kept", "share kept", "tokens a\nkept one", "US$ for\n1,000 kept"):
        table.add_column(heading, justify="right")
    for name, row in statistics.by_perspective.items():
        tokens = _tokens(row)
        money = None if tokens is None else tokens.cost(price)
        table.add_row(
            escape(name),
            f"{row.answered:,}",
            f"{row.right:,}",
            _share(row.right / row.answered if row.answered else None),
            "-" if tokens is None or not row.right else f"{tokens.total / row.right:,.0f}",
            "-" if money is None or not row.right else f"{1000 * money / row.right:,.2f}",
        )
    return table


def _tokens(row: PerspectiveStatistics) -> Tokens | None:
    if row.prompt_tokens is None or row.completion_tokens is None:
        return None
    return Tokens(prompt=row.prompt_tokens, completion=row.completion_tokens)


def _table(title: str, caption: str) -> Table:
    return Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, min_width=64)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
