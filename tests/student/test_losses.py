from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import UnknownNameError
from manylens.student.losses import (
    GUIDE_LOSSES,
    IGNORED_LABEL,
    class_loss,
    cosine,
    guide_loss,
    info_nce,
    mse,
    orthogonality,
    soft_label_loss,
    squared_distance,
)

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


def test_weights_of_pairs_weigh_the_mean() -> None:
    latents, targets = torch.tensor([[[1.0, 0]], [[3.0, 0]], [[9.0, 9]]]), torch.zeros(3, 1, 2)
    mask = torch.tensor([[True], [True], [False]])
    loss = guide_loss("squared_distance", latents, targets, mask, weights=torch.tensor([1.0, 0.5, 1.0]))
    assert loss.item() == pytest.approx((1 * 1 + 0.5 * 9) / 1.5)


def test_info_nce_by_hand() -> None:
    # cos(r_1, .) = (1, 0), cos(r_2, .) = (0.6, 0.8); the length of neither side counts.
    latents = torch.tensor([[[2.0, 0.0]], [[0.6, 0.8]]])
    targets = torch.tensor([[[3.0, 0.0]], [[0.0, 0.5]]])
    losses = info_nce(latents, targets, torch.ones(2, 1, dtype=torch.bool), 0.5)
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(0)))
    second = -math.log(math.exp(1.6) / (math.exp(1.2) + math.exp(1.6)))
    assert losses[:, 0].tolist() == pytest.approx([first, second], rel=1e-5)
    mean = guide_loss("info_nce", latents, targets, torch.ones(2, 1, dtype=torch.bool), temperature=0.5)
    assert mean.item() == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("latents", [1, 3])
def test_info_nce_is_the_cross_entropy_of_its_own_row_for_each_latent(latents: int) -> None:
    torch.manual_seed(0)
    r, e = torch.randn(5, latents, 4), torch.randn(5, latents, 4)
    losses = info_nce(r, e, torch.ones(5, latents, dtype=torch.bool), 0.1)
    for latent in range(latents):
        cosines = torch.nn.functional.cosine_similarity(r[:, None, latent], e[None, :, latent], dim=-1)
        expected = torch.nn.functional.cross_entropy(cosines / 0.1, torch.arange(5), reduction="none")
        torch.testing.assert_close(losses[:, latent], expected, rtol=1e-4, atol=1e-5)


def test_info_nce_compares_with_no_absent_target_and_no_equal_one() -> None:
    torch.manual_seed(0)
    r, e = torch.randn(5, 1, 4), torch.randn(5, 1, 4)
    e[4] = e[0]  # As a target made of the label's name is that of all pairs with the label.
    mask = torch.tensor([[True], [True], [False], [True], [True]])
    losses = info_nce(r, e, mask, 0.1)
    for row, others in {0: (0, 1, 3), 1: (1, 0, 3, 4), 4: (4, 1, 3)}.items():
        cosines = torch.nn.functional.cosine_similarity(r[row, 0], e[list(others), 0], dim=-1)
        expected = torch.nn.functional.cross_entropy(cosines[None] / 0.1, torch.tensor([0]))
        assert losses[row, 0].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


def test_latents_that_find_their_targets_cost_little_and_the_only_target_costs_nothing() -> None:
    targets = torch.eye(4)[:, None]
    mask = torch.ones(4, 1, dtype=torch.bool)
    assert guide_loss("info_nce", targets, targets, mask, temperature=0.05).item() < 1e-6
    assert guide_loss("info_nce", -targets, targets, mask, temperature=0.05).item() > 10
    assert info_nce(torch.randn(1, 1, 4), torch.randn(1, 1, 4), mask[:1], 0.05).item() == 0.0


def test_orthogonality_by_hand() -> None:
    # Cosines between the latents: 0.6, 0 and 0.8 in the first pair, all 1 in the second.
    latents = torch.tensor([[[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    assert orthogonality(latents).item() == pytest.approx(((0.36 + 0 + 0.64) / 3 + 1) / 2, rel=1e-5)
    assert orthogonality(latents[:, :1]).item() == 0.0


def test_soft_label_loss_by_hand() -> None:
    votes = torch.tensor([[0.75, 0.25], [0.0, 0.0]])
    logits = torch.tensor([[0.0, 0.0], [9.0, -9.0]])
    # No smoothing, T = 1: KL((3/4, 1/4) || (1/2, 1/2)); the second pair has no votes.
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_label_loss(logits, votes, temperature=1.0, smoothing=0.0).item() == pytest.approx(expected, rel=1e-5)
    # T = 2: p_T = (sqrt 3, 1) / (sqrt 3 + 1), times 4.
    first = math.sqrt(3) / (math.sqrt(3) + 1)
    expected = 4 * (first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first)))
    assert soft_label_loss(logits, votes, temperature=2.0, smoothing=0.0).item() == pytest.approx(expected, rel=1e-5)
    # s = 0.2: p = 0.8 (3/4, 1/4) + 0.1 = (0.7, 0.3).
    expected = 0.7 * math.log(1.4) + 0.3 * math.log(0.6)
    assert soft_label_loss(logits, votes, temperature=1.0, smoothing=0.2).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_label_loss_of_a_unanimous_panel_is_finite(smoothing: float) -> None:
    logits = torch.tensor([[0.3, -0.2, 1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    votes = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    loss = soft_label_loss(logits, votes, temperature=1.0, smoothing=smoothing)
    loss.backward()
    if not smoothing:
        assert loss.item() == pytest.approx(-logits[0].log_softmax(-1)[1].item(), rel=1e-5)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1].any()


def test_soft_label_loss_without_votes_is_zero() -> None:
    assert soft_label_loss(torch.randn(2, 3), torch.zeros(2, 3), temperature=2.0, smoothing=0.0).item() == 0.0


@given(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3), st.floats(0.5, 4), st.floats(0, 0.5))
def test_soft_label_loss_is_zero_where_the_student_says_what_the_panel_says(
    votes: list[float], temperature: float, smoothing: float
) -> None:
    shares = torch.tensor([votes]).softmax(-1)
    teacher = (1 - smoothing) * shares + smoothing / 3
    loss = soft_label_loss(teacher.log(), shares, temperature=temperature, smoothing=smoothing)
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
