"""FlashRank, which takes a query and its products at a time; the master stands in the place of one of its models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.serving.workers.batching import Scorer, TextPair
from flashrank import Ranker, RerankRequest
from flashrank.Config import model_file_map
from numpy.typing import NDArray


def load(master: Path, folder: Path, threads: int) -> Scorer:
    """Return the scorer; how many threads it takes is FlashRank's own choice."""
    model_file_map[folder.name] = "model_int8.onnx"
    ranker = Ranker(folder.name, cache_dir=str(folder.parent), log_level="WARNING")

    def score(pairs: Sequence[TextPair]) -> NDArray[np.float32]:
        by_query: dict[str, list[dict[str, object]]] = {}
        for number, (query, product) in enumerate(pairs):
            by_query.setdefault(query, []).append({"id": number, "text": product})
        shares = np.empty((len(pairs), 1))
        for query, products in by_query.items():
            for found in ranker.rerank(RerankRequest(query=query, passages=products)):
                shares[found["id"], 0] = found["score"]
        return np.log(shares) - np.log1p(-shares)  # It answers with the sigmoid of the logit.

    return score
