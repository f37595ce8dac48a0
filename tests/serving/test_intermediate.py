import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from onnxruntime import InferenceSession

from manylens.errors import MissingExtraError
from manylens.serving.intermediate import to_openvino
from manylens.serving.layout import CLASSES, RANKING, VARIANTS
from student.build import CLS, SEP


def compiled(path: Path) -> openvino.CompiledModel:
    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("head", [CLASSES, RANKING])
@pytest.mark.parametrize("variant", ["openvino_bf16", "openvino_int8"])
@pytest.mark.parametrize("shape", [(1, 3), (3, 9)])
def test_the_outputs_are_those_of_onnx(exported: Path, head: str, variant: str, shape: tuple[int, int]) -> None:
    ids = np.random.default_rng(0).integers(4, 17, size=shape)
    ids[:, 0], ids[:, [shape[1] // 2, -1]] = CLS, SEP
    mask = np.ones(shape, dtype=np.int64)
    mask[1:, -2:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": (np.arange(shape[1]) > shape[1] // 2) * mask}
    session = InferenceSession(exported / head / VARIANTS["onnx_fp32"])
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(names, batch), strict=True))
    found = compiled(exported / head / VARIANTS[variant])(batch).to_dict()
    assert sorted(port.any_name for port in found) == sorted(names)
    for port, values in found.items():
        exact = wanted[port.any_name]
        # 16 bits are three digits; an extractor whose attention were int8 would be ten times as far.
        atol = (2e-3 if variant == "openvino_bf16" else 0.05) * np.abs(exact).max()
        np.testing.assert_allclose(values, exact, atol=atol)


def matrices(model: openvino.Model) -> list[str]:
    """Return the types of the matrices of a graph."""
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant" and len(node.shape) == 2]
    return [node.get_element_type().get_type_name() for node in constants if min(node.shape) > 1]


def test_matrices_are_of_16_bits_or_int8_but_for_those_of_extractor_and_head(exported: Path) -> None:
    exact, rounded = (
        openvino.Core().read_model(exported / CLASSES / VARIANTS[name]) for name in ("openvino_bf16", "openvino_int8")
    )
    assert set(matrices(exact)) == {"f16"}
    # Three of embeddings and six of each layer; the extractor's codes, its projection, and the head.
    assert sorted(matrices(rounded)) == ["f32"] * 3 + ["i8"] * (3 + 2 * 6)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"openvino is not installed; run: pip install 'manylens\[openvino\]'"):
        to_openvino(Path("uncut.onnx"))
