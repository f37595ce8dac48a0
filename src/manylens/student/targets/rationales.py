"""Rationales on their way to a vector: read from the teacher's rows, and replaced where a study asks for it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from manylens.config import Hallucination
from manylens.records import Pair

#: Columns of the teacher's rationales that targets are made of.
_COLUMNS = ("pair_id", "perspective", "label", "rationale", "consistent", "rationalized")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rationale:
    """One judgement that has a label.

    Attributes:
        pair_id: The pair.
        perspective: The perspective's name.
        label: The label that the text argues for.
        text: The chain of thought.
        kept: Whether it is distilled; a judgement that is not still votes.
        votes: Whether its label is the teacher's own, not one that the teacher was given.
    """

    pair_id: str
    perspective: str
    label: str
    text: str
    kept: bool
    votes: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class HallucinationReport:
    """What was replaced.

    Attributes:
        pairs: Pairs whose rationales were replaced.
        by_perspective: Rationales replaced by another one of the same pair.
        by_pair: Rationales replaced by one of another pair.
        left: Rationales of chosen pairs that were left, because nothing argues for another label.
    """

    pairs: int
    by_perspective: int
    by_pair: int
    left: int


def read_rationales(table: pa.Table, *, consistent_only: bool) -> list[Rationale]:
    """Return the rows of the teacher's table of rationales.

    Args:
        table: Its columns pair_id, perspective, label, rationale, consistent and rationalized.
        consistent_only: Keep for distilling only what passed the consistency filter.
    """
    rows = zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)
    return [
        Rationale(
            pair_id=pair_id,
            perspective=perspective,
            label=label,
            text=text,
            kept=consistent or not consistent_only,
            votes=not rationalized,
        )
        for pair_id, perspective, label, text, consistent, rationalized in rows
    ]


def hallucinate(
    rationales: Sequence[Rationale], pairs: Mapping[str, Pair], config: Hallucination, seed: int
) -> tuple[list[Rationale], HallucinationReport]:
    """Replace the rationales of a share of the pairs by rationales that argue for a wrong label.

    Only what is kept for distilling is replaced, text and label together, so that the panel's votes go wrong with
    it; perspective and place stay. Pairs are taken in the order of a hash, so that those of a low rate are among
    those of a higher one.

    Args:
        rationales: All rationales.
        pairs: The pairs by id.
        config: The rate, and where the wrong ones come from.
        seed: Of the choice of pairs and of their wrong rationales; other pairs' choices have no influence on it.

    Returns:
        The rationales in their order, and what was replaced.
    """
    candidates = sorted(
        {rationale.pair_id for rationale in rationales if rationale.kept},
        key=lambda pair_id: hashlib.sha256(f"{seed}:{pair_id}".encode()).digest(),
    )
    chosen = frozenset(candidates[: round(config.rate * len(candidates))])
    own: dict[str, list[Rationale]] = {}
    pool: dict[tuple[str, str], list[Rationale]] = {}
    for rationale in rationales:
        own.setdefault(rationale.pair_id, []).append(rationale)
        pool.setdefault((pairs[rationale.pair_id].split, rationale.perspective), []).append(rationale)

    kinds: Counter[str] = Counter()
    replaced: dict[int, Rationale] = {}
    for place, rationale in enumerate(rationales):
        if not rationale.kept or rationale.pair_id not in chosen:
            continue
        pair, generator = pairs[rationale.pair_id], random.Random(f"{seed}:{rationale.pair_id}:{place}")
        right = pair.label or rationale.label
        wrong = [other for other in own[pair.pair_id] if other.label != right] if config.by == "perspective" else []
        if wrong:
            kind, other = "perspective", generator.choice(wrong)
        elif found := _of_another_pair(pool[pair.split, rationale.perspective], pair.pair_id, right, generator):
            kind, other = "pair", found
        else:
            kinds["left"] += 1
            continue
        kinds[kind] += 1
        replaced[place] = replace(rationale, text=other.text, label=other.label)
    report = HallucinationReport(
        pairs=len({rationale.pair_id for rationale in replaced.values()}),
        by_perspective=kinds["perspective"],
        by_pair=kinds["pair"],
        left=kinds["left"],
    )
    return [replaced.get(place, rationale) for place, rationale in enumerate(rationales)], report


def _of_another_pair(pool: Sequence[Rationale], pair_id: str, right: str, generator: random.Random) -> Rationale | None:
    """Return the first that will do, from a random place onwards: neither of this pair nor for the right label."""
    start = generator.randrange(len(pool))
    for step in range(len(pool)):
        other = pool[(start + step) % len(pool)]
        if other.pair_id != pair_id and other.label != right:
            return other
    return None
