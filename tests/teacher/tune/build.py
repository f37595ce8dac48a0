"""A few pairs and the rows that a panel's judgements of them make."""

from __future__ import annotations

from typing import Any

from manylens.config import CurateConfig, SamplingConfig, TransformersOptions, TuneConfig
from manylens.records import ESCI, Judgement, Pair, Split
from manylens.teacher.curate import Curated, curate

#: Options of both phases that keep a training of the tiny teacher short.
SHORT: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_checkpointing": False}


def make_pairs(number: int = 4, *, label: str = "exact", split: Split = "train") -> list[Pair]:
    return [
        Pair(
            pair_id=f"{split}{index}",
            query_id=f"{split}-q{index // 2}",
            product_id=f"p{index}",
            query=f"red mug {index}",
            title="red mug for the home" if index % 2 else "red mug",
            label=label,
            split=split,
        )
        for index in range(number)
    ]


def make_judgement(pair: Pair, perspective: str, label: str | None, *, rationale: str, sample: int = 0) -> Judgement:
    return Judgement(
        pair_id=pair.pair_id,
        perspective=perspective,
        sample=sample,
        label=label,
        rationale=rationale,
        raw="",
        teacher="t",
        prompt_hash="0",
    )


def make_rows(pairs: list[Pair]) -> Curated:
    """Return what is made of a panel whose perspective a is right twice, and b once of two samples."""
    judgements = [
        make_judgement(
            pair,
            perspective,
            pair.label if (perspective, sample) != ("b", 1) else "irrelevant",
            rationale=f"{perspective}{sample}: the title says {pair.title}.",
            sample=sample,
        )
        for pair in pairs
        for perspective in ("a", "b")
        for sample in range(2)
    ]
    return curate(pairs, judgements, ESCI, CurateConfig(), seed=1)


def make_config(**fields: object) -> TuneConfig:
    known: dict[str, object] = {
        "sft": SHORT,
        "dpo": SHORT,
        "generate": TransformersOptions(sampling=SamplingConfig(max_tokens=4), batch_size=4),
    }
    return TuneConfig(**{**known, **fields})  # type: ignore[arg-type]
