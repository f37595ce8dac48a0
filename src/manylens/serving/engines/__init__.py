"""Engines: what computes an exported graph, or a student itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from manylens.errors import MissingExtraError
from manylens.serving.engines.onnxruntime import OnnxEngine
from manylens.serving.engines.openvino import OpenVinoEngine
from manylens.serving.engines.protocol import Engine
from manylens.serving.layout import VARIANTS

if TYPE_CHECKING:
    from manylens.serving.engines.torch import TorchEngine

__all__ = ["Engine", "OnnxEngine", "OpenVinoEngine", "build_engine", "torch_engine"]


def build_engine(variant: str, folder: Path, *, threads: int | None = None) -> Engine:
    """Return the engine of an exported variant.

    Args:
        variant: A name of `VARIANTS`.
        folder: The head's folder.
        threads: Cores to use; ``None`` means the physical ones.

    Raises:
        MissingExtraError: If the engine's library is not installed.
        StudentError: If the variant's file cannot be loaded.
    """
    file = folder / VARIANTS[variant]
    if variant.startswith("onnx"):
        return OnnxEngine(file, threads=threads)
    return OpenVinoEngine(file, precision="bf16" if variant == "openvino_bf16" else None, threads=threads)


def torch_engine(folder: Path, *, device: str | None = None, threads: int | None = None) -> TorchEngine:
    """Return the engine of a student's folder.

    Args:
        folder: What the stage distil saved.
        device: A torch device; ``None`` means the first GPU, else the CPU.
        threads: Threads of PyTorch; ``None`` leaves them.

    Raises:
        MissingExtraError: If torch or transformers is not installed.
        StudentError: If the folder does not hold a student of manylens.
    """
    try:
        from manylens.serving.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from None
    return TorchEngine(folder, device=device, threads=threads)
