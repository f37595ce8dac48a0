"""What a teacher is worth on dev pairs: its labels against the gold labels, every answer kept."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manylens.errors import MissingExtraError
from manylens.records import LabelScale, Pair, Perspective
from manylens.teacher.backends import Backend
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.judgements import write_judgements
from manylens.teacher.store import JudgementStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A teacher's labels against the gold labels; an answer without a label counts as wrong.

    Attributes:
        pairs: Pairs that were judged, all with a gold label.
        accuracy: Share of right labels.
        macro_f1: Mean F1 over the labels of the scale.
        recall: Recall of each label; ``None`` where no pair has it.
        unparsed: Share of pairs without a label.
    """

    pairs: int
    accuracy: float
    macro_f1: float
    recall: Mapping[str, float | None]
    unparsed: float


def sample_pairs(pairs: Iterable[Pair], most: int | None, seed: int) -> list[Pair]:
    """Take whole queries, in an order that the seed decides, until there are as many pairs as wanted.

    Args:
        pairs: Any pairs; those without a gold label are left out.
        most: Pairs that are wanted; the last query may bring a few more. ``None`` takes all.
        seed: Of the order.

    Returns:
        The pairs, in the order in which they came.
    """
    labelled = [pair for pair in pairs if pair.label is not None]
    if most is None:
        return labelled
    by_query = Counter(pair.query_id for pair in labelled)
    queries = sorted(by_query)
    random.Random(seed).shuffle(queries)
    taken: set[str] = set()
    count = 0
    for query in queries:
        if count >= most:
            break
        taken.add(query)
        count += by_query[query]
    return [pair for pair in labelled if pair.query_id in taken]


def measure(
    backend: Backend,
    pairs: Sequence[Pair],
    scale: LabelScale,
    prompt: Perspective,
    store: JudgementStore,
    predictions: Path,
) -> tuple[Measure, list[str | None]]:
    """Have a teacher judge pairs under one prompt, and compare its labels with the gold labels.

    Args:
        backend: The teacher.
        pairs: Pairs with gold labels, at least one.
        scale: The labels.
        prompt: The prompt.
        store: Keeps the answers; what it holds already is not asked again.
        predictions: A Parquet file for the judgements.

    Returns:
        The figures, and the label of each pair.
    """
    judge(pairs, [prompt], scale, backend, store)
    judgements = list(judgements_of(pairs, [prompt], scale, backend, store))
    write_judgements(predictions, judgements)
    labels = [judgement.label for judgement in judgements]
    return score([pair.label for pair in pairs], labels, scale), labels


def average(members: Sequence[Sequence[str | None]]) -> list[str | None]:
    """Average the label distributions of several teachers, as an ensemble.

    Args:
        members: For each teacher, the label of each pair, or ``None``.

    Returns:
        For each pair the label with the highest mean share; of equal ones, the one that the earlier teacher
        gave. ``None`` where no teacher gave one.
    """
    # A Counter returns, of equally frequent labels, the one that came first.
    votes = (Counter(label for label in labels if label is not None) for labels in zip(*members, strict=True))
    return [vote.most_common(1)[0][0] if vote else None for vote in votes]


def score(gold: Sequence[str | None], predicted: Sequence[str | None], scale: LabelScale) -> Measure:
    """Compare labels with gold labels.

    Args:
        gold: The gold label of each pair, at least one.
        predicted: The teacher's label of each pair, or ``None``.
        scale: The labels.
    """
    try:
        from sklearn.metrics import precision_recall_fscore_support
    except ModuleNotFoundError:
        raise MissingExtraError("scikit-learn", "teacher") from None
    labels = list(scale.names)
    _, recall, f1, support = precision_recall_fscore_support(
        gold, ["" if label is None else label for label in predicted], labels=labels, average=None, zero_division=0.0
    )
    return Measure(
        pairs=len(gold),
        accuracy=sum(one == other for one, other in zip(gold, predicted, strict=True)) / len(gold),
        macro_f1=float(f1.mean()),
        recall={name: float(recall[at]) if support[at] else None for at, name in enumerate(labels)},
        unparsed=sum(label is None for label in predicted) / len(gold),
    )
