"""A graph that reads the first token's state alone computes no other token's in its last layer.

Of the last layer, a classifier on [CLS] needs the key and the value of every token, but the query, the attention and
the feed-forward network, which is most of a layer, of the first token alone. What the other tokens would come to has no
way into the result. Where all tokens' states are read, as by a mean over them or by an extractor that attends to them,
the graph stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

#: A value of the result depends on the inputs' values at the same place alone.
_ELEMENTWISE = frozenset(
    {"Add", "Cast", "Div", "Erf", "Gelu", "Identity", "Mul", "Neg", "Pow"}
    | {"Relu", "Sigmoid", "Sqrt", "Sub", "Sum", "Tanh"}
)
#: Those that keep the places of axes before their own apart, each with the axis that it has where none is written.
_ALONG_AN_AXIS = {"Concat": -1, "LayerNormalization": -1, "Softmax": -1, "Split": 0}


class _Use(NamedTuple):
    """An input of a node, and the axis of which the node needs the first place alone."""

    node: ir.Node
    number: int
    axis: int


def keep_first_token(model: ir.Model) -> None:
    """Move each choice of a first token towards the start of a graph, as far as it goes.

    Args:
        model: Changed in place.
    """
    from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

    ShapeInferencePass()(model)
    found: dict[ir.Value, list[_Use]] = defaultdict(list)
    for node in reversed(model.graph):
        if (axis := _chosen(node)) is not None:
            found[_input(node, 0)].append(_Use(node, 0, axis))
            continue
        wanted = {value: found.pop(value) for value in node.outputs if value in found}
        if not wanted:
            continue
        axis = _only_axis(node, wanted)
        needed = None if axis is None else _needed(node, axis)
        if axis is None or needed is None:
            for value, uses in wanted.items():
                _choose(model.graph, value, uses)
            continue
        for value in node.outputs:
            _narrow(value, axis)
        if node.op_type == "Reshape":
            _reshape(model.graph, node, axis)
        for use in needed:
            found[_input(node, use.number)].append(use)
    for value, uses in found.items():  # An input of the graph, or a constant.
        _choose(model.graph, value, uses)
    RemoveUnusedNodesPass()(model)


def _chosen(node: ir.Node) -> int | None:
    """Return the axis of token states whose first place a node takes, if that is what it does."""
    if node.op_type != "Gather" or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    axis, shape = node.attributes.get_int("axis", 0), _input(node, 0).shape
    first = not node.inputs[1].const_value.numpy().any() and node.inputs[1].const_value.size == 1
    return axis if first and axis > 0 and shape is not None and len(shape) > 2 else None


def _only_axis(node: ir.Node, wanted: Mapping[ir.Value, Sequence[_Use]]) -> int | None:
    """Return the axis of which all that a node returns is needed in the first place alone, if so."""
    axes = {use.axis for uses in wanted.values() for use in uses}
    if len(axes) > 1 or any(value.shape is None or value.is_graph_output() for value in node.outputs):
        return None
    if any(len(wanted.get(value, ())) < len(value.uses()) for value in node.outputs):
        return None
    return axes.pop()


def _needed(node: ir.Node, axis: int) -> list[_Use] | None:
    """Return what a node needs for the first place of an axis of its output; ``None`` if that may be all."""
    shape = _shape(node.outputs[0])
    if node.op_type in _ELEMENTWISE:
        return _broadcast(node, range(len(node.inputs)), len(shape) - axis)
    if node.op_type == "MatMul":
        return _broadcast(node, (0,), 2) if axis == len(shape) - 2 else None
    if node.op_type == "Transpose":
        return [_Use(node, 0, node.attributes["perm"].as_ints()[axis])]
    if node.op_type in _ALONG_AN_AXIS:
        before_it = axis < node.attributes.get_int("axis", _ALONG_AN_AXIS[node.op_type]) % len(shape)
        joined = len(node.inputs) if node.op_type == "Concat" else 1  # Of the others, the rest are parameters.
        return [_Use(node, number, axis) for number in range(joined)] if before_it else None
    if node.op_type == "Reshape":
        before = _input(node, 0).shape
        kept = before is not None and len(before) > axis and before[: axis + 1] == shape[: axis + 1]
        known = not any(shape.is_unknown_dim(place) for place in range(axis + 1))
        # Sizes behind the axis are written down, of which one may be any.
        open_sizes = sum(not isinstance(size, int) for size in shape[axis + 1 :])
        return [_Use(node, 0, axis)] if kept and known and open_sizes < 2 else None
    return None


def _broadcast(node: ir.Node, indices: Sequence[int], from_end: int) -> list[_Use] | None:
    """Return what is needed of inputs whose axes are aligned at the end."""
    needed = []
    for index in indices:
        shape = _input(node, index).shape
        if shape is None:
            return None
        axis = len(shape) - from_end
        if axis >= 0 and shape[axis] != 1:
            needed.append(_Use(node, index, axis))
    return needed


def _narrow(value: ir.Value, axis: int) -> None:
    import onnx_ir as ir

    sizes = list(_shape(value))
    sizes[axis] = 1
    value.shape = ir.Shape(sizes)


def _reshape(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    """Let a node keep the sizes up to an axis, whatever they are, as it was given the unnarrowed ones."""
    later = [size if isinstance(size, int) else -1 for size in _shape(node.outputs[0])[axis + 1 :]]
    node.replace_input_with(1, _constant(graph, f"{node.outputs[0].name}_sizes", [0] * (axis + 1) + later))
    node.attributes.pop("allowzero", None)  # With it, 0 would be a size.


def _choose(graph: ir.Graph, value: ir.Value, uses: Sequence[_Use]) -> None:
    """Give nodes the first place of an axis of a value; one that takes it already stays as it is."""
    import onnx_ir as ir

    for axis in {use.axis for use in uses}:
        users = [use for use in uses if use.axis == axis and _chosen(use.node) is None]
        if not users:
            continue
        first = _constant(graph, f"{value.name}_place_{axis}", [0])
        chosen = ir.node("Gather", [value, first], {"axis": axis})
        chosen.outputs[0].name, chosen.outputs[0].type = f"{value.name}_first_{axis}", value.type
        if value.shape is not None:
            chosen.outputs[0].shape = value.shape
            _narrow(chosen.outputs[0], axis)
        producer = value.producer()
        if producer is None:
            graph.insert_before(next(iter(graph)), chosen)
        else:
            graph.insert_after(producer, chosen)
        for use in users:
            use.node.replace_input_with(use.number, chosen.outputs[0])


def _constant(graph: ir.Graph, name: str, values: Sequence[int]) -> ir.Value:
    import onnx_ir as ir

    value = ir.val(name, const_value=ir.tensor(np.array(values, dtype=np.int64), name=name))
    graph.register_initializer(value)
    return value


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _shape(value: ir.Value) -> ir.Shape:
    assert value.shape is not None
    return value.shape
