"""What is embedded for a pair: its rationales, or a control that has as many parameters and steps."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StudentError
from manylens.records import LabelScale, Pair
from manylens.student.targets.rationales import Rationale

Source = Literal["rationale", "labelled_rationale", "shuffled", "label", "pair", "random"]
Combine = Literal["mean", "per_perspective", "concat_text"]
#: Texts by row (the pair) and latent.
Cells = dict[tuple[int, int], list[str]]

#: Sources that hold no reasoning about the pair; their vectors get the scale of the real ones.
CONTROLS: frozenset[Source] = frozenset({"shuffled", "label", "pair", "random"})


def pair_text(pair: Pair) -> str:
    """Return the text of a pair: query and title."""
    return f"{pair.query}\n{pair.title}"


def cells_of(
    rationales: Sequence[Rationale],
    rows: Mapping[str, int],
    order: Mapping[str, int],
    combine: Combine,
    source: Source,
    pairs: Mapping[str, Pair],
    scale: LabelScale,
    seed: int,
) -> Cells:
    """Return the texts whose mean vector is the target of a row and latent.

    Args:
        rationales: Those that are distilled.
        rows: Row of each pair.
        order: Place of each perspective.
        combine: As for `build_targets`.
        source: What is embedded; ``random`` embeds nothing and gets the rationales' own cells.
        pairs: The pairs by id.
        scale: The labels, with definitions.
        seed: Of ``shuffled``.

    Returns:
        The same cells for every source.
    """
    cells: Cells = {}
    labels: dict[int, str] = {}
    for rationale in sorted(rationales, key=lambda rationale: (rows[rationale.pair_id], order[rationale.perspective])):
        row = rows[rationale.pair_id]
        # A pair that nobody labelled has only its teacher's word.
        label = labels.setdefault(row, pairs[rationale.pair_id].label or rationale.label)
        text = f"{label}. {rationale.text}" if source == "labelled_rationale" else rationale.text
        latent = order[rationale.perspective] if combine == "per_perspective" else 0
        cells.setdefault((row, latent), []).append(text)
    if combine == "concat_text":
        cells = {cell: ["\n".join(texts)] for cell, texts in cells.items()}
    if source == "label":
        return {cell: [f"{labels[cell[0]]}: {scale.definitions[labels[cell[0]]]}"] for cell in cells}
    ids = list(rows)
    if source == "pair":
        return {cell: [pair_text(pairs[ids[cell[0]]])] for cell in cells}
    return _shuffled(cells, [pairs[pair_id].split for pair_id in ids], seed) if source == "shuffled" else cells


def _shuffled(cells: Cells, splits: Sequence[str], seed: int) -> Cells:
    """Give every cell the texts of another pair of its split, of the same latent.

    The pairs of a group are put in a random order, and each takes over from the next: one cycle, so that none
    keeps its own.
    """
    groups: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for cell in cells:
        groups.setdefault((splits[cell[0]], cell[1]), []).append(cell)
    source_of: dict[tuple[int, int], tuple[int, int]] = {}
    for (split, latent), group in groups.items():
        if len(group) == 1:
            raise StudentError(
                f"embed.source 'shuffled' needs at least two pairs with a rationale in split {split!r}, got one; "
                "judge more pairs of it, or leave the split out of judge.splits"
            )
        cycle = list(group)
        random.Random(f"{seed}:{split}:{latent}").shuffle(cycle)
        source_of |= dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    return {cell: cells[source_of[cell]] for cell in cells}


def random_vectors(keys: Sequence[str], dim: int, seed: int) -> NDArray[np.float32]:
    """Return a fixed random unit vector for each key.

    Args:
        keys: Any texts; the same one always gets the same vector, whatever stands beside it.
        dim: Dimensions.
        seed: Of all vectors.

    Returns:
        (keys, dim) float32, uniform on the sphere.
    """
    vectors = np.empty((len(keys), dim))
    for row, key in enumerate(keys):
        words = np.frombuffer(hashlib.sha256(f"{seed}:{key}".encode()).digest(), dtype="<u4")
        # RandomState, because NumPy promises that its stream never changes.
        vectors[row] = np.random.RandomState(words).standard_normal(dim)
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
