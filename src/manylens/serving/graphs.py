"""From a PyTorch classifier to ONNX: one graph with every output, cut into that of classes and that of ranking.

A graph's inputs are int64 of shape (batch, tokens), both of any size; a split student's three parts are graphs, too,
the last of which reads token states. A graph uses standard operators alone, so whatever
runs ONNX takes it; onnxruntime fuses GELU and the scaling of attention scores when it loads it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function, eager_mask

from manylens.errors import MissingExtraError
from manylens.serving.first_token import keep_first_token
from manylens.serving.layout import CLASSES, RANKING, Card
from manylens.student.model import LatentReasoningForSequenceClassification
from manylens.student.split import LowerProduct, LowerQuery, Upper

if TYPE_CHECKING:
    import onnx_ir as ir

#: The attention's name in transformers' `AttentionInterface`.
ATTENTION = "manylens_export"
#: The ranking head's gain stays this far from 0 and 1, so that its logit is finite.
MARGIN = 1e-6
#: Each head's outputs, from their names in the uncut graph to those that are served.
OUTPUTS: Mapping[str, Mapping[str, str]] = {
    CLASSES: {"class_logits": "logits", "class_probabilities": "probabilities", "class_latents": "latents"},
    RANKING: {"gain_logit": "logits"},
}
#: Any shape will do; an axis of size 1 would be taken for a constant.
_EXAMPLE = (2, 5)


class Heads(nn.Module):
    """A classifier with what is served behind it.

    Args:
        classifier: Returns ``logits`` of shape (batch, classes) and, where it has them, ``latents``.
        gains: (classes,) gains in [0, 1].
        temperature: Divides the logits.
    """

    def __init__(self, classifier: nn.Module, gains: Sequence[float], temperature: float) -> None:
        """Put the parts together."""
        super().__init__()
        self.classifier, self.temperature = classifier, temperature
        self.register_buffer("gains", torch.tensor(gains, dtype=torch.float32), persistent=False)

    @classmethod
    def of(cls, classifier: nn.Module, card: Card) -> Heads:
        """Return the heads that a card describes; gains above 1 are divided by the largest."""
        scale = max(1.0, *card.gains)
        return cls(classifier, [gain / scale for gain in card.gains], card.temperature)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return every output by the name that it has in the uncut graph.

        Args:
            input_ids: (batch, tokens).
            attention_mask: (batch, tokens), 1 for real tokens.
            token_type_ids: (batch, tokens), for classifiers that take them.

        Returns:
            ``class_logits`` and ``class_probabilities`` of shape (batch, classes), ``gain_logit`` of shape
            (batch, 1), and ``class_latents`` of shape (batch, latents, dim) where the classifier has latents.
        """
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.classifier(input_ids=input_ids, attention_mask=attention_mask, **types, return_dict=True)
        logits = found.logits.float() / self.temperature
        probabilities = logits.softmax(dim=-1)
        assert isinstance(self.gains, Tensor)
        gain = (probabilities * self.gains).sum(dim=-1, keepdim=True).clamp(MARGIN, 1.0 - MARGIN)
        outputs = {
            "class_logits": logits,
            "class_probabilities": probabilities,
            "gain_logit": (gain / (1.0 - gain)).log(),
        }
        latents = getattr(found, "latents", None)
        return outputs if latents is None else {**outputs, "class_latents": latents}


def trace(heads: Heads, inputs: Sequence[str], path: Path, *, opset: int) -> None:
    """Write the uncut graph as ONNX.

    Args:
        heads: The classifier and its heads, on the CPU.
        inputs: Names of the inputs that the classifier takes.
        path: The file to write.
        opset: Version of ONNX's standard operators.

    Raises:
        MissingExtraError: If torch's exporter lacks onnxscript.
    """
    example = {name: torch.ones(_EXAMPLE, dtype=torch.int64) for name in inputs}
    with torch.no_grad():
        outputs = list(heads.eval()(**example))
    _write(heads, example, dict.fromkeys(inputs, "tokens"), outputs, path, opset=opset)


