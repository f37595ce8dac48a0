"""ONNX Runtime tuned by hand: a fused graph, one session a core, batches by a budget of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from benchmarks.serving.workers.batching import Scorer, Stream, TextPair, load_tokenizer, tuned
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions

_FILES = {"fp32": "model_fused.onnx", "int8": "model_fused_int8.onnx"}


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair]) -> None:
    """Export, fuse and quantise; what is not a weight is quantised as it comes, without calibration."""
    import onnx
    from benchmarks.serving.workers.plain_onnx import export
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(master))
    plain = export(master, folder / "model.onnx")
    fused = optimize_model(
        str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
    )
    fused.save_model_to_file(str(folder / _FILES["fp32"]))
    quantize_dynamic(
        str(folder / _FILES["fp32"]),
        str(folder / _FILES["int8"]),
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def load(master: Path, folder: Path, threads: int, *, precision: str) -> Scorer:
    """Return the scorer."""
    file = folder / _FILES[precision]
    return tuned(load_tokenizer(master), [_stream(file, 1) for _ in range(threads)], _stream(file, threads))


def _stream(file: Path, threads: int) -> Stream:
    options = SessionOptions()
    options.intra_op_num_threads = threads
    session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        return session.run(["logits"], dict(inputs))[0]

    return run
