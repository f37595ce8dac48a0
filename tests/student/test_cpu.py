from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from manylens.records import ESCI
from manylens.student.cpu import ATTENTION, Dropout, attention, drop, train_on_cpu
from manylens.student.train import train_student

from .build import BACKBONES, PAD, make_config, make_pairs

IDS = torch.tensor([[2, 5, 7, 3, 6, 3, PAD, PAD], [2, 9, 3, 5, 7, 6, 5, 3]])


def fresh(kind: str, attention_name: str = "eager") -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModel.from_config(deepcopy(BACKBONES[kind]), attn_implementation=attention_name)


def states_and_gradient(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    states = model(input_ids=IDS, attention_mask=(IDS != PAD).long()).last_hidden_state[IDS != PAD]
    model.zero_grad()
    (states * torch.arange(states.shape[-1])).sum().backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient is not None
    return states.detach(), gradient


@pytest.mark.parametrize("kind", list(BACKBONES))
def test_states_and_gradients_are_those_of_the_eager_attention(kind: str) -> None:
    model = fresh(kind).eval()
    expected = states_and_gradient(model)
    train_on_cpu(model)
    assert model.config._attn_implementation == ATTENTION
    for found, wanted in zip(states_and_gradient(model), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", list(BACKBONES))
def test_under_autocast_the_states_stay_as_near_to_full_precision_as_those_of_the_eager_attention(
    kind: str,
) -> None:
    model = fresh(kind).eval()
    full = states_and_gradient(model)[0]
    errors = []
    for name in ("eager", ATTENTION):
        model.set_attn_implementation(name)
        with torch.autocast("cpu", torch.bfloat16):
            errors.append((states_and_gradient(model)[0] - full).square().mean().item())
    assert 0.0 < errors[1] < 1.5 * errors[0]


def test_attention_is_pytorchs_with_fewer_heads_for_keys_too() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None]
    for given in (mask, None):
        found, _ = attention(nn.Identity(), query, key, value, given)
        expected = nn.functional.scaled_dot_product_attention(query, key, value, given, enable_gqa=True)
        torch.testing.assert_close(found, expected.transpose(1, 2))


def test_attention_weights_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    query, value = torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 10_000, 4)
    layer = nn.Identity()
    # Every key has the weight 1 / 10,000: with half of them dropped and doubled, the sum is 1 but for chance.
    dropped = attention(layer.train(), query, torch.zeros_like(value), value, None, dropout=0.5)[0]
    assert dropped[0, 0, 0, 0].item() != 1.0 and dropped[0, 0, 0, 0].item() == pytest.approx(1.0, abs=0.05)
    whole = attention(layer.eval(), query, torch.zeros_like(value), value, None, dropout=0.5)[0]
    assert whole[0, 0, 0, 0].item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_at_random_and_keeps_the_mean(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(333, 301, dtype=dtype, requires_grad=True)  # No multiple of four.
    dropped = drop(values, probability)
    kept = dropped > 0.0
    # Five standard deviations of a share of 100,233 draws.
    assert kept.float().mean().item() == pytest.approx(1.0 - probability, abs=0.008)
    assert dropped[kept].unique().numel() == 1
    assert dropped[kept][0].item() == pytest.approx(1.0 / (1.0 - probability), rel=4e-3)
    neighbours = torch.stack([kept.flatten()[0::2][:50_000], kept.flatten()[1::2][:50_000]]).float()
    assert abs(torch.corrcoef(neighbours)[0, 1].item()) < 0.025
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, dropped.detach())


def test_dropout_at_its_ends_and_outside_training() -> None:
    values = torch.randn(7)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(Dropout(1.0)(values), torch.zeros(7))
    assert torch.equal(drop(values, 0.0), values)


def test_every_dropout_of_the_backbone_is_taken_over() -> None:
    model = fresh("bert")
    before = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    train_on_cpu(model, choose_attention=False)
    assert model.config._attn_implementation == "eager"
    after = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert {type(module) for module in after} == {Dropout} and [module.p for module in after] == before


def test_nothing_of_it_is_saved(backbone: str, tmp_path: Path) -> None:
    pairs = make_pairs(8)
    train_student(pairs, pairs, ESCI, make_config(backbone), method="bert", seed=1, folder=tmp_path / "student")
    assert ATTENTION not in (tmp_path / "student/config.json").read_text()
