"""What a further perspective adds to a panel, measured on pairs with gold labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table

from manylens.config import PriceConfig
from manylens.data import Pairs
from manylens.errors import TeacherError
from manylens.records import Judgement, LabelScale, Pair, Perspective
from manylens.teacher.backends import Backend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.judgements import by_pair
from manylens.teacher.propose import sample_pairs
from manylens.teacher.spending import UNPRICED
from manylens.teacher.store import JudgementStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """What one candidate adds; shares are ``None`` where they would be over nothing.

    Attributes:
        name: The candidate's name.
        answered: Pairs on which it was answered.
        accuracy: Share of those that it gets right.
        rescued: Pairs that it gets right and no perspective of the panel does.
        gain: What it adds to the oracle: `rescued` over all pairs.
        agreement: Share of the couples of its label and a label of the panel on the same pair that are equal.
        tokens: Mean tokens of its prompt and answer; ``None`` where the backend does not say.
    """

    name: str
    answered: int
    accuracy: float | None
    rescued: int
    gain: float | None
    agreement: float | None
    tokens: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Additions:
    """What candidates add to a panel, a judgement of each perspective for each pair.

    Attributes:
        pairs: Pairs with a gold label on which any judgement was answered.
        queries: Their queries.
        panel: Names of the panel.
        oracle: Share of the pairs that a perspective of the panel gets right.
        oracle_with_all: The same with all candidates.
        candidates: The figures of each.
    """

    pairs: int
    queries: int
    panel: tuple[str, ...]
    oracle: float | None
    oracle_with_all: float | None
    candidates: tuple[Addition, ...]


def judge_additions(
    pairs: Pairs,
    panel: Sequence[Perspective],
    candidates: Sequence[Perspective],
    scale: LabelScale,
    backend: Backend,
    store: JudgementStore,
    *,
    most: int,
    seed: int,
    retry_unparsed: int = 0,
    price: PriceConfig = UNPRICED,
) -> Additions:
    """Have panel and candidates judge pairs once each, and measure what the candidates add.

    Args:
        pairs: Pairs of dev; those with a gold label are drawn from.
        panel: The perspectives so far; what the store knows of them is not asked again.
        candidates: Those that might join.
        scale: The labels.
        backend: The teacher.
        store: Where answers are looked up and kept.
        most: How many pairs to draw, at most.
        seed: Of the draw.
        retry_unparsed: As for `judge`.
        price: As for `judge`.

    Returns:
        The figures.

    Raises:
        TeacherError: If no pair has a gold label.
        ConfigError: If two perspectives have the same name.
    """
    labelled = Pairs(pairs.table.filter(pairs.table["label"].is_valid()))
    if not len(labelled):
        raise TeacherError(f"none of the {len(pairs):,} dev pairs has a gold label to measure by; label some")
    drawn, everyone = sample_pairs(labelled, most, seed), [*panel, *candidates]
    judge(drawn, everyone, scale, backend, store, retry_unparsed=retry_unparsed, price=price)
    judgements = judgements_of(drawn, everyone, scale, backend, store, retry_unparsed=retry_unparsed)
    names = ([perspective.name for perspective in part] for part in (panel, candidates))
    return measure_additions(drawn, judgements, *names)


def measure_additions(
    pairs: Iterable[Pair], judgements: Iterable[Judgement], panel: Sequence[str], candidates: Sequence[str]
) -> Additions:
    """Measure what candidates add to a panel.

    Args:
        pairs: The pairs; those without a gold label are left out.
        judgements: The first sample of every perspective, in the order of `pairs`.
        panel: Names of the perspectives so far.
        candidates: Names of those that might join.

    Returns:
        The figures.

    Raises:
        TeacherError: If a judgement's pair is not among the pairs, or comes too late.
    """
    tallies = {name: Counter[str]() for name in candidates}
    unknown_tokens: set[str] = set()
    queries: set[str] = set()
    total = solved = solved_with_all = 0
    for pair, judged in by_pair(pairs, judgements):
        answered = {each.perspective: each for each in judged if each.reason != "unanswered"}
        if pair.label is None or not answered:
            continue
        total += 1
        queries.add(pair.query_id)
        labels = [answered[name].label for name in panel if name in answered]
        missed = pair.label not in labels
        solved += not missed
        solved_with_all += any(each.label == pair.label for each in answered.values())
        for name, tally in tallies.items():
            if (judgement := answered.get(name)) is None:
                continue
            right = judgement.label == pair.label
            tally.update(answered=1, right=right, rescued=right and missed)
            if judgement.label is not None:
                tally.update(couples=len(labels) - labels.count(None), equal=labels.count(judgement.label))
            if judgement.prompt_tokens is None or judgement.completion_tokens is None:
                unknown_tokens.add(name)
            else:
                tally.update(tokens=judgement.prompt_tokens + judgement.completion_tokens)
    return Additions(
        pairs=total,
        queries=len(queries),
        panel=tuple(panel),
        oracle=_share(solved, total),
        oracle_with_all=_share(solved_with_all, total),
        candidates=tuple(
            Addition(
                name=name,
                answered=tally["answered"],
                accuracy=_share(tally["right"], tally["answered"]),
                rescued=tally["rescued"],
                gain=_share(tally["rescued"], total),
                agreement=_share(tally["equal"], tally["couples"]),
                tokens=None if name in unknown_tokens else _share(tally["tokens"], tally["answered"]),
            )
            for name, tally in tallies.items()
        ),
    )


def additions_table(additions: Additions) -> Table:
    """Lay out what candidates add to a panel, one a row.

    Args:
        additions: The figures.

    Returns:
        The table, of at most 80 columns for names of ordinary length.
    """
    title = f"what each adds to the panel, on dev: {additions.queries:,} queries, {additions.pairs:,} pairs"
    panel = ", ".join(map(escape, additions.panel))
    caption = (
        f"Oracle of the panel ({panel}): {_text(additions.oracle)}; with all of these "
        f"{_text(additions.oracle_with_all)}. Rescued: right where the whole panel is wrong."
    )
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("perspective", overflow="fold")
    for heading in ("answered", "right", "rescued", "adds to\noracle", "agrees", "tokens"):
        table.add_column(heading, justify="right")
    for row in additions.candidates:
        table.add_row(
            escape(row.name),
            f"{row.answered:,}",
            _text(row.accuracy),
            f"{row.rescued:,}",
            "-" if row.gain is None else f"{row.gain:+.3f}",
            _text(row.agreement),
            "-" if row.tokens is None else f"{row.tokens:,.0f}",
        )
    return table


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _text(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
