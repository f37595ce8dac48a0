from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from manylens.records import ESCI
from manylens.serving.first_token import keep_first_token
from manylens.serving.graphs import Heads, trace
from manylens.serving.layout import Card
from student.build import BACKBONES, make_model

#: Whether the first token's state alone is multiplied, of each layer's query, key, value, output, and two of the
#: feed-forward network.
LAYER, LAST = [False] * 6, [True, False, False, True, True, True]


@pytest.mark.parametrize(
    ("backbone", "options", "wanted"),
    [
        ("bert", {"extractor": "mlp", "extractor_options": {"pooling": "cls"}}, [*LAYER, *LAST]),
        ("bert", {"extractor": "mlp"}, LAYER * 2),
        pytest.param("bert", {"extractor": None}, [*LAYER, *LAST], marks=pytest.mark.slow),
        pytest.param("bert", {"extractor": None, "pooling": "mean"}, LAYER * 2, marks=pytest.mark.slow),
        pytest.param("distilbert", {"extractor": None}, [*LAYER, *LAST], marks=pytest.mark.slow),
        pytest.param("xlm-roberta", {"extractor": None}, [*LAYER, *LAST], marks=pytest.mark.slow),
        # Its embeddings are projected.
        pytest.param("electra", {"extractor": None}, [False, *LAYER, *LAST], marks=pytest.mark.slow),
        # Query, key and value are one product there.
        pytest.param("modernbert", {"extractor": None}, [False] * 5 + [True] * 3, marks=pytest.mark.slow),
    ],
)
def test_a_student_that_reads_cls_alone_computes_it_alone_in_its_last_layer(
    backbone: str, options: dict[str, object], wanted: list[bool], tmp_path: Path
) -> None:
    heads = Heads.of(
        make_model(backbone_config=BACKBONES[backbone].to_dict(), **options),
        Card(labels=ESCI.names, gains=ESCI.gain_vector()),
    )
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if backbone in ("bert", "electra") else [])]
    trace(heads, inputs, tmp_path / "uncut.onnx", opset=18)
    products = [
        node.outputs[0].shape
        for node in ir.load(tmp_path / "uncut.onnx").graph
        if node.op_type == "MatMul" and node.inputs[1] is not None and node.inputs[1].is_initializer()
    ]
    assert [shape is not None and shape[1] == 1 for shape in products] == wanted


