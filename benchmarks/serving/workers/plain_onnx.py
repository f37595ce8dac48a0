"""The master as a plain ONNX graph, which FlashRank and fastembed take, and which others start from."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.serving.workers.batching import TextPair, collate, load_tokenizer
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export(master: Path, file: Path) -> Path:
    """Write the master as a graph of the kind that ONNX Runtime knows how to fuse, and return its file."""
    model = AutoModelForSequenceClassification.from_pretrained(str(master), attn_implementation="eager").eval()
    example = collate(load_tokenizer(master).encode_batch([("a query", "a product"), ("another", "one more product")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The older exporter says that it is the older one; the fusion needs it.
        torch.onnx.export(
            model,
            tuple(torch.from_numpy(example[name]) for name in _INPUTS),
            str(file),
            input_names=list(_INPUTS),
            output_names=["logits"],
            dynamic_axes={**{name: {0: "batch", 1: "tokens"} for name in _INPUTS}, "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    return file


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair]) -> None:
    """Write the graph in fp32 and, as FlashRank's own are, in int8, beside the master's configuration and tokenizer."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(master / name, folder / name)
    plain = export(master, folder / "model.onnx")
    quantize_dynamic(str(plain), str(folder / "model_int8.onnx"), weight_type=QuantType.QInt8)
