from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from manylens.config import StudentConfig
from manylens.errors import StudentError
from manylens.student import LatentReasoningForSequenceClassification
from manylens.student.methods import get_method
from manylens.student.objectives import gradient_norm, last_layer
from manylens.student.parts import Shapes, Step

from .build import BACKBONES, CLS, DIM, SEP, make_model

IDS = torch.tensor([[CLS, 5, 6, SEP, 7, SEP], [CLS, 9, 8, SEP, 10, SEP]])


def answer(model: LatentReasoningForSequenceClassification, labels: tuple[int, ...] = (1, 3)) -> Step:
    """Return a step with the model's answer to two pairs, each with a target."""
    batch = {
        "labels": torch.tensor(labels),
        "rationale_embedding": torch.ones(2, 2, DIM),
        "rationale_mask": torch.ones(2, 2, dtype=torch.bool),
        "votes": torch.full((2, 4), 0.25),
    }
    return Step(outputs=model(IDS), augmented=None, batch=batch, class_weights=None)


def total(
    guide: dict[str, object], done: int = 5, labels: tuple[int, ...] = (1, 3)
) -> tuple[float, dict[str, float], float]:
    """Return loss, parts and ratio of step `done` of 10."""
    model = make_model(latent_names=("a", "b"))
    objective = get_method("lrkd").objective(StudentConfig(guide=guide), Shapes(hidden=32, latents=2, dim=DIM))
    loss, parts = objective(model, answer(model, labels), done=done, steps=10)
    return loss.item(), {name: part.item() for name, part in parts.items()}, objective.ratio.item()


def test_the_loss_is_the_weighted_sum_of_the_parts() -> None:
    loss, parts, _ = total({"weight": 0.3, "orthogonality": 0.2})
    assert list(parts) == ["class_loss", "guide_loss", "orthogonality"]
    assert loss == pytest.approx(parts["class_loss"] + 0.3 * parts["guide_loss"] + 0.2 * parts["orthogonality"])


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.5, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]), (0.0, [1.0] * 7), (1.0, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])],
)
def test_lambda_rises_linearly_by_step(ratio: float, expected: list[float]) -> None:
    for done, share in enumerate(expected):
        loss, parts, _ = total({"weight": 3.0, "warmup_ratio": ratio}, done)
        assert loss == pytest.approx(parts["class_loss"] + 3.0 * share * parts["guide_loss"], rel=1e-5)


def test_at_first_the_guide_is_trained_alone_at_its_full_weight() -> None:
    options = {"weight": 0.3, "align_ratio": 0.4, "warmup_ratio": 0.8, "orthogonality": 0.2, "balance": "gradient_norm"}
    for done in range(4):
        loss, parts, ratio = total(options, done)
        assert loss == pytest.approx(0.3 * parts["guide_loss"] + 0.2 * parts["orthogonality"])
        assert ratio == 1.0
    loss, parts, ratio = total(options, 4)
    rest = parts["class_loss"] + 0.2 * parts["orthogonality"]
    assert ratio != 1.0
    assert loss == pytest.approx(rest + 0.3 * 0.5 * ratio * parts["guide_loss"])
    without = {key: value for key, value in options.items() if key != "orthogonality"}
    assert ratio == pytest.approx(total(without, 4)[2])  # The classifier's gradient is the measure, nothing else's.


def gradient(loss: Tensor, model: LatentReasoningForSequenceClassification) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.backbone.encoder.layer[-1].parameters() if p.grad is not None])


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_balance_makes_the_guides_gradient_weight_times_as_long_as_the_classifiers(weight: float) -> None:
    model = make_model(latent_names=("a", "b"))
    guide = {"weight": weight, "balance": "gradient_norm"}
    objective = get_method("lrkd").objective(StudentConfig(guide=guide), Shapes(hidden=32, latents=2, dim=DIM))
    loss, _ = objective(model, answer(model), done=0, steps=10)
    whole = gradient(loss, model)
    class_only, _ = get_method("bert").objective(StudentConfig(), Shapes(hidden=32, latents=0, dim=0))(
        model, answer(model), done=0, steps=10
    )
    classify = gradient(class_only, model)
    assert float((whole - classify).norm()) == pytest.approx(weight * float(classify.norm()), rel=1e-3)


def test_the_ratio_is_a_number_and_no_way_for_gradients() -> None:
    model = make_model(latent_names=("a", "b"))
    guide = {"balance": "gradient_norm"}
    objective = get_method("lrkd").objective(StudentConfig(guide=guide), Shapes(hidden=32, latents=2, dim=DIM))
    objective(model, answer(model), done=0, steps=10)
    assert not objective.ratio.requires_grad
    assert "ratio" in objective.state_dict()


def test_a_batch_without_a_label_keeps_the_last_ratio() -> None:
    model = make_model(latent_names=("a", "b"))
    guide = {"weight": 0.5, "balance": "gradient_norm"}
    objective = get_method("lrkd").objective(StudentConfig(guide=guide), Shapes(hidden=32, latents=2, dim=DIM))
    objective(model, answer(model), done=0, steps=10)
    before = objective.ratio.item()
    loss, parts = objective(model, answer(model, (-100, -100)), done=1, steps=10)
    assert objective.ratio.item() == before != 1.0
    assert loss.item() == pytest.approx(0.5 * before * parts["guide_loss"].item(), rel=1e-5)


def test_the_norm_of_a_gradient_leaves_the_graph_for_the_step() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    unused = torch.nn.Parameter(torch.ones(1))
    loss = weight.square().sum()
    assert gradient_norm(loss, [weight, unused]).item() == pytest.approx(10.0)
    assert gradient_norm(loss, [unused]).item() == 0.0
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [6.0, 8.0]


@pytest.mark.parametrize("kind", BACKBONES)
def test_the_last_layer_is_the_one_whose_weights_move_the_output_last(kind: str) -> None:
    backbone = AutoModel.from_config(deepcopy(BACKBONES[kind]))
    layers = [name for name, module in backbone.named_modules() if module is last_layer(backbone)]
    assert len(layers) == 1 and layers[0].endswith(".1")


def test_a_backbone_without_a_list_of_layers_is_refused() -> None:
    backbone = AutoModel.from_config(deepcopy(BACKBONES["bert"]))
    backbone.encoder.layer = backbone.encoder.layer[:1]
    with pytest.raises(StudentError, match="BertModel has no list of 2 layers"):
        last_layer(backbone)
