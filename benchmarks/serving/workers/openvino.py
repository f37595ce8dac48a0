"""OpenVINO tuned by hand: one stream a core, batches by a budget of tokens, int8 calibrated by NNCF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino
from benchmarks.serving.workers.batching import Scorer, Stream, TextPair, collate, load_tokenizer, tuned
from numpy.typing import NDArray

#: bf16 is computed from the fp32 file.
_FILES = {"fp32": "model.xml", "bf16": "model.xml", "int8": "model_int8.xml"}


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair]) -> None:
    """Convert and quantise."""
    import nncf
    from benchmarks.serving.workers.plain_onnx import export

    model = openvino.convert_model(export(master, folder / "model.onnx"))
    openvino.save_model(model, folder / _FILES["fp32"], compress_to_fp16=False)
    tokenizer = load_tokenizer(master)
    inputs = [collate(tokenizer.encode_batch([pair])) for pair in calibration]
    quantised = nncf.quantize(
        model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs)
    )
    openvino.save_model(quantised, folder / _FILES["int8"], compress_to_fp16=False)


def load(master: Path, folder: Path, threads: int, *, precision: str) -> Scorer:
    """Return the scorer; what an int8 model does not quantise, and all where there is no bf16, is computed in fp32."""
    core, file = openvino.Core(), folder / _FILES[precision]
    bf16 = precision == "bf16" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
    many = core.compile_model(file, "CPU", {**options, "NUM_STREAMS": threads, "PERFORMANCE_HINT": "THROUGHPUT"})
    one = core.compile_model(file, "CPU", {**options, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})
    streams = [_stream(many.create_infer_request()) for _ in range(threads)]
    return tuned(load_tokenizer(master), streams, _stream(one.create_infer_request()))


def _stream(request: openvino.InferRequest) -> Stream:
    def run(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        return request.infer(dict(inputs))["logits"].copy()  # The next batch overwrites the request's own.

    return run
