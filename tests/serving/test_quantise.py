import logging
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from manylens.errors import StudentError
from manylens.serving.quantise import _to_unsigned, once_a_pair, quantise_onnx

BATCHES = [{"x": np.array([row], dtype=np.int64)} for row in ([1, 2, 3], [4, 5], [6])]


class Toy(torch.nn.Module):
    """Embeds tokens, multiplies each by a square and by a narrow matrix, and their sum by another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.wide = torch.nn.Embedding(8, 16), torch.nn.Linear(16, 16)
        self.narrow, self.head = torch.nn.Linear(16, 2, bias=False), torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.wide(self.embed(x)).relu()
        return self.head(states.sum(dim=1)), self.narrow(states)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.onnx"
    dynamic = {"x": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    example = torch.ones(2, 3, dtype=torch.int64)
    program = torch.onnx.export(Toy().eval(), (example,), dynamo=True, dynamic_shapes=dynamic, verbose=False)
    assert program is not None
    program.save(str(path))
    return path


def run(path: Path, x: list[list[int]]) -> list[NDArray[np.float32]]:
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: np.array(x, dtype=np.int64)})


def test_products_of_tokens_are_int8_and_what_is_computed_once_a_pair_is_not(toy: Path, tmp_path: Path) -> None:
    quantise_onnx(toy, BATCHES, tmp_path / "int8.onnx")
    graph = ir.load(tmp_path / "int8.onnx").graph
    made = {value.name: node for node in graph for value in node.outputs}
    products = [node for node in graph if node.op_type in ("MatMul", "Gemm")]
    quantised = [node for node in products if made.get(str(node.inputs[0].name), node).op_type == "DequantizeLinear"]
    assert [node.op_type for node in quantised] == ["MatMul"] and len(products) == 3
    activation, weight = (made[str(value.name)] for value in quantised[0].inputs[:2])
    assert activation.inputs[2].const_value.dtype == ir.DataType.UINT8
    assert weight.inputs[0].const_value.dtype == ir.DataType.INT8 and weight.inputs[0].const_value.shape == (16, 16)
    assert weight.inputs[1].const_value.shape == (16,)  # A step for each output channel.
    for exact, rounded in zip(run(toy, [[1, 2, 3]]), run(tmp_path / "int8.onnx", [[1, 2, 3]]), strict=True):
        np.testing.assert_allclose(rounded, exact, atol=0.05 * np.abs(exact).max())
    assert once_a_pair(toy) == [node.name for node in ir.load(toy).graph if node.op_type in ("Gemm", "MatMul")][1:]


def test_shifting_activations_to_unsigned_changes_no_bit(tmp_path: Path) -> None:
    """round(x / 0.1) - 5, clipped to a signed byte, and back."""
    helper, signed = onnx.helper, onnx.TensorProto.INT8
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
    ]
    constants = [
        helper.make_tensor("step", onnx.TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", signed, [], [-5]),
    ]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "toy", values[:1], values[1:], constants)
    path = tmp_path / "toy.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    inputs = np.linspace(-20, 20, 500, dtype=np.float32)

    def outputs() -> NDArray[np.float32]:
        found: NDArray[np.float32] = InferenceSession(path).run(["y"], {"x": inputs})[0]
        return found

    before = outputs()
    assert before.min() == pytest.approx(-12.3) and before.max() == pytest.approx(13.2)
    _to_unsigned(path)
    np.testing.assert_array_equal(outputs(), before)
    zero = next(each for each in onnx.load(path).graph.initializer if each.name == "zero")
    assert zero.data_type == onnx.TensorProto.UINT8 and onnx.numpy_helper.to_array(zero) == 123


def test_int8_needs_calibration_pairs_and_something_to_quantise(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"calibrated on training pairs, got none; leave int8 out of export"):
        quantise_onnx(toy, [], tmp_path / "int8.onnx")
    model = onnx.load(toy)
    for node in model.graph.node:
        node.op_type = "Gemm" if node.op_type == "MatMul" else node.op_type
    onnx.save(model, tmp_path / "none.onnx")
    with pytest.raises(StudentError, match=r"none\.onnx has no product of token states with a matrix"):
        quantise_onnx(tmp_path / "none.onnx", BATCHES, tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_nncf_is_as_talkative_afterwards_as_before(toy: Path, tmp_path: Path) -> None:
    logger = logging.getLogger("nncf")
    before = logger.level
    quantise_onnx(toy, BATCHES, tmp_path / "int8.onnx")
    assert logger.level == before
