"""PyTorch: a student's own folder, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manylens.serving.engines.packed import ATTENTION, can_pack, packed_states
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

    def __init__(
        self, folder: str | Path, *, device: str | None = None, threads: int | None = None, packed: bool | None = None
    ) -> None:
        """Load a student.

        Args:
            folder: What the stage distil saved.
            device: A torch device; ``None`` means the first GPU, else the CPU.
            threads: Threads of PyTorch in this process; ``None`` leaves them.
            packed: Whether the encoder runs without padding; ``None`` means where `can_pack` says so.

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
        self._packed = self._half and can_pack(self._model, self._device) if packed is None else packed
        if self._packed:
            self._model.backbone.set_attn_implementation(ATTENTION)
        if threads is not None:
            torch.set_num_threads(threads)

    def run(self, batch: Mapping[str, NDArray[np.int64]], *, alone: bool = False) -> Arrays:
        """Compute one batch, on a GPU in bf16 and without padding where it has that; see `Engine.run`."""
        tensors = {name: torch.from_numpy(batch[name]).to(self._device) for name in self.inputs}
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            logits, latents = self._packed_outputs(tensors) if self._packed else self._outputs(tensors)
        arrays = {"logits": logits.float(), "probabilities": logits.float().softmax(dim=-1)}
        if latents is not None:
            arrays["latents"] = latents.float()
        return {name: array.cpu().numpy() for name, array in arrays.items()}

    def _outputs(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        outputs = self._model(**tensors)
        return outputs.logits, outputs.latents

    def _packed_outputs(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        ids, mask = tensors["input_ids"], tensors["attention_mask"]
        states = packed_states(self._model.backbone, ids, mask, tensors.get("token_type_ids"))
        logits, latents, _ = self._model.classify(states, mask, self._model.segments(ids))
        return logits, latents
