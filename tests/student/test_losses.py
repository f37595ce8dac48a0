from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import UnknownNameError
from manylens.student.losses import GUIDE_LOSSES, IGNORED_LABEL, class_loss, cosine, guide_loss, mse, squared_distance

LATENT, TARGET = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, 0.0, 0.0])
vectors = st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4).map(torch.tensor)


def test_distances_by_hand() -> None:
    assert squared_distance(LATENT, TARGET).item() == pytest.approx(1 + 4 + 4)
    assert mse(LATENT, TARGET).item() == pytest.approx(9 / 3)
    assert cosine(LATENT, TARGET).item() == pytest.approx(1 - 2 / (3 * 2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("squared_distance", (9 + 2 + 1) / 3),
        ("mse", (9 + 2 + 1) / 3 / 3),
        ("cosine", ((1 - 1 / 3) + 1 + (1 - 1 / math.sqrt(2))) / 3),
    ],
)
def test_guide_loss_is_the_mean_over_the_latents_that_have_a_target(name: str, expected: float) -> None:
    latents = torch.stack([torch.stack([LATENT, torch.tensor([1.0, 0, 0])]), torch.tensor([[1.0, 1, 0], [9.0, 9, 9]])])
    targets = torch.stack([torch.stack([TARGET, torch.tensor([0, 1.0, 0])]), torch.tensor([[1.0, 0, 0], [5.0, 0, 0]])])
    mask = torch.tensor([[True, True], [True, False]])
    assert guide_loss(name, latents, targets, mask).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", GUIDE_LOSSES)
def test_a_batch_without_a_target_costs_nothing_and_has_a_zero_gradient(name: str) -> None:
    latents = torch.zeros(2, 1, 3, requires_grad=True)
    loss = guide_loss(name, latents, torch.zeros(2, 1, 3), torch.zeros(2, 1, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert latents.grad is not None
    assert torch.equal(latents.grad, torch.zeros_like(latents))


@pytest.mark.parametrize("name", GUIDE_LOSSES)
def test_gradient_at_a_zero_target_is_finite(name: str) -> None:
    latents = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]], requires_grad=True)
    guide_loss(name, latents, torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool)).backward()
    assert latents.grad is not None
    assert torch.isfinite(latents.grad).all()


def test_half_precision_latents_are_compared_in_single_precision() -> None:
    latents, targets = torch.full((1, 1, 4096), 1.0, dtype=torch.bfloat16), torch.zeros(1, 1, 4096)
    loss = guide_loss("squared_distance", latents, targets, torch.ones(1, 1, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == 4096.0


def test_unknown_loss_names_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown guide loss 'cosin' \(did you mean 'cosine'\?\); known: squared"
    ):
        guide_loss("cosin", torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))


@given(vectors, vectors)
def test_squared_distance_is_dim_times_mse(latent: torch.Tensor, target: torch.Tensor) -> None:
    assert squared_distance(latent, target).item() == pytest.approx(4 * mse(latent, target).item(), rel=1e-5)


@given(vectors.filter(lambda vector: float(vector.norm()) > 1e-2), vectors, st.floats(0.1, 100))
def test_cosine_ignores_the_length_of_the_latent(latent: torch.Tensor, target: torch.Tensor, scale: float) -> None:
    assert cosine(latent * scale, target).item() == pytest.approx(cosine(latent, target).item(), abs=1e-5)


def test_class_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [5.0, 5.0]])  # p = (3/4, 1/4), (1/2, 1/2)
    labels = torch.tensor([0, 1, IGNORED_LABEL])
    assert class_loss(logits, labels).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    weighted = class_loss(logits, labels, torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx((1 * math.log(4 / 3) + 3 * math.log(2)) / 4)


def test_class_loss_of_a_batch_without_labels_is_zero_with_a_zero_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = class_loss(logits, torch.full((2,), IGNORED_LABEL))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(2, 3))