WIDTH = 4
#: What each step does with x of shape (batch, tokens, 4), and y, an earlier such value; it leaves the next x.
STEPS: dict[str, list[tuple[str, list[str], dict[str, object]]]] = {
    "residual": [("Add", ["x", "y"], {})],
    "offset": [("Mul", ["x", "vector"], {})],
    "table": [("Add", ["x", "row"], {})],
    "dense": [("MatMul", ["x", "matrix"], {})],
    "norm": [("LayerNormalization", ["x", "vector"], {"axis": -1})],
    "softmax": [("Softmax", ["x"], {"axis": -1})],
    "softmax_of_tokens": [("Softmax", ["x"], {"axis": 1})],
    "norm_of_tokens": [("LayerNormalization", ["x", "one"], {"axis": 1})],
    "centre": [("ReduceMean", ["x", "axes"], {"keepdims": 1}), ("Sub", ["x", "0"], {})],
    "join": [("Concat", ["x", "y"], {"axis": -1}), ("MatMul", ["0", "tall"], {})],
    "gate": [("Split", ["x"], {"axis": 2, "num_outputs": 2}), ("Mul", ["0", "0b"], {}), ("MatMul", ["1", "wide"], {})],
    "attend": [
        ("Transpose", ["x"], {"perm": [0, 2, 1]}),
        ("MatMul", ["y", "0"], {}),
        ("Softmax", ["1"], {"axis": -1}),
        ("MatMul", ["2", "x"], {}),
    ],
    "heads": [
        ("Shape", ["x"], {"end": 2}),
        ("Concat", ["0", "two_by_two"], {"axis": 0}),
        ("Reshape", ["x", "1"], {"allowzero": 1}),
        ("MatMul", ["2", "small"], {}),
        ("Transpose", ["3"], {"perm": [0, 2, 1, 3]}),
        ("MatMul", ["4", "small"], {}),
        ("Transpose", ["5"], {"perm": [0, 2, 1, 3]}),
        ("Concat", ["0", "four"], {"axis": 0}),
        ("Reshape", ["6", "7"], {}),
    ],
    "flat": [("Reshape", ["x", "flat"], {}), ("Tanh", ["0"], {}), ("Shape", ["x"], {}), ("Reshape", ["1", "2"], {})],
}
_RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "vector": _RANDOM.normal(size=WIDTH),
    "row": _RANDOM.normal(size=(1, 1, WIDTH)),
    "matrix": _RANDOM.normal(size=(WIDTH, WIDTH)),
    "tall": _RANDOM.normal(size=(2 * WIDTH, WIDTH)),
    "wide": _RANDOM.normal(size=(WIDTH // 2, WIDTH)),
    "small": _RANDOM.normal(size=(2, 2)),
    "one": np.ones(1),
}
SIZES = {"axes": [1], "two_by_two": [2, 2], "four": [4], "flat": [-1, 4], "first": 0, "second": 1}


def graph(steps: list[tuple[str, int]], seen: int, place: str = "first", joined: bool = False) -> ModelProto:
    """Return the graph of some steps, each with how far back y is.

    It returns a token of the last value, or of that and the states, joined, and an earlier value whole.
    """
    values, nodes = ["states"], []
    for number, (step, back) in enumerate(steps):
        names = {"x": values[-1], "y": values[max(0, len(values) - 1 - back)]}
        for position, (kind, inputs, attributes) in enumerate(STEPS[step]):
            outputs = [f"s{number}_{position}", *([f"s{number}_{position}b"] if kind == "Split" else [])]
            named = [names.get(name, name) for name in inputs]
            nodes.append(helper.make_node(kind, named, outputs, **attributes))
            names |= {str(position): outputs[0], f"{position}b": outputs[-1]}
        values.append(outputs[0])
    if joined:
        nodes.append(helper.make_node("Concat", [values[-1], "states"], ["joined"], axis=1))
    nodes.append(helper.make_node("Gather", ["joined" if joined else values[-1], place], ["token"], axis=1))
    nodes.append(helper.make_node("Identity", [values[min(seen, len(values) - 1)]], ["whole"]))
    shape = ["batch", "tokens", WIDTH]
    arrays = {name: value.astype(np.float32) for name, value in CONSTANTS.items()}
    arrays |= {name: np.array(value, dtype=np.int64) for name, value in SIZES.items()}
    read = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read]
    made = helper.make_graph(
        nodes,
        "steps",
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("token", "whole")],
        constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 3)), max_size=8),
    seen=st.integers(0, 8),
    place=st.sampled_from(["first", "first", "second"]),
    joined=st.booleans(),
)
def test_whatever_a_graph_does_it_returns_what_it_returned(
    steps: list[tuple[str, int]], seen: int, place: str, joined: bool
) -> None:
    before = graph(steps, seen, place, joined)
    model = ir.from_proto(before)
    keep_first_token(model)
    states = np.random.default_rng(len(steps)).normal(size=(2, 3, WIDTH)).astype(np.float32)
    options = SessionOptions()
    # It would fuse a sum and a normalisation of tokens to one along the last axis.
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    found, wanted = (
        InferenceSession(each.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
            None, {"states": states}
        )
        for each in (ir.to_proto(model), before)
    )
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_another_reads_whole_is_not_cut() -> None:
    """Of dense, norm, dense, the first two are read whole."""
    model = ir.from_proto(graph([("dense", 0), ("norm", 0), ("dense", 0)], seen=2))
    keep_first_token(model)
    shapes = [str(node.outputs[0].shape) for node in model.graph if node.op_type in ("MatMul", "LayerNormalization")]
    assert shapes == ["[batch,tokens,4]", "[batch,tokens,4]", "[batch,1,4]"]
