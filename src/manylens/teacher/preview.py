"""Previewing: a few pairs judged from all perspectives, side by side, before the rest is paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from manylens.config import Config
from manylens.data import Pairs
from manylens.records import Judgement, Pair
from manylens.teacher.backends import Backend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.judgements import by_pair
from manylens.teacher.perspectives import load_perspective
from manylens.teacher.plan import draw
from manylens.teacher.spending import dollars, price_of
from manylens.teacher.store import JudgementStore
from manylens.teacher.tally import JudgeReport

#: Columns of the terminal that a rationale needs to be read with ease.
_COLUMN = 38


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A few pairs as the teacher sees them.

    Attributes:
        panels: Each pair with its judgements, one a perspective.
        report: What was asked for it.
    """

    panels: tuple[tuple[Pair, tuple[Judgement, ...]], ...]
    report: JudgeReport


def preview(config: Config, pairs: Pairs, backend: Backend, store: JudgementStore, count: int) -> Preview:
    """Judge a few pairs, drawn by the recipe's seed, once from every perspective.

    The answers are the run's own: judging all pairs later does not ask for them again.

    Args:
        config: The recipe.
        pairs: Its pairs, of all splits.
        backend: Its teacher.
        store: Its judgement store.
        count: Pairs to show.

    Returns:
        The pairs, their judgements and what was asked.

    Raises:
        PromptError: If a prompt cannot be rendered.
        TeacherError: If the teacher or the store fails.
    """
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    drawn = draw(pairs.split(*config.judge.splits), count, config.seed)
    scale, retries, price = config.labels.build(), config.judge.retry_unparsed, price_of(config.teacher)
    report = judge(drawn, perspectives, scale, backend, store, retry_unparsed=retries, price=price)
    judgements = judgements_of(drawn, perspectives, scale, backend, store, retry_unparsed=retries)
    return Preview(panels=tuple((pair, tuple(panel)) for pair, panel in by_pair(drawn, judgements)), report=report)


def preview_view(preview: Preview, width: int) -> RenderableType:
    """Lay out a preview for the terminal.

    Args:
        preview: The preview.
        width: Columns of the terminal; perspectives stand side by side as far as they fit.

    Returns:
        One block a pair, and a line that says what was asked.
    """
    blocks = [_pair_view(pair, judgements, width) for pair, judgements in preview.panels]
    return Group(*blocks, Text(_asked(preview.report)))


def _pair_view(pair: Pair, judgements: Sequence[Judgement], width: int) -> RenderableType:
    abreast = max(1, min(len(judgements), width // _COLUMN))
    grid = Table.grid(expand=True)
    for _ in range(abreast):
        grid.add_column(ratio=1)
    for start in range(0, len(judgements), abreast):
        grid.add_row(*(_judgement_view(pair, judgement) for judgement in judgements[start : start + abreast]))
    head = Text.assemble((pair.query, "bold"), " ─ ", pair.title, (f"  {pair.pair_id}, ", "dim"))
    head.append(f"gold: {pair.label}" if pair.label else "no gold label", "bold")
    fields = [("Brand", pair.brand), *pair.attributes.items(), ("Description", pair.description)]
    listing = Text(" | ".join(f"{name}: {value}" for name, value in fields if value), "dim")
    listing.truncate(3 * width, overflow="ellipsis")
    return Group(head, listing, grid, "")


def _judgement_view(pair: Pair, judgement: Judgement) -> Panel:
    if judgement.label is None:
        colour, verdict, said = "yellow", f"no label ({judgement.reason})", judgement.raw
    elif pair.label is None:
        colour, verdict, said = "blue", judgement.label, judgement.rationale
    else:
        right = judgement.label == pair.label
        colour, verdict = ("green", f"{judgement.label}, right") if right else ("red", f"{judgement.label}, wrong")
        said = judgement.rationale
    counts = [judgement.prompt_tokens, judgement.completion_tokens]
    tokens = "{:,} + {:,} tokens".format(*counts) if None not in counts else None
    return Panel(
        Group(Text(verdict, f"bold {colour}"), Text(said)),
        title=escape(judgement.perspective),
        title_align="left",
        subtitle=tokens,
        subtitle_align="right",
        border_style=colour,
    )


def _asked(report: JudgeReport) -> str:
    parts = [f"asked {report.asked:,}", f"known before {report.reused:,}"]
    if report.unanswered:
        parts.insert(1, f"without an answer {report.unanswered:,}")
    if report.tokens.total:
        estimated = " (estimated)" if report.tokens.uncounted else ""
        cost = "at an unknown price" if report.cost is None else dollars(report.cost)
        parts.append(f"{report.tokens.total:,} tokens{estimated}, {cost}")
    return "; ".join(parts)
