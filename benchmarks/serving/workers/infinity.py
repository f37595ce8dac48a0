"""The model of infinity's optimum engine, which `benchmarks.load` serves: a plain ONNX graph, and it in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.workers import plain_onnx
from benchmarks.serving.workers.batching import TextPair


def prepare(master: Path, folder: Path, calibration: Sequence[TextPair]) -> None:
    """Write the graphs; on a processor it takes the one whose name has ``quantize`` in it."""
    plain_onnx.prepare(master, folder, calibration)
    (folder / "model_int8.onnx").rename(folder / "model_quantized.onnx")
