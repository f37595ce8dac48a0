import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given, settings

from manylens.evaluation.calibration import TEMPERATURE_RANGE, expected_calibration_error, fit_temperature
from manylens.evaluation.predictions import Predictions
from manylens.records import ESCI

from .build import random_table, tables


def test_ece_by_hand() -> None:
    # Confidences 0.95 (right), 0.92 (wrong), 0.65 (right), 0.61 (right), 0.55 (wrong); ten bins.
    first = np.array([0.95, 0.92, 0.65, 0.61, 0.55])
    logits = np.log(np.column_stack([first, 1.0 - first]))
    gold = np.array([0, 1, 0, 0, 1])
    top, middle, low = abs(0.5 - 0.935), abs(1.0 - 0.63), abs(0.0 - 0.55)
    assert expected_calibration_error(logits, gold, bins=10) == pytest.approx((2 * top + 2 * middle + low) / 5)
    # In two bins all confidences share the upper one, and over- and underconfidence cancel.
    assert expected_calibration_error(logits, gold, bins=2) == pytest.approx(abs(3 / 5 - first.mean()))


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    # 0.5 lies in (0.25, 0.5]; with 0.7, in (0.5, 0.75], in one bin the two gaps would cancel.
    logits = np.log([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]])
    assert expected_calibration_error(logits, np.array([0, 1]), bins=4) == pytest.approx((0.5 + 0.7) / 2)


def test_temperature_by_hand() -> None:
    # Logits (4, 0) throughout, right in 3 of 4: the likelihood is best where sigmoid(4 / T) = 3/4.
    logits, gold = np.tile([4.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    temperature = fit_temperature(logits, gold)
    assert temperature == pytest.approx(4.0 / math.log(3.0), rel=1e-4)
    assert expected_calibration_error(logits, gold, 10, temperature) == pytest.approx(0.0, abs=1e-4)


def test_temperature_agrees_with_a_gradient_optimiser() -> None:
    predictions = Predictions.from_table(random_table(20, 10, seed=3, skill=1.0), ESCI)
    logits, gold = torch.tensor(predictions.logits), torch.tensor(predictions.gold)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([inverse], max_iter=100, tolerance_change=1e-14)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits * inverse, gold)
        value.backward()
        return value

    optimiser.step(loss)
    assert fit_temperature(predictions.logits, predictions.gold) == pytest.approx(1.0 / inverse.item(), rel=1e-3)


def test_logits_that_are_always_right_stop_at_the_lowest_temperature() -> None:
    temperature = fit_temperature(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert temperature == pytest.approx(TEMPERATURE_RANGE[0], rel=1e-3)


@settings(deadline=None)
@given(tables(min_size=3))
def test_scaling_leaves_decisions_alone_and_never_raises_the_loss(table: pa.Table) -> None:
    predictions = Predictions.from_table(table, ESCI)
    gaps = np.diff(np.sort(predictions.logits, axis=1))[:, -1]
    assume(not ((gaps > 0) & (gaps < 1e-6)).any())
    temperature = fit_temperature(predictions.logits, predictions.gold)
    assert ((predictions.logits / temperature).argmax(axis=1) == predictions.predicted).all()

    def loss(scale: float) -> float:
        return torch.nn.functional.cross_entropy(
            torch.tensor(predictions.logits / scale), torch.tensor(predictions.gold)
        ).item()

    assert loss(temperature) <= loss(1.0) + 1e-6


@settings(deadline=None)
@given(tables())
def test_ece_is_a_share(table: pa.Table) -> None:
    predictions = Predictions.from_table(table, ESCI)
    assert 0.0 <= expected_calibration_error(predictions.logits, predictions.gold, 10) <= 1.0
