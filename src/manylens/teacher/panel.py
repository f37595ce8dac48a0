"""What a panel of perspectives is worth, measured against the gold labels.

An *answered* judgement is any but an unanswered one; an answer without a label counts as wrong.
Figures over pairs are over the pairs of which at least one judgement was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.table import Table

from manylens.records import Judgement, LabelScale, Pair
from manylens.teacher.judgements import by_pair


@dataclass(frozen=True, kw_only=True, slots=True)
class PerspectiveStatistics:
    """What one perspective is worth.

    Attributes:
        judgements: How many were asked for.
        unanswered: Share of them without an answer.
        unparseable: Share of the answered ones without a label.
        accuracy: Share of the answered ones that are right, over pairs with a gold label.
        recall: The same for each gold label on its own.
    """

    judgements: int
    unanswered: float | None
    unparseable: float | None
    accuracy: float | None
    recall: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelStatistics:
    """What the panel is worth; every share is in [0, 1], and ``None`` where it would be over nothing.

    Attributes:
        pairs: Pairs with at least one answered judgement.
        by_perspective: Figures by the perspective's name.
        oracle: Share of the pairs with a gold label that at least one judgement gets right: what a perfect
            choice among the judgements would reach.
        conflict: Share of the pairs with a gold label that have a right and a wrong label.
        unanimous: Share of the pairs on whose label all judgements agree, among the pairs all of whose
            requested judgements have a label.
        unanimous_accuracy: Share of the unanimous pairs with a gold label that are right.
        kappa: Fleiss' kappa of the panel over the pairs that `unanimous` is about.
    """

    pairs: int
    by_perspective: Mapping[str, PerspectiveStatistics]
    oracle: float | None
    conflict: float | None
    unanimous: float | None
    unanimous_accuracy: float | None
    kappa: float | None


@dataclass
class _Tally:
    """Counts of one perspective."""

    asked: int = 0
    answered: int = 0
    labelled: int = 0
    gold: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)


def panel_statistics(
    pairs: Iterable[Pair], judgements: Iterable[Judgement], scale: LabelScale, perspectives: Sequence[str]
) -> PanelStatistics:
    """Measure a panel.

    Args:
        pairs: The pairs.
        judgements: Judgements in the order of `pairs`, unanswered ones among them.
        scale: The labels.
        perspectives: Names of the panel's perspectives; judgements of others are left out.

    Returns:
        The figures.

    Raises:
        TeacherError: If a judgement's pair is not among the pairs, or comes too late.
    """
    tallies = {name: _Tally() for name in perspectives}
    counts: Counter[str] = Counter()
    votes: Counter[tuple[int, ...]] = Counter()
    for pair, judgements_of_pair in by_pair(pairs, judgements):
        panel = [judgement for judgement in judgements_of_pair if judgement.perspective in tallies]
        for judgement in panel:
            _count(tallies[judgement.perspective], pair, judgement)
        answered = [judgement for judgement in panel if judgement.reason != "unanswered"]
        if not answered:
            continue
        counts["pairs"] += 1
        labels = [judgement.label for judgement in answered]
        if pair.label is not None:
            counts["gold"] += 1
            counts["oracle"] += pair.label in labels
            counts["conflict"] += pair.label in labels and any(label not in (None, pair.label) for label in labels)
        if len(labels) == len(panel) and None not in labels:
            votes[tuple(labels.count(name) for name in scale.names)] += 1
            if len(set(labels)) == 1:
                counts["unanimous"] += 1
                counts["unanimous gold"] += pair.label is not None
                counts["unanimous right"] += labels[0] == pair.label
    return PanelStatistics(
        pairs=counts["pairs"],
        by_perspective={name: _perspective_statistics(tally, scale) for name, tally in tallies.items()},
        oracle=_share(counts["oracle"], counts["gold"]),
        conflict=_share(counts["conflict"], counts["gold"]),
        unanimous=_share(counts["unanimous"], votes.total()),
        unanimous_accuracy=_share(counts["unanimous right"], counts["unanimous gold"]),
        kappa=fleiss_kappa(list(votes.elements())),
    )


def fleiss_kappa(votes: Sequence[Sequence[int]]) -> float | None:
    """Return the agreement of several raters beyond chance (Fleiss, 1971).

    With n raters, ``P_i = (sum_j v_ij^2 - n) / (n (n - 1))`` is the agreement on item i and ``p_j`` the share of
    all votes for label j; ``kappa = (mean P_i - sum_j p_j^2) / (1 - sum_j p_j^2)``.

    Args:
        votes: For each rated pair, the number of votes for each label; the same number of votes for each pair.

    Returns:
        Kappa, at most 1; ``None`` where there are no pairs, fewer than two raters, or votes for one label only.
    """
    raters = sum(votes[0]) if votes else 0
    if raters < 2:
        return None
    agreement = sum((sum(v * v for v in row) - raters) / (raters * (raters - 1)) for row in votes) / len(votes)
    chance = sum((sum(column) / (raters * len(votes))) ** 2 for column in zip(*votes, strict=True))
    return None if chance == 1.0 else (agreement - chance) / (1.0 - chance)


def panel_table(statistics: PanelStatistics, scale: LabelScale) -> Table:
    """Lay the statistics out as a table, a row for each perspective and the whole panel below.

    Args:
        statistics: The figures.
        scale: The labels, for the order of the recall columns.

    Returns:
        The table, to be printed on a rich console.
    """
    caption = (
        f"{statistics.pairs:,} pairs judged; oracle {_text(statistics.oracle)}, conflict {_text(statistics.conflict)}, "
        f"unanimous {_text(statistics.unanimous)} (right there {_text(statistics.unanimous_accuracy)}), "
        f"Fleiss' kappa {_text(statistics.kappa)}"
    )
    title = "teacher panel: share right, and recall of each label"
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("perspective", overflow="fold")
    for heading in ("right", *scale.names, "no\nlabel", "no\nanswer"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, row in statistics.by_perspective.items():
        recall = [row.recall[label] for label in scale.names]
        table.add_row(name, *map(_text, (row.accuracy, *recall, row.unparseable, row.unanswered)))
    return table


def _count(tally: _Tally, pair: Pair, judgement: Judgement) -> None:
    tally.asked += 1
    if judgement.reason == "unanswered":
        return
    tally.answered += 1
    tally.labelled += judgement.label is not None
    if pair.label is not None:
        tally.gold[pair.label] += 1
        tally.right[pair.label] += judgement.label == pair.label


def _perspective_statistics(tally: _Tally, scale: LabelScale) -> PerspectiveStatistics:
    return PerspectiveStatistics(
        judgements=tally.asked,
        unanswered=_share(tally.asked - tally.answered, tally.asked),
        unparseable=_share(tally.answered - tally.labelled, tally.answered),
        accuracy=_share(tally.right.total(), tally.gold.total()),
        recall={name: _share(tally.right[name], tally.gold[name]) for name in scale.names},
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _text(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
