"""Building targets: from rationales, or from what a control puts in their place, to vectors, mask and votes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StudentError
from manylens.records import LabelScale, Pair
from manylens.student.targets.rationales import Rationale
from manylens.student.targets.sources import CONTROLS, Cells, Combine, Source, cells_of, pair_text, random_vectors
from manylens.student.targets.store import Targets
from manylens.student.targets.transform import Transform, Vectors, mean_squared_norm, transform_targets

#: From n distinct texts to (n, dim) unit vectors.
Embed = Callable[[Sequence[str]], Vectors]
#: Share of the rationales' mean squared norm below which a control's is rounding error, as that of one centred label.
_NOTHING = 1e-9


def build_targets(
    rationales: Sequence[Rationale],
    pairs: Mapping[str, Pair],
    embed: Embed,
    scale: LabelScale,
    *,
    perspectives: Sequence[str],
    source: Source = "rationale",
    combine: Combine = "mean",
    transform: Transform = "none",
    seed: int = 0,
) -> Targets:
    """Turn rationales into targets.

    A control has the mask, the shape and, after the transform, the mean squared norm over the training pairs of
    the real targets, so that the guide loss weighs the same.

    Args:
        rationales: All judgements that have a label; those that are not kept only vote.
        pairs: The judged pairs by id.
        embed: From n distinct texts to (n, dim) float32 vectors.
        scale: The labels; votes go in its order.
        perspectives: Names, in the order of the latents.
        source: What is embedded.
        combine: What becomes of several rationales of a pair: the ``mean`` of their vectors; one
            vector ``per_perspective`` (the mean over its samples); or the vector of the texts joined
            by line breaks, in the order of `perspectives` (``concat_text``).
        transform: What is done to the vectors, fitted on training pairs alone.
        seed: Of the sources ``shuffled`` and ``random``.

    Returns:
        A row for every judged pair, in the order of the rationales.

    Raises:
        StudentError: If no rationale is kept, or there is nothing to shuffle with.
    """
    kept = [rationale for rationale in rationales if rationale.kept]
    if not kept:
        raise StudentError("no rationale passed the filter, so there is nothing to distil; see curate/report.json")
    rows = {pair_id: row for row, pair_id in enumerate(dict.fromkeys(rationale.pair_id for rationale in rationales))}
    order = {name: place for place, name in enumerate(perspectives)}
    names = tuple(perspectives) if combine == "per_perspective" else ("rationale",)
    shape = (len(rows), len(names))
    train = np.array([pairs[pair_id].split == "train" for pair_id in rows])

    def texts_of(what: Source) -> Cells:
        return cells_of(kept, rows, order, combine, what, pairs, scale, seed)

    def transformed(vectors: Vectors) -> Vectors:
        return transform_targets(
            vectors, mask, train, transform, lambda: _looked_up(embed, [pair_text(pairs[pair_id]) for pair_id in rows])
        )

    cells = texts_of(source)
    mask = np.zeros(shape, dtype=np.bool_)
    mask[tuple(np.array(list(cells)).T)] = True
    real = transformed(_means(texts_of("rationale") if source in CONTROLS else cells, shape, embed))
    vectors = real
    if source in CONTROLS:
        raw = _random(rows, names, mask, real.shape[2], seed) if source == "random" else _means(cells, shape, embed)
        vectors = transformed(raw)
        own, wanted = (mean_squared_norm(part, mask, train) for part in (vectors, real))
        if own > _NOTHING * wanted:
            vectors = (vectors * np.sqrt(wanted / own)).astype(np.float32)
    texts = [list[str]() for _ in rows]
    for (row, _), parts in sorted(cells.items()) if source != "random" else ():
        texts[row] += parts
    return Targets(
        pair_ids=tuple(rows),
        names=names,
        vectors=vectors,
        mask=mask,
        votes=_votes(rationales, rows, scale),
        texts=tuple("\n".join(dict.fromkeys(parts)) for parts in texts),
    )


def _looked_up(embed: Embed, texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts, each distinct one embedded once."""
    distinct, places = np.unique(np.array(texts, dtype=object), return_inverse=True)
    vectors: Vectors = embed(distinct.tolist())[places]
    return vectors


def _means(cells: Cells, shape: tuple[int, int], embed: Embed) -> Vectors:
    """Return the mean vector of each cell's texts, zero where there is no cell."""
    vectors = _looked_up(embed, [text for texts in cells.values() for text in texts])
    counts = np.array([len(texts) for texts in cells.values()])
    sums = np.add.reduceat(vectors, np.cumsum(counts) - counts)
    means = np.zeros((*shape, vectors.shape[1]), dtype=np.float32)
    means[tuple(np.array(list(cells)).T)] = sums / counts[:, None].astype(np.float32)
    return means


def _random(pair_ids: Iterable[str], names: Sequence[str], mask: NDArray[np.bool_], dim: int, seed: int) -> Vectors:
    keys = [f"{pair_id}:{name}" for pair_id in pair_ids for name in names]
    vectors = random_vectors(keys, dim, seed).reshape(*mask.shape, dim)
    return np.where(mask[:, :, None], vectors, np.float32(0.0))


def _votes(rationales: Sequence[Rationale], rows: Mapping[str, int], scale: LabelScale) -> NDArray[np.float32]:
    counts = np.zeros((len(rows), len(scale.names)), dtype=np.float32)
    for rationale in rationales:
        if rationale.votes:
            counts[rows[rationale.pair_id], scale.index(rationale.label)] += 1
    shares: NDArray[np.float32] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
