"""From ONNX to OpenVINO's intermediate representation: weights in half precision, or int8 by NNCF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from manylens.errors import MissingExtraError
from manylens.serving.graphs import OUTPUTS
from manylens.serving.quantise import Batch, once_a_pair, quantise

if TYPE_CHECKING:
    import openvino


def to_openvino(uncut: Path) -> openvino.Model:
    """Return an uncut ONNX graph as an OpenVINO model.

    Raises:
        MissingExtraError: If openvino is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtraError("openvino", "openvino") from None
    return openvino.convert_model(uncut)


def quantise_openvino(uncut: Path, batches: Sequence[Batch]) -> openvino.Model:
    """Return an uncut ONNX graph as an OpenVINO model in static int8, with SmoothQuant and bias correction.

    What is computed once a pair, the head and the latents, stays as it is; embeddings become int8, too.

    Args:
        uncut: The fp32 graph.
        batches: Inputs of calibration pairs, without padding.

    Raises:
        StudentError: If there is no batch.
        MissingExtraError: If openvino or nncf is not installed.
    """
    left = [f"{re.escape(name)}(/.*)?" for name in once_a_pair(uncut)]
    return quantise(to_openvino(uncut), batches, patterns=left)


def save_openvino(model: openvino.Model, head: str, path: Path) -> None:
    """Write the graph of one head, with weights in 16 bits where none is int8.

    Args:
        model: The uncut model.
        head: ``classes`` or ``ranking``.
        path: The ``.xml`` file to write; the weights go beside it.
    """
    import openvino

    kept = []
    for name, wanted in OUTPUTS[head].items():
        for port in model.outputs:
            if name in port.names:
                kept.append(port.node)
                port.tensor.set_names({wanted})
    path.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.Model(kept, model.get_parameters(), head), path, compress_to_fp16=True)
