"""transformers, as its documentation has it: batches of 32, in arrival order or sorted by length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks.serving.workers.batching import Scorer, TextPair
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH_SIZE = 32


def load(master: Path, folder: Path, threads: int, *, by_length: bool) -> Scorer:
    """Return the scorer; `by_length` sorts pairs by length first."""
    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(str(master)).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(master))

    @torch.inference_mode()
    def score(pairs: Sequence[TextPair]) -> NDArray[np.float32]:
        order = np.arange(len(pairs))
        if by_length:
            order = np.argsort([len(query) + len(product) for query, product in pairs])
        logits = np.empty((len(pairs), model.config.num_labels), dtype=np.float32)
        for start in range(0, len(pairs), BATCH_SIZE):
            chosen = order[start : start + BATCH_SIZE]
            queries, products = zip(*(pairs[index] for index in chosen), strict=True)
            batch = tokenizer(list(queries), list(products), padding=True, truncation=True, return_tensors="pt")
            logits[chosen] = model(**batch).logits.numpy()
        return logits

    return score
