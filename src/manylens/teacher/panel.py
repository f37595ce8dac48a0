"""What a panel of perspectives is worth, measured against the gold labels.

An *answered* judgement is any but an unanswered one; an answer without a label counts as wrong.
Figures over pairs are over the pairs of which at least one judgement was answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.table import Table

from manylens.records import Judgement, LabelScale, Pair
from manylens.teacher.judgements import by_pair
from manylens.teacher.passk import PassAtK, Tried, at_equal_calls


@dataclass(frozen=True, kw_only=True, slots=True)
class PerspectiveStatistics:
    """What one perspective is worth.

    Attributes:
        judgements: How many were asked for.
        answered: How many of them have an answer.
        unanswered: Share of them without an answer.
        unparseable: Share of the answered ones without a label.
        accuracy: Share of the answered ones that are right, over pairs with a gold label.
        recall: The same for each gold label on its own.
        right: How many have the gold label; the consistency filter keeps these.
        prompt_tokens: Tokens of the prompts of all answers, or ``None`` where the backend does not say.
        completion_tokens: Tokens of the answers, likewise.
    """

    judgements: int
    answered: int
    unanswered: float | None
    unparseable: float | None
    accuracy: float | None
    recall: Mapping[str, float | None]
    right: int
    prompt_tokens: int | None
    completion_tokens: int | None


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
        disagreement: For each ordered couple of perspectives, the share of the pairs with a gold label, answered by
            both, on which the first (the outer key) has the gold label and the second another one. With several
            samples, the mean over all combinations of a sample of each.
        pass_at_k: The panel against single perspectives at the same number of calls.
    """

    pairs: int
    by_perspective: Mapping[str, PerspectiveStatistics]
    oracle: float | None
    conflict: float | None
    unanimous: float | None
    unanimous_accuracy: float | None
    kappa: float | None
    disagreement: Mapping[str, Mapping[str, float | None]]
    pass_at_k: PassAtK


class _Tally:
    """Counts of one perspective."""

    def __init__(self) -> None:
        self.asked = self.answered = self.labelled = 0
        self.gold: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.prompt_tokens: int | None = 0
        self.completion_tokens: int | None = 0

    def count(self, pair: Pair, judgement: Judgement) -> None:
        self.asked += 1
        if judgement.reason == "unanswered":
            return
        self.answered += 1
        self.labelled += judgement.label is not None
        self.prompt_tokens = _sum(self.prompt_tokens, judgement.prompt_tokens)
        self.completion_tokens = _sum(self.completion_tokens, judgement.completion_tokens)
        if pair.label is not None:
            self.gold[pair.label] += 1
            self.right[pair.label] += judgement.label == pair.label

    def statistics(self, scale: LabelScale) -> PerspectiveStatistics:
        return PerspectiveStatistics(
            judgements=self.asked,
            answered=self.answered,
            unanswered=_share(self.asked - self.answered, self.asked),
            unparseable=_share(self.answered - self.labelled, self.answered),
            accuracy=_share(self.right.total(), self.gold.total()),
            recall={name: _share(self.right[name], self.gold[name]) for name in scale.names},
            right=self.right.total(),
            prompt_tokens=self.prompt_tokens if self.answered else None,
            completion_tokens=self.completion_tokens if self.answered else None,
        )


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
    outcomes: Counter[tuple[Tried, ...]] = Counter()
    for pair, judgements_of_pair in by_pair(pairs, judgements):
        panel = [judgement for judgement in judgements_of_pair if judgement.perspective in tallies]
        for judgement in panel:
            tallies[judgement.perspective].count(pair, judgement)
        answered = [judgement for judgement in panel if judgement.reason != "unanswered"]
        if not answered:
            continue
        counts["pairs"] += 1
        labels = [judgement.label for judgement in answered]
        if pair.label is not None:
            counts["gold"] += 1
            counts["oracle"] += pair.label in labels
            counts["conflict"] += pair.label in labels and any(label not in (None, pair.label) for label in labels)
            outcomes[tuple(_tried(answered, name, pair.label) for name in tallies)] += 1
        if len(labels) == len(panel) and None not in labels:
            votes[tuple(labels.count(name) for name in scale.names)] += 1
            if len(set(labels)) == 1:
                counts["unanimous"] += 1
                counts["unanimous gold"] += pair.label is not None
                counts["unanimous right"] += labels[0] == pair.label
    return PanelStatistics(
        pairs=counts["pairs"],
        by_perspective={name: tally.statistics(scale) for name, tally in tallies.items()},
        oracle=_share(counts["oracle"], counts["gold"]),
        conflict=_share(counts["conflict"], counts["gold"]),
        unanimous=_share(counts["unanimous"], votes.total()),
        unanimous_accuracy=_share(counts["unanimous right"], counts["unanimous gold"]),
        kappa=fleiss_kappa(list(votes.elements())),
        disagreement={
            right: {
                wrong: _disagreement(outcomes, first, second)
                for second, wrong in enumerate(perspectives)
                if wrong != right
            }
            for first, right in enumerate(perspectives)
        },
        pass_at_k=at_equal_calls(outcomes, perspectives),
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


def label_confusion(
    judgements: Iterable[Judgement], scale: LabelScale, first: str, second: str
) -> tuple[tuple[int, ...], ...]:
    """Count how the labels of two perspectives go together.

    Args:
        judgements: Judgements, those of a pair beside each other.
        scale: The labels.
        first: A perspective's name.
        second: Another's.

    Returns:
        For each label of the first (rows, in the scale's order) and of the second (columns), the number of times that
        they said so of the same pair in the same sample.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for _, judged in groupby(judgements, key=lambda judgement: judgement.pair_id):
        labels = {(each.perspective, each.sample): each.label for each in judged if each.label is not None}
        for (perspective, sample), label in labels.items():
            if perspective == first and (second, sample) in labels:
                counts[label, labels[second, sample]] += 1
    return tuple(tuple(counts[row, column] for column in scale.names) for row in scale.names)


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


def _tried(answered: Sequence[Judgement], perspective: str, gold: str) -> Tried:
    labels = [judgement.label for judgement in answered if judgement.perspective == perspective]
    right, unlabelled = labels.count(gold), labels.count(None)
    return Tried(answered=len(labels), right=right, wrong=len(labels) - right - unlabelled)


def _disagreement(outcomes: Mapping[tuple[Tried, ...], int], right: int, wrong: int) -> float | None:
    shares, pairs = 0.0, 0
    for panel, count in outcomes.items():
        first, second = panel[right], panel[wrong]
        if first.answered and second.answered:
            shares += count * (first.right / first.answered) * (second.wrong / second.answered)
            pairs += count
    return _share(shares, pairs)


def _sum(total: int | None, tokens: int | None) -> int | None:
    """Add up; one unknown number makes the sum unknown."""
    return None if total is None or tokens is None else total + tokens


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _text(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
