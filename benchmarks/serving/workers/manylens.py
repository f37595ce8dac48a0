"""Ours: the master exported with `export_classifier`, and scored with `Scorer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.serving.workers.batching import Scorer as Score
from benchmarks.serving.workers.batching import TextPair
from numpy.typing import NDArray

from manylens.products import as_pair
from manylens.serving import Scorer


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair], *, variants: Sequence[str]) -> None:
    """Export the variants, as the stage `export` does for a student."""
    from transformers import AutoModelForSequenceClassification

    from manylens.config import ExportConfig
    from manylens.records import ESCI
    from manylens.serving.export import export_classifier
    from manylens.serving.layout import Card
    from manylens.student.encoding import PairEncoder

    model = AutoModelForSequenceClassification.from_pretrained(str(master)).eval()
    encoder = PairEncoder.from_backbone(str(master), "{{ title }}", max_length=model.config.max_position_embeddings)
    card = Card(labels=ESCI.names, gains=ESCI.gain_vector(), inputs=(), max_length=0, product_template="")
    export_classifier(
        model,
        encoder,
        card,
        config=model.config,
        calibration=[as_pair(query, product) for query, product in calibration],
        options=ExportConfig(variants=tuple(variants), calibration_pairs=len(calibration)),
        folder=folder,
    )


def load(master: Path, folder: Path, threads: int, *, variant: str, cache_products: int) -> Score:
    """Return the scorer; its probabilities come back as their logarithms, which are logits up to a constant."""
    scorer = Scorer.load(folder, variant=variant, threads=threads, cache_products=cache_products)

    def score(pairs: Sequence[TextPair]) -> NDArray[np.float32]:
        return np.log(scorer.probabilities([as_pair(query, product) for query, product in pairs]))

    return score