def trace_parts(
    student: LatentReasoningForSequenceClassification, temperature: float, paths: Sequence[Path], *, opset: int
) -> None:
    """Write the three parts of a student with split layers as ONNX.

    Args:
        student: The student, on the CPU.
        temperature: Divides the logits.
        paths: The files to write: the lower layers of queries, those of products, and the upper layers.
        opset: Version of ONNX's standard operators.

    Raises:
        MissingExtraError: If torch's exporter lacks onnxscript.
    """
    # One tensor for both would be taken for one input.
    segment = {name: torch.ones(_EXAMPLE, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    for part, path in zip((LowerQuery, LowerProduct), paths[:2], strict=True):
        _write(part(student), segment, dict.fromkeys(segment, "tokens"), ["states"], path, opset=opset)
    (rows, tokens), hidden = _EXAMPLE, student.config.backbone_config.hidden_size
    both: dict[str, Tensor] = {}
    # Of unlike lengths, so that neither axis can be taken for the other.
    for side, length in (("query", tokens - 1), ("product", tokens)):
        both[f"{side}_states"] = torch.zeros(rows, length, hidden)
        both[f"{side}_mask"] = torch.ones(rows, length, dtype=torch.int64)
    axes = {name: f"{name.partition('_')[0]}_tokens" for name in both}
    outputs = ["logits", "probabilities", *([] if student.extractor is None else ["latents"])]
    _write(Upper(student, temperature), both, axes, outputs, paths[2], opset=opset)


def _write(
    module: nn.Module,
    example: Mapping[str, Tensor],
    axes: Mapping[str, str],
    outputs: Sequence[str],
    path: Path,
    *,
    opset: int,
) -> None:
    """Write a module as ONNX; `axes` names the second axis of its inputs, which are of any size in the first two."""
    try:
        import onnx_ir
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnxscript", "export") from None
    sizes = {name: {axis: torch.export.Dim.DYNAMIC for axis in (0, 1)} for name in example}
    module = module.eval()
    with _portable_attention(module), _quiet(), torch.no_grad():
        exported = torch.export.export(module, (), dict(example), dynamic_shapes=sizes, strict=False)
        program = torch.onnx.export(exported, dynamo=True, opset_version=opset, verbose=False)
    assert program is not None
    named: dict[object, str] = {}
    for value in program.model.graph.inputs:
        assert value.name is not None and value.shape is not None
        named[value.shape.dims[1]] = axes[value.name]
        value.shape = onnx_ir.Shape(["batch", axes[value.name], *value.shape.dims[2:]])
    for name, value in zip(outputs, program.model.graph.outputs, strict=True):
        value.name = name
        later = value.shape.dims[1:] if value.shape is not None else ()
        value.shape = onnx_ir.Shape(["batch", *(named.get(size, size) for size in later)])
    _tidy(program.model)
    keep_first_token(program.model)
    onnx_ir.save(program.model, path)


def _tidy(model: ir.Model) -> None:
    """Write what onnxruntime runs slowly in another way, with the same operators' values."""
    from onnxscript.rewriter import pattern

    # onnxruntime knows GELU by the order of its products.
    gelu = pattern.RewriteRule(_exported_gelu, _known_gelu)
    pattern.RewriteRuleSet([gelu], commute=True).apply_to_model(model)
    for node in model.graph:
        # It would fuse Add and LayerNormalization to an operator that takes several times as long as the two.
        if node.op_type == "Add" and [use.node.op_type for use in node.outputs[0].uses()] == ["LayerNormalization"]:
            node.op_type = "Sum"


def _exported_gelu(op: Any, x: Any, root: Any, one: Any, half: Any) -> Any:  # noqa: ANN401 - of onnxscript's patterns
    return op.Mul(x, op.Mul(half, op.Add(op.Erf(op.Div(x, root)), one)))


def _known_gelu(op: Any, x: Any, root: Any, one: Any, half: Any) -> Any:  # noqa: ANN401
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, root)), one)), half)


def cut(source: Path, head: str, path: Path) -> None:
    """Write the graph of one head.

    Args:
        source: The uncut graph, or a quantised one with the same outputs.
        head: ``classes`` or ``ranking``.
        path: The file to write.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = onnx_ir.load(source)
    wanted = OUTPUTS[head]
    kept = [value for value in model.graph.outputs if value.name in wanted]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    RemoveUnusedNodesPass()(model)
    for value in kept:
        assert value.name is not None
        value.name = wanted[value.name]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx_ir.save(model, path)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,  # noqa: ANN401 - transformers passes more than is needed
) -> tuple[Tensor, None]:
    """Return scaled dot-product attention as the fewest standard operators, for exporting.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, dim).
        key: As `query`.
        value: As `query`.
        attention_mask: Added to the scores; ``None`` where every token may be looked at.
        scaling: Of the scores; ``None`` means one over the square root of dim.
        **kwargs: Ignored.

    Returns:
        (batch, tokens, heads, dim), and no weights.
    """
    scores = (query @ key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    return (scores.softmax(dim=-1) @ value).transpose(1, 2), None


def attention_mask(
    *,
    attention_mask: Tensor | None = None,
    mask_function: Callable[..., Any],
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,  # noqa: ANN401 - transformers passes more than is needed
) -> Tensor | None:
    """Return what `attention` adds to the scores: 0, or the least number where a token is padding.

    Args:
        attention_mask: (batch, tokens), true for real tokens.
        mask_function: What transformers masks beside padding.
        dtype: Of the scores.
        **kwargs: Passed on where more than padding is masked, as in a sliding window.

    Returns:
        (batch, 1, 1, tokens), or (batch, 1, tokens, tokens) where more than padding is masked.
    """
    if mask_function is bidirectional_mask_function and attention_mask is not None:
        return (1.0 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min
    mask: Tensor | None = eager_mask(attention_mask=attention_mask, mask_function=mask_function, dtype=dtype, **kwargs)
    return mask


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, attention_mask)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch's exporter says of libraries that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _portable_attention(module: nn.Module) -> Iterator[None]:
    """Give every transformer within a module the attention above; one that brings its own keeps it."""
    found = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    chosen = [part for part in found if type(part)._can_set_attn_implementation()]
    before = [part.config._attn_implementation for part in chosen]
    try:
        for part in chosen:
            part.set_attn_implementation(ATTENTION)
        yield
    finally:
        for part, implementation in zip(chosen, before, strict=True):
            part.set_attn_implementation(implementation)
