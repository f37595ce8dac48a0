from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from scipy.special import expit, softmax
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from manylens.records import ESCI
from manylens.serving.graphs import Heads, cut, trace
from manylens.serving.layout import CLASSES, RANKING, Card
from manylens.student import LatentReasoningForSequenceClassification
from student.build import BACKBONES, SEP, make_model

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Arrays = dict[str, NDArray[np.int64]]


class Exported(NamedTuple):
    """A student, the inputs that it takes, and where its graphs are."""

    model: LatentReasoningForSequenceClassification
    inputs: tuple[str, ...]
    folder: Path


class _Fixed(nn.Module):
    """A classifier that says the same of every pair."""

    def __init__(self, logits: NDArray[np.float64]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float32)

    def forward(self, input_ids: Tensor, **others: object) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.logits.expand(len(input_ids), -1))


def batch(shape: tuple[int, int], inputs: tuple[str, ...]) -> Arrays:
    """Return random pairs; each row but the first ends in padding."""
    random = np.random.default_rng(shape)
    ids = random.integers(4, 17, size=shape)
    ids[:, shape[1] // 2] = SEP
    mask = np.ones(shape, dtype=np.int64)
    for row in range(1, shape[0]):
        mask[row, shape[1] - min(row, shape[1] - 2) :] = 0
    types = np.where(np.arange(shape[1]) > shape[1] // 2, 1, 0) * mask
    arrays = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}
    return {name: arrays[name].astype(np.int64) for name in inputs}


#: Backbone and options of the student, by name.
STUDENTS: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("bert", {}),
    "mlp": ("bert", {"extractor": "mlp"}),
    "poly": ("bert", {"extractor": "poly", "extractor_options": {"codes": 3}, "pooling": "mean"}),
    "gat": ("bert", {"extractor": "gat", "latent_names": ["user_intent", "business_rules"]}),
    "window": ("bert", {"extractor": "gat", "extractor_options": {"edges": "window"}}),
    "split": ("bert", {"extractor": "gat", "split_layers": 1}),
    **{name: (name, {"extractor": "gat"}) for name in BACKBONES if name != "bert"},
}
#: The others take seconds each, and are alike.
QUICK = ("poly", "gat", "distilbert")
GAINS, TEMPERATURE = (3.0, 1.0, 0.5, 0.0), 2.5


@pytest.fixture(
    scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STUDENTS]
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A student and its graphs."""
    backbone, options = STUDENTS[request.param]
    model = make_model(backbone_config=BACKBONES[backbone].to_dict(), **options)
    inputs = INPUTS if backbone in ("bert", "electra") else INPUTS[:2]
    before = model.backbone.config._attn_implementation
    folder = tmp_path_factory.mktemp(request.param)
    card = Card(labels=ESCI.names, gains=GAINS, temperature=TEMPERATURE)
    trace(Heads.of(model, card), inputs, folder / "uncut.onnx", opset=18)
    assert model.backbone.config._attn_implementation == before
    for head in (CLASSES, RANKING):
        cut(folder / "uncut.onnx", head, folder / f"{head}.onnx")
    return Exported(model, inputs, folder)


def run(exported: Exported, head: str, arrays: Arrays) -> dict[str, NDArray[np.float32]]:
    session = InferenceSession(exported.folder / f"{head}.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (1, 16), (5, 11)])
def test_the_graphs_say_what_pytorch_says(exported: Exported, shape: tuple[int, int]) -> None:
    arrays = batch(shape, exported.inputs)
    with torch.inference_mode():
        wanted = exported.model(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    found, ranking = run(exported, CLASSES, arrays), run(exported, RANKING, arrays)
    np.testing.assert_allclose(found["logits"], wanted.logits / TEMPERATURE, atol=2e-5)
    probabilities = softmax(wanted.logits.numpy() / TEMPERATURE, axis=1)
    np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-5)
    assert ("latents" in found) == (wanted.latents is not None)
    if wanted.latents is not None:
        np.testing.assert_allclose(found["latents"], wanted.latents, atol=2e-5)
    assert ranking["logits"].shape == (shape[0], 1) and set(ranking) == {"logits"}
    np.testing.assert_allclose(expit(ranking["logits"][:, 0]), probabilities @ np.array(GAINS) / 3.0, atol=1e-5)


def test_a_graph_has_standard_operators_two_open_axes_and_nothing_of_the_other_head(exported: Exported) -> None:
    latents = ["latents"] if exported.model.extractor is not None else []
    for head, outputs in ((CLASSES, ["logits", "probabilities", *latents]), (RANKING, ["logits"])):
        model = onnx.load(exported.folder / f"{head}.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} == {""}
        assert [each.version for each in model.opset_import if each.domain == ""] == [18]
        assert sorted(value.name for value in model.graph.output) == sorted(outputs)
        assert [value.name for value in model.graph.input] == list(exported.inputs)
        for value in model.graph.input:
            assert value.type.tensor_type.elem_type == onnx.TensorProto.INT64
            assert [dim.dim_param for dim in value.type.tensor_type.shape.dim] == ["batch", "tokens"]
    classes, ranking = (
        {node.op_type for node in onnx.load(exported.folder / f"{head}.onnx").graph.node} for head in (CLASSES, RANKING)
    )
    assert "Log" in ranking and "Log" not in classes


@pytest.mark.parametrize(("gain", "wanted"), [(0.0, -13.8155), (1.0, 13.8155)])
def test_a_gain_of_nothing_or_of_all_keeps_a_finite_logit(gain: float, wanted: float) -> None:
    """log(1e-6 / (1 - 1e-6)) = -13.8155; fp32 has 1 - 1e-6 to six in a hundred."""
    arrays = {name: torch.from_numpy(array) for name, array in batch((2, 5), INPUTS).items()}
    logits = Heads(make_model(), [gain] * 4, 1.0)(**arrays)["gain_logit"]
    assert logits.tolist() == [[pytest.approx(wanted, abs=0.06)]] * 2


def test_gains_above_one_are_divided_by_the_largest() -> None:
    """Logits of log(1, 2, 3, 4) over a temperature of 1: (1*3 + 2*1 + 3*0.5 + 4*0) / 10 / 3 = 0.21667."""
    heads = Heads.of(_Fixed(np.log([1.0, 2.0, 3.0, 4.0])), Card(labels=ESCI.names, gains=GAINS))
    found = heads(torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64))
    assert found["class_probabilities"].tolist() == [[pytest.approx(value) for value in (0.1, 0.2, 0.3, 0.4)]]
    assert found["gain_logit"].sigmoid().item() == pytest.approx(0.65 / 3)
