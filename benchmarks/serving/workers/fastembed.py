"""fastembed's TextCrossEncoder with the master as a custom model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.serving.workers.batching import Scorer, TextPair
from fastembed.common.model_description import ModelSource
from fastembed.rerank.cross_encoder import TextCrossEncoder
from numpy.typing import NDArray

_NAME = "benchmark/master"


def load(master: Path, folder: Path, threads: int) -> Scorer:
    """Return the scorer."""
    TextCrossEncoder.add_custom_model(_NAME, sources=ModelSource(hf=_NAME), model_file="model.onnx")
    encoder = TextCrossEncoder(_NAME, threads=threads, specific_model_path=str(folder))

    def score(pairs: Sequence[TextPair]) -> NDArray[np.float32]:
        return np.array(list(encoder.rerank_pairs(list(pairs))), dtype=np.float32)[:, None]

    return score
