"""The stage embed: from the teacher's rationales to targets, and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from manylens.config import TUNED_TEACHER, EmbedConfig, TuneConfig
from manylens.errors import ConfigError
from manylens.records import LabelScale, Pair
from manylens.student.embed import RationaleEncoder
from manylens.student.targets import (
    HallucinationReport,
    Rationale,
    Targets,
    build_targets,
    hallucinate,
    mean_squared_norm,
    read_rationales,
)
from manylens.student.verdict import VerdictReport, tune_encoder


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedReport:
    """What the targets are.

    Attributes:
        encoder: Its name in the recipe.
        source: What was embedded.
        target: What became of several rationales of a pair.
        transform: What was done to the vectors.
        rationales: Judgements that have a label.
        kept_rationales: Of them, those that are distilled.
        pairs: Pairs with a judgement.
        guided_pairs: Pairs with a target, by split.
        dim: Dimension of a latent.
        mean_squared_norm: Of the targets of the training pairs.
        hallucinated: What was replaced; ``None`` where nothing was to be.
        verdict_tuning: How the encoder was tuned; ``None`` where it was not.
    """

    encoder: str
    source: str
    target: str
    transform: str
    rationales: int
    kept_rationales: int
    pairs: int
    guided_pairs: Mapping[str, int]
    dim: int
    mean_squared_norm: float
    hallucinated: HallucinationReport | None
    verdict_tuning: VerdictReport | None


def check_embedding(config: EmbedConfig, tune: TuneConfig | None) -> None:
    """Check that the tuned teacher can be the encoder, where it shall be.

    Raises:
        ConfigError: If nothing is tuned, several teachers are, or the tuned teacher shall be tuned on verdicts.
    """
    if config.encoder != TUNED_TEACHER:
        return
    if tune is None:
        raise ConfigError(
            f"embed.encoder is {TUNED_TEACHER!r}, but the recipe tunes no teacher: add a section `tune`, or name a "
            "sentence encoder, such as minilm"
        )
    if tune.teachers != "unified":
        raise ConfigError(
            f"embed.encoder {TUNED_TEACHER!r} needs one teacher, got tune.teachers {tune.teachers!r}; set it to unified"
        )
    if config.verdict_tuning is not None:
        raise ConfigError(
            f"embed.verdict_tuning is for sentence encoders, and embed.encoder is {TUNED_TEACHER!r}; leave one out"
        )


def embed_rationales(
    table: pa.Table,
    pairs: Iterable[Pair],
    scale: LabelScale,
    config: EmbedConfig,
    *,
    encoder: str,
    cache_key: str,
    panel: Sequence[str],
    seed: int,
    folder: Path,
) -> tuple[Targets, EmbedReport]:
    """Turn the teacher's rationales into targets.

    Args:
        table: Rationales of all splits, as the teacher's side writes them.
        pairs: Pairs, at least those of the rationales.
        scale: The labels.
        config: What is embedded, by what, and what becomes of it.
        encoder: What sentence-transformers loads: the recipe's encoder, or the tuned teacher's folder.
        cache_key: Names the encoder's weights in file names, so that other ones find no old vectors.
        panel: Names of the perspectives, in the order of the latents; others come after them.
        seed: Of controls, hallucination and the encoder's tuning.
        folder: Where caches and a tuned encoder go.

    Returns:
        The targets and the report.

    Raises:
        StudentError: If there is nothing to distil, or the encoder cannot be loaded.
        MissingExtraError: If sentence-transformers is not installed.
    """
    rationales = read_rationales(table, consistent_only=config.use == "consistent")
    judged = {rationale.pair_id for rationale in rationales}
    known = {pair.pair_id: pair for pair in pairs if pair.pair_id in judged}
    hallucinated = None
    if config.hallucinate is not None:
        rationales, hallucinated = hallucinate(rationales, known, config.hallucinate, seed)
    verdict, cache = None, folder / f"vectors-{cache_key}.sqlite"
    if config.verdict_tuning is not None:
        place = folder / f"encoder-{cache_key}"
        train = [(row.text, row.label) for row in rationales if known[row.pair_id].split == "train"]
        verdict = tune_encoder(
            train, scale, encoder, config.verdict_tuning, batch_size=config.batch_size, seed=seed, folder=place
        )
        encoder, cache = str(place), place / "vectors.sqlite"
    targets = build_targets(
        rationales,
        known,
        RationaleEncoder(encoder, cache, config.batch_size).embed,
        scale,
        perspectives=_in_order(rationales, panel),
        source=config.source,
        combine=config.target,
        transform=config.transform,
        seed=seed,
    )
    splits = np.array([known[pair_id].split for pair_id in targets.pair_ids])
    report = EmbedReport(
        encoder=config.encoder,
        source=config.source,
        target=config.target,
        transform=config.transform,
        rationales=len(rationales),
        kept_rationales=sum(rationale.kept for rationale in rationales),
        pairs=len(targets.pair_ids),
        guided_pairs=dict(Counter(splits[targets.mask.any(axis=1)].tolist())),
        dim=targets.dim,
        mean_squared_norm=mean_squared_norm(targets.vectors, targets.mask, splits == "train"),
        hallucinated=hallucinated,
        verdict_tuning=verdict,
    )
    return targets, report


def _in_order(rationales: Iterable[Rationale], panel: Sequence[str]) -> list[str]:
    """Return the perspectives that kept rationales are of: the panel's in its order, then any others."""
    found = {rationale.perspective for rationale in rationales if rationale.kept}
    return [name for name in panel if name in found] + sorted(found.difference(panel))
