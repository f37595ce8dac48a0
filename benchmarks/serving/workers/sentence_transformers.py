"""sentence-transformers' CrossEncoder with its own ways to other engines."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks.serving.workers.batching import Scorer, TextPair
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.backend import export_dynamic_quantized_onnx_model, export_static_quantized_openvino_model

_OPENVINO_FILE = "openvino/openvino_model_qint8_quantized.xml"


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair], *, backend: str) -> None:
    """Export to int8 with the helper of a backend, ``onnx`` or ``openvino``."""
    model = CrossEncoder(str(master), backend=backend, device="cpu")
    model.save_pretrained(str(folder))
    if backend == "onnx":
        export_dynamic_quantized_onnx_model(model, _instructions(), str(folder))
        return
    rows = folder / "calibration"
    rows.mkdir(exist_ok=True)
    texts = [{"text": f"{query} [SEP] {product}"} for query, product in calibration]
    (rows / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    export_static_quantized_openvino_model(
        model,
        quantization_config=None,
        model_name_or_path=str(folder),
        dataset_name=str(rows),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )


def load(master: Path, folder: Path, threads: int, *, backend: str) -> Scorer:
    """Return the scorer; backend ``torch`` takes the master itself."""
    torch.set_num_threads(threads)
    if backend == "torch":
        model = CrossEncoder(str(master), device="cpu")
    else:
        file = _OPENVINO_FILE if backend == "openvino" else f"onnx/model_qint8_{_instructions()}.onnx"
        model = CrossEncoder(str(folder), backend=backend, device="cpu", model_kwargs={"file_name": file})

    def score(pairs: Sequence[TextPair]) -> NDArray[np.float32]:
        return model.predict(list(pairs), show_progress_bar=False)

    return score


def _instructions() -> str:
    """Return the helper's name for what this processor can do."""
    if platform.machine() in ("arm64", "aarch64"):
        return "arm64"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return next((name for name in ("avx512_vnni", "avx512f") if name in flags), "avx2").removesuffix("f")
