"""What measures share: reading what was kept of students, and making rows of estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from manylens.data import Pairs
from manylens.errors import StageError
from manylens.evaluation.compare import difference
from manylens.evaluation.predictions import FloatArray
from manylens.evaluation.resampling import Estimate
from manylens.evaluation.significance import resample_seeds
from manylens.study.arms import Study
from manylens.study.job import Job, Places
from manylens.study.rows import Row, contrast_row, figure_row

Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Rows for the two tables of a study, and sentences that stand below them."""

    figures: list[Row] = field(default_factory=list)
    contrasts: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Measure(Protocol):
    """Measures the students of a study."""

    def __call__(self, study: Study, jobs: Mapping[str, Sequence[Job]], places: Places) -> Measured:
        """Return the rows."""
        ...


class Line(NamedTuple):
    """One line of a measure: an arm, or one of several vectors of an arm.

    Attributes:
        name: Its name in the tables, such as ``lrkd.r``.
        title: For tables.
        estimates: The figure of each seed, all on the same resamples of the same queries.
    """

    name: str
    title: str
    estimates: Sequence[Estimate]


class States:
    """What was kept of a student's states: h, and latents side by side where it has any."""

    def __init__(self, job: Job, places: Places) -> None:
        """Read them.

        Raises:
            StageError: If they were not kept.
        """
        path = places.kept(job) / "vectors.npz"
        if not path.exists():
            raise StageError(
                f"{path} is not there: states are kept up to 20,000 pairs, by studies with vectors: true; "
                f"remove {path.parent} to train that student again"
            )
        with np.load(path) as kept:
            self._rows = {str(pair_id): row for row, pair_id in enumerate(kept["pair_ids"])}
            self.arrays: dict[str, Vectors] = {"h": kept["pooled"].astype(np.float32)}
            if "latents" in kept:
                self.arrays["r"] = kept["latents"].astype(np.float32).reshape(len(self._rows), -1)

    def of(self, kind: str, pair_ids: Sequence[str]) -> Vectors:
        """Return the ``h`` or ``r`` of pairs, (pairs, dim)."""
        return self.arrays[kind][[self._rows[pair_id] for pair_id in pair_ids]]


#: How the kinds of states are called in tables.
KIND_TITLES = {"r": "r", "h": "h"}


def upstream_pairs(job: Job, places: Places) -> Pairs:
    """Return the pairs of a student's upstream."""
    return Pairs.read(places.upstream(job) / "data" / "pairs.parquet")


def rows_of(
    study: Study,
    lines: Sequence[Line],
    compared: Sequence[tuple[str, str]],
    *,
    split: str,
    metric: str,
    queries: int,
    pairs: int,
    confidence: float,
    seed: int,
) -> Measured:
    """Return the rows of one metric.

    Args:
        study: The study.
        lines: The lines, with as many seeds each.
        compared: Pairs of their names, the treatment first.
        split: What was measured.
        metric: Its name.
        queries: Queries that were measured.
        pairs: Pairs that were measured.
        confidence: Mass of the intervals.
        seed: Seed of the draws of training seeds.
    """
    measured, by_name = Measured(), {line.name: line.estimates for line in lines}
    for line in lines:
        values = [estimate.value for estimate in line.estimates]
        row = figure_row(
            study.name, line.name, line.title, split=split, metric=metric, values=values, queries=queries, pairs=pairs
        )
        measured.figures.append(row)
    for treatment, baseline in compared:
        sides = by_name[treatment], by_name[baseline]
        draws = np.stack([one.draws - other.draws for one, other in zip(*sides, strict=True)])
        weights = resample_seeds(draws.shape[0], draws.shape[1], seed)
        found = difference(_values(sides[0]), _values(sides[1]), draws, weights, confidence)
        measured.contrasts.append(
            contrast_row(study.name, treatment, baseline, split=split, metric=metric, found=found)
        )
    return measured


def _values(estimates: Sequence[Estimate]) -> FloatArray:
    return np.array([estimate.value for estimate in estimates])
