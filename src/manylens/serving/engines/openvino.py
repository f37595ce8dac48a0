"""OpenVINO on a CPU: a stream for each core, and a model compiled once more that gives a single batch all cores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import MissingExtraError, StudentError
from manylens.serving.engines.protocol import Arrays, physical_cores

if TYPE_CHECKING:
    from openvino import Core, InferRequest


class OpenVinoEngine:
    """Runs an OpenVINO graph; see `Engine` for the other attributes.

    Attributes:
        precision: What floats are computed in, such as ``"f32"``.
    """

    # Measured on a MiniLM of 6 layers in int8, where an unseen shape costs as much as three calls.
    token_budget, call_tokens, few_shapes = 2048, 48, True

    def __init__(self, model: str | Path, *, precision: str | None = None, threads: int | None = None) -> None:
        """Load a graph.

        Args:
            model: The ``.xml`` file; its weights lie beside it.
            precision: What to compute in where the CPU has it, such as ``"bf16"``; ``None`` leaves it to OpenVINO.
            threads: Cores to use; ``None`` means the physical ones.

        Raises:
            MissingExtraError: If openvino is not installed.
            StudentError: If the file cannot be loaded.
        """
        self._model, self.streams = Path(model), threads or physical_cores()
        self._wanted = precision
        self._streams = self._compile(self.streams)
        self._wide: SimpleQueue[InferRequest] | None = None if self.streams > 1 else self._streams
        self._lock = Lock()

    def run(self, batch: Mapping[str, NDArray[np.int64]], *, alone: bool = False) -> Arrays:
        """Compute one batch; see `Engine.run`. The first batch that runs alone compiles the graph again."""
        requests = self._all_cores() if alone else self._streams
        request = requests.get()
        try:
            results = request.infer({name: batch[name] for name in self.inputs}, share_inputs=True)
            return dict(zip(self.outputs, (results[name] for name in self.outputs), strict=True))
        finally:
            requests.put(request)

    def _all_cores(self) -> SimpleQueue[InferRequest]:
        with self._lock:
            if self._wide is None:
                self._wide = self._compile(1)
            return self._wide

    def _compile(self, streams: int) -> SimpleQueue[InferRequest]:
        """Return one request a stream."""
        try:
            import openvino  # noqa: F401 - the core needs it
        except ModuleNotFoundError:
            raise MissingExtraError("openvino", "openvino") from None
        core = _core()
        options: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self.streams,
            # Several processes on one machine would all be pinned to its first cores.
            "ENABLE_CPU_PINNING": False,
        }
        # A CPU that lacks the precision would emulate it, at a small part of the speed of fp32.
        known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._wanted is not None and self._wanted.upper() in known:
            options["INFERENCE_PRECISION_HINT"] = self._wanted
        try:
            compiled = core.compile_model(str(self._model), "CPU", options)
        except RuntimeError as error:
            raise StudentError(f"{self._model} cannot be loaded: {error}; export the student again") from error
        self.inputs = tuple(port.any_name for port in compiled.inputs)
        self.outputs = tuple(port.any_name for port in compiled.outputs)
        self.precision: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        requests: SimpleQueue[InferRequest] = SimpleQueue()
        for _ in range(streams):
            requests.put(compiled.create_infer_request())
        return requests


@cache
def _core() -> Core:
    """Return the process's one core: of two, the one that is freed last leaves a signal stack that is freed already."""
    import openvino

    return openvino.Core()
