"""One label of many judgements: the panel's vote, as a prediction of the teacher.

Two ways to vote. ``majority`` gives every judgement one vote. ``weighted`` gives a judgement of perspective p
``log(a_p (K - 1) / (1 - a_p))`` votes, where a_p is its accuracy on dev and K the number of labels: the
likeliest label if perspectives err independently and evenly over the labels (Nitzan and Paroush, 1982, for two labels;
the "one-coin" case of Dawid and Skene, 1979, with the gold labels known).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from manylens.errors import MissingExtraError, TeacherError
from manylens.records import Judgement, LabelScale, Pair
from manylens.teacher.judgements import by_pair

#: How a panel votes.
Method = Literal["majority", "weighted"]
#: Who says what of a pair: (perspective, label) of every judgement that has a label.
Ballot = tuple[tuple[str, str], ...]

#: Parts of the dev queries; each is voted on with weights fitted on the others.
FOLDS = 5

#: One row a pair; a pair without any label has no vote.
VOTE_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("majority", pa.string()),
        pa.field("weighted", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Votes:
    """What the panel says of every pair of which any judgement was answered, in several ways.

    Attributes:
        table: The votes, by `VOTE_SCHEMA`. A vote on dev used accuracies of other dev queries alone.
        complete: Whether all judgements of the pair were answered, in the table's order.
        alone: For each perspective, the label of its first sample, in the table's order.
        oracle: The gold label where any judgement has it, else the majority's, in the table's order.
        accuracies: Each perspective's accuracy on the whole of dev, as `fit_accuracies` gives it.
        calls: Judgements of a pair.
    """

    table: pa.Table
    complete: Sequence[bool]
    alone: Mapping[str, Sequence[str | None]]
    oracle: Sequence[str | None]
    accuracies: Mapping[str, float]
    calls: int


def fit_accuracies(ballots: Iterable[tuple[str, Ballot]], perspectives: Sequence[str], labels: int) -> dict[str, float]:
    """Estimate how often each perspective's labels are right.

    Args:
        ballots: Gold label and ballot of each pair.
        perspectives: The panel.
        labels: Labels of the scale, K.

    Returns:
        ``(right + 1) / (labelled + K)`` of each perspective: the rate of a guess where nothing is known, and
        never 0 or 1, whose weight would outvote everybody.
    """
    right: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    for gold, ballot in ballots:
        for perspective, label in ballot:
            labelled[perspective] += 1
            right[perspective] += label == gold
    return {name: (right[name] + 1) / (labelled[name] + labels) for name in perspectives}


def weight(accuracy: float, labels: int) -> float:
    """Return the log-odds weight of a perspective: 0 for a guess among `labels` labels, below 0 for worse."""
    return math.log(accuracy * (labels - 1) / (1.0 - accuracy))


def vote(ballot: Ballot, scale: LabelScale, accuracies: Mapping[str, float], method: Method) -> str | None:
    """Return the label that a panel votes for.

    Args:
        ballot: The judgements that have a label.
        scale: The labels.
        accuracies: The accuracy of each perspective on dev, in (0, 1).
        method: ``majority`` or ``weighted``.

    Returns:
        The label with most votes among those that have any. Of equals, the one whose voters have the higher sum of
        accuracies wins; then the better label. ``None`` where the ballot is empty.
    """
    votes: dict[str, float] = {}
    trust: dict[str, float] = {}
    for perspective, label in ballot:
        accuracy = accuracies[perspective]
        votes[label] = votes.get(label, 0.0) + (1.0 if method == "majority" else weight(accuracy, len(scale.names)))
        trust[label] = trust.get(label, 0.0) + accuracy
    voted = [label for label in scale.names if label in votes]
    # Rounded: sums of the same weights in another order are equal.
    return max(voted, key=lambda label: (round(votes[label], 9), round(trust[label], 9)), default=None)


def cast_votes(
    pairs: Iterable[Pair],
    judgements: Iterable[Judgement],
    scale: LabelScale,
    perspectives: Sequence[str],
) -> Votes:
    """Have a panel vote on every pair, with accuracies that come from dev.

    On a dev pair, the accuracies come from the other parts of dev: its queries are dealt into `FOLDS` parts
    (scikit-learn's `GroupKFold`), so that no vote has seen its own gold label and dev can be measured on.

    Args:
        pairs: The judged pairs; dev must be among them.
        judgements: Judgements in the order of `pairs`.
        scale: The labels.
        perspectives: The panel; judgements of others are left out.

    Returns:
        The votes and what to compare them with.

    Raises:
        TeacherError: If there are not at least two dev queries with gold labels, or the judgements are not those of
            the pairs.
        MissingExtraError: If scikit-learn is not installed.
    """
    ballot_box = _BallotBox(pairs, judgements, perspectives)
    accuracies, of_pair = _fitted_accuracies(ballot_box, perspectives, len(scale.names))
    majority, weighted = (
        [vote(ballot, scale, of_pair[row], method) for row, ballot in enumerate(ballot_box.ballots)]
        for method in ("majority", "weighted")
    )
    return Votes(
        table=pa.table(
            {**ballot_box.columns, "label": ballot_box.gold, "majority": majority, "weighted": weighted},
            schema=VOTE_SCHEMA,
        ),
        complete=ballot_box.complete,
        alone=ballot_box.alone,
        oracle=[
            gold if gold in {label for _, label in ballot} else fallback
            for gold, ballot, fallback in zip(ballot_box.gold, ballot_box.ballots, majority, strict=True)
        ],
        accuracies=accuracies,
        calls=ballot_box.calls,
    )


class _BallotBox:
    """The ballots of all pairs, and what the votes are joined to."""

    def __init__(self, pairs: Iterable[Pair], judgements: Iterable[Judgement], perspectives: Sequence[str]) -> None:
        self.columns: dict[str, list[str]] = {"pair_id": [], "query_id": [], "split": []}
        self.gold: list[str | None] = []
        self.complete: list[bool] = []
        self.ballots: list[Ballot] = []
        self.alone: dict[str, list[str | None]] = {name: [] for name in perspectives}
        self.calls = 0
        known: dict[Ballot, Ballot] = {}
        for pair, judged in by_pair(pairs, judgements):
            panel = [judgement for judgement in judged if judgement.perspective in self.alone]
            answered = [judgement.reason != "unanswered" for judgement in panel]
            if not any(answered):
                continue
            self.complete.append(all(answered))
            ballot = tuple((each.perspective, each.label) for each in panel if each.label is not None)
            self.ballots.append(known.setdefault(ballot, ballot))  # There are few different ballots.
            self.calls = max(self.calls, len(panel))
            for name, column in self.columns.items():
                column.append(getattr(pair, name))
            self.gold.append(pair.label)
            first = {each.perspective: each.label for each in panel if each.sample == 0}
            for name, labels in self.alone.items():
                labels.append(first.get(name))

    def dev(self) -> tuple[list[int], list[str]]:
        """Return the rows of the dev pairs that have a gold label, and their queries."""
        splits = enumerate(self.columns["split"])
        rows = [row for row, split in splits if split == "dev" and self.gold[row] is not None]
        return rows, [self.columns["query_id"][row] for row in rows]

    def labelled(self, rows: Iterable[int]) -> Iterator[tuple[str, Ballot]]:
        """Yield gold label and ballot of the rows that have a gold label."""
        return ((gold, self.ballots[row]) for row in rows if (gold := self.gold[row]) is not None)


def _fitted_accuracies(
    ballot_box: _BallotBox, perspectives: Sequence[str], labels: int
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Return the accuracies on all of dev, and those that each row's vote may use."""
    dev, queries = ballot_box.dev()
    if len(set(queries)) < 2:
        raise TeacherError(
            f"votes go by the perspectives' accuracy on dev, expected at least two judged dev queries with gold "
            f"labels, got {len(set(queries))}; add dev to judge.splits, or label queries of it"
        )
    accuracies = fit_accuracies(ballot_box.labelled(dev), perspectives, labels)
    of_row = [accuracies] * len(ballot_box.ballots)
    for kept, held_out in _folds(queries):
        others = fit_accuracies(ballot_box.labelled(dev[index] for index in kept), perspectives, labels)
        for index in held_out:
            of_row[dev[index]] = others
    return accuracies, of_row


def _folds(queries: Sequence[str]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield the indices to fit on and those held out, no query on both sides."""
    try:
        from sklearn.model_selection import GroupKFold
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "scikit-learn", "teacher") from None
    yield from GroupKFold(min(FOLDS, len(set(queries)))).split(queries, groups=queries)
