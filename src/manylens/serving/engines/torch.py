"""PyTorch: a student's own folder, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from manylens.serving.engines.protocol import Arrays
from manylens.student.predict import Student


class TorchEngine:
    """Runs a student as it was trained; see `Engine` for the attributes.

    Attributes:
        labels: The student's classes, best first.
        gains: Their gains.
    """

    # One batch at a time: PyTorch spreads it over the cores, or over the GPU's.
    streams, few_shapes = 1, False

    def __init__(self, folder: str | Path, *, device: str | None = None, threads: int | None = None) -> None:
        """Load a student.

        Args:
            folder: What the stage distil saved.
            device: A torch device; ``None`` means the first GPU, else the CPU.
            threads: Threads of PyTorch in this process; ``None`` leaves them.

        Raises:
            StudentError: If the folder does not hold a student of manylens.
        """
        student = Student.load(folder, device)
        self.labels, self.gains = student.labels, tuple(student.gains.tolist())
        self.inputs = tuple(student.encoder.tokenizer.model_input_names)
        self.outputs = ("logits", "probabilities", *(("latents",) if student.model.extractor is not None else ()))
        self._model, self._device = student.model, student.model.device
        on_gpu = self._device.type == "cuda"
        # A GPU wants batches as large as memory allows; on a CPU a call of a MiniLM costs as much as 50 tokens.
        self.token_budget, self.call_tokens = (32768, 4096) if on_gpu else (2048, 50)
        self._half = on_gpu and torch.cuda.is_bf16_supported()
        if threads is not None:
            torch.set_num_threads(threads)

    def run(self, batch: Mapping[str, NDArray[np.int64]], *, alone: bool = False) -> Arrays:
        """Compute one batch, on a GPU in bf16 where it has that; see `Engine.run`."""
        tensors = {name: torch.from_numpy(batch[name]).to(self._device) for name in self.inputs}
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            outputs = self._model(**tensors)
        logits = outputs.logits.float()
        arrays = {"logits": logits, "probabilities": logits.softmax(dim=-1)}
        if outputs.latents is not None:
            arrays["latents"] = outputs.latents.float()
        return {name: array.cpu().numpy() for name, array in arrays.items()}
