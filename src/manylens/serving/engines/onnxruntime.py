"""ONNX Runtime on a CPU: one session that a thread for each core runs, and one that gives a single batch all cores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from manylens.errors import MissingExtraError, StudentError
from manylens.serving.engines.protocol import Arrays, physical_cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OnnxEngine:
    """Runs an ONNX graph; see `Engine` for the attributes."""

    # Measured on a MiniLM of 6 layers, where a token of a batch of 4,096 costs a tenth more than one of 512.
    token_budget, call_tokens, few_shapes = 512, 12, False

    def __init__(self, model: str | Path, *, threads: int | None = None) -> None:
        """Load a graph.

        Args:
            model: The ``.onnx`` file.
            threads: Cores to use; ``None`` means the physical ones.

        Raises:
            MissingExtraError: If onnxruntime is not installed.
            StudentError: If the file cannot be loaded.
        """
        self._model, self.streams = Path(model), threads or physical_cores()
        self._single = self._session(threads=1)
        self._wide: InferenceSession | None = None if self.streams > 1 else self._single
        self._lock = Lock()
        self.inputs = tuple(value.name for value in self._single.get_inputs())
        self.outputs = tuple(value.name for value in self._single.get_outputs())

    def run(self, batch: Mapping[str, NDArray[np.int64]], *, alone: bool = False) -> Arrays:
        """Compute one batch; see `Engine.run`. The first batch that runs alone loads the graph again."""
        session = self._all_cores() if alone else self._single
        feed = {name: batch[name] for name in self.inputs}
        return dict(zip(self.outputs, session.run(self.outputs, feed), strict=True))

    def _all_cores(self) -> InferenceSession:
        with self._lock:
            if self._wide is None:
                self._wide = self._session(threads=self.streams)
            return self._wide

    def _session(self, threads: int) -> InferenceSession:
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise MissingExtraError("onnxruntime", "serve") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # A plan of memory for each shape of batch would grow with the shapes.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        # Threads of one batch wait for each other busily, which halves its time; they stop soon after it.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
        try:
            return onnxruntime.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common type
            raise StudentError(f"{self._model} cannot be loaded: {error}; export the student again") from error
