"""CTranslate2 in int8: the encoder with its pooler, batches by a budget of tokens; the head is a product in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmarks.serving.workers.batching import Scorer, Stream, TextPair, load_tokenizer, tuned
from ctranslate2 import Encoder, StorageView
from numpy.typing import NDArray
from safetensors.numpy import load_file

_MODEL = "ctranslate2"


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair]) -> None:
    """Convert; activations are quantised as they come."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(master)).convert(str(folder / _MODEL), quantization="int8", force=True)


def load(master: Path, folder: Path, threads: int) -> Scorer:
    """Return the scorer."""
    weights = load_file(str(master / "model.safetensors"))
    head = weights["classifier.weight"].T, weights["classifier.bias"]
    model = str(folder / _MODEL)
    many = Encoder(model, device="cpu", compute_type="int8", inter_threads=threads, intra_threads=1)
    one = Encoder(model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads)
    return tuned(load_tokenizer(master), [_stream(many, *head)] * threads, _stream(one, *head))


def _stream(encoder: Encoder, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Stream:
    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        ids = StorageView.from_array(inputs["input_ids"].astype(np.int32))
        lengths = StorageView.from_array(inputs["attention_mask"].sum(axis=1).astype(np.int32))
        output = encoder.forward_batch(ids, lengths, token_type_ids=[row.tolist() for row in inputs["token_type_ids"]])
        return np.array(output.pooler_output) @ weight + bias

    return run
