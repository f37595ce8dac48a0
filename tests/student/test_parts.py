from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from manylens.config import StudentConfig
from manylens.student.model import LatentReasoningOutput
from manylens.student.parts import (
    AugmentedClassLoss,
    ClassLoss,
    ClsGuide,
    Contrast,
    Guide,
    HardLabels,
    Orthogonality,
    RationaleProjection,
    Shapes,
    SoftLabels,
    Step,
    agreement,
)

SHAPES = Shapes(hidden=4, latents=2, dim=3)


def make_outputs(seed: int = 0) -> LatentReasoningOutput:
    random = torch.Generator().manual_seed(seed)
    return LatentReasoningOutput(
        logits=torch.randn(3, 4, generator=random),
        latents=torch.randn(3, 2, 3, generator=random),
        pooled=torch.randn(3, 4, generator=random),
    )


def make_step(**changes: object) -> Step:
    """Return a step of three pairs: the second has no label, the third no target, no vote and no text."""
    batch: dict[str, Tensor] = {
        "labels": torch.tensor([1, -100, 3]),
        "rationale_embedding": torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 0]], [[0.0] * 3] * 2]),
        "rationale_mask": torch.tensor([[True, True], [True, False], [False, False]]),
        "votes": torch.tensor([[0.5, 0.5, 0, 0], [1.0, 0, 0, 0], [0.0] * 4]),
        "has_text": torch.tensor([True, True, False]),
    }
    return Step(
        **{"outputs": make_outputs(), "augmented": make_outputs(1), "batch": batch, "class_weights": None, **changes}
    )


def config(**options: object) -> StudentConfig:
    return StudentConfig(**options)


@pytest.mark.parametrize("part", [ClassLoss, HardLabels])
def test_class_loss_is_of_the_labelled_pairs(part: type[ClassLoss]) -> None:
    step = make_step()
    expected = cross_entropy(step.outputs.logits[[0, 2]], torch.tensor([1, 3]))
    assert part(config(), SHAPES)(step).item() == pytest.approx(expected.item())


def test_class_loss_is_weighted_by_class() -> None:
    weights = torch.tensor([1.0, 3.0, 1.0, 0.5])
    step = make_step(class_weights=weights)
    labels = torch.tensor([1, 3])
    expected = cross_entropy(step.outputs.logits[[0, 2]], labels, weight=weights)
    assert ClassLoss(config(), SHAPES)(step).item() == pytest.approx(expected.item())


def test_soft_labels_take_temperature_and_smoothing_of_the_recipe() -> None:
    step = make_step()
    part = SoftLabels(config(earlier={"temperature": 3.0, "smoothing": 0.2}), SHAPES)
    p = 0.8 * step.batch["votes"][:2] + 0.05
    p = p ** (1 / 3) / (p ** (1 / 3)).sum(-1, keepdim=True)
    q = (step.outputs.logits[:2] / 3).softmax(-1)
    expected = 9 * (p * (p / q).log()).sum(-1).mean()
    assert part(step).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_rationale_is_projected_from_cls() -> None:
    step = make_step()
    part = RationaleProjection(config(), SHAPES)
    projected = (step.outputs.pooled @ part.project.weight.T + part.project.bias).reshape(3, 2, 3)
    squares = (projected - step.batch["rationale_embedding"]).square().sum(-1)
    expected = (squares[0, 0] + squares[0, 1] + squares[1, 0]) / 3
    assert part(step).item() == pytest.approx(expected.item(), rel=1e-5)


def test_contrast_finds_the_augmented_view_of_the_same_pair() -> None:
    step = make_step()
    part = Contrast(config(earlier={"contrast_temperature": 0.5}), SHAPES)
    plain, augmented = step.outputs.pooled[:2], step.augmented.pooled[:2]
    cosines = cosine_similarity(plain[:, None], augmented[None], dim=-1)
    expected = cross_entropy(cosines / 0.5, torch.tensor([0, 1]))
    assert part(step).item() == pytest.approx(expected.item(), rel=1e-5)


def test_contrast_of_a_batch_without_a_text_is_zero() -> None:
    step = make_step()
    step.batch["has_text"].fill_(False)
    assert Contrast(config(), SHAPES)(step).item() == 0.0
    assert AugmentedClassLoss(config(), SHAPES)(step).item() == 0.0


def test_the_augmented_view_is_classified_where_label_and_text_are_known() -> None:
    step = make_step()
    expected = cross_entropy(step.augmented.logits[:1], torch.tensor([1]))
    assert AugmentedClassLoss(config(), SHAPES)(step).item() == pytest.approx(expected.item())


def test_the_guide_compares_the_latents() -> None:
    step = make_step()
    squares = (step.outputs.latents - step.batch["rationale_embedding"]).square().sum(-1)
    expected = (squares[0, 0] + squares[0, 1] + squares[1, 0]) / 3
    assert Guide(config(), SHAPES)(step).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_guide_is_weighed_by_the_panels_agreement() -> None:
    step = make_step()
    squares = (step.outputs.latents - step.batch["rationale_embedding"]).square().sum(-1)
    expected = (0.5 * squares[0, 0] + 0.5 * squares[0, 1] + 1.0 * squares[1, 0]) / 2.0
    part = Guide(config(guide={"weigh_by": "agreement"}), SHAPES)
    assert part(step).item() == pytest.approx(expected.item(), rel=1e-5)


def test_agreement_is_the_majoritys_share_and_one_where_nobody_voted() -> None:
    votes = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.0, 0.0]])
    assert agreement(votes).tolist() == [0.75, 1.0, 1.0]


def test_the_guide_takes_loss_and_temperature_of_the_recipe() -> None:
    step = make_step()
    part = Guide(config(guide={"loss": "info_nce", "temperature": 0.5}), SHAPES)
    first = cosine_similarity(step.outputs.latents[:2, None, 0], step.batch["rationale_embedding"][None, :2, 0], dim=-1)
    # The second latent has one target in the batch, which costs nothing.
    losses = cross_entropy(first / 0.5, torch.tensor([0, 1]), reduction="sum")
    assert part(step).item() == pytest.approx(losses.item() / 3, rel=1e-5)


@pytest.mark.parametrize("hidden", [4, 3])
def test_cls_itself_is_compared_and_mapped_only_where_the_widths_differ(hidden: int) -> None:
    outputs = make_outputs()
    outputs.pooled = outputs.pooled[:, :hidden]
    step = make_step(outputs=outputs)
    part = ClsGuide(config(), Shapes(hidden=hidden, latents=2, dim=3))
    compared = outputs.pooled
    if hidden != 3:
        compared = compared @ part.project.weight.T + part.project.bias
    squares = (compared[:, None] - step.batch["rationale_embedding"]).square().sum(-1)
    expected = (squares[0, 0] + squares[0, 1] + squares[1, 0]) / 3
    assert part(step).item() == pytest.approx(expected.item(), rel=1e-5)


def test_orthogonality_is_of_the_latents() -> None:
    step = make_step()
    cosines = cosine_similarity(step.outputs.latents[:, 0], step.outputs.latents[:, 1], dim=-1)
    assert Orthogonality(config(), SHAPES)(step).item() == pytest.approx(cosines.square().mean().item(), rel=1e-5)
