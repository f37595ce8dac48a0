"""Calibration: the expected calibration error and temperature scaling.

Both follow Guo et al., "On Calibration of Modern Neural Networks" (2017, arXiv 1706.04599).
"""

from __future__ import annotations

import math

import numpy as np

from manylens.evaluation._optional import optional
from manylens.evaluation.predictions import FloatArray, IntArray

#: Temperatures that are tried. Logits that are always right would otherwise drive theirs to 0.
TEMPERATURE_RANGE = (0.05, 20.0)


def expected_calibration_error(logits: FloatArray, gold: IntArray, bins: int, temperature: float = 1.0) -> float:
    """Return the mean gap between confidence and accuracy (Guo et al. 2017, equation 3).

    Pairs fall into equal-width bins ``((m - 1) / bins, m / bins]`` by the probability of their top class; the
    error is ``sum_m |B_m| / n * |accuracy(B_m) - confidence(B_m)|``.

    Args:
        logits: Shape (pairs, classes).
        gold: Class indices, shape (pairs,).
        bins: Number of bins.
        temperature: Divides the logits.

    Returns:
        The error, in [0, 1].
    """
    confidence = optional("scipy.special").softmax(logits / temperature, axis=1).max(axis=1)
    correct = logits.argmax(axis=1) == gold
    bin_of = np.digitize(confidence, np.linspace(0.0, 1.0, bins + 1)[1:-1], right=True)
    # |B_m| * (accuracy - confidence) is the sum of (correct - confidence) over the bin.
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(gold))


def fit_temperature(logits: FloatArray, gold: IntArray) -> float:
    """Fit the one temperature that calibrates a student (Guo et al. 2017, section 4.2).

    Args:
        logits: Shape (pairs, classes), of pairs that neither trained nor test the student.
        gold: Class indices, shape (pairs,).

    Returns:
        The temperature in `TEMPERATURE_RANGE` that minimises the negative log-likelihood of
        ``softmax(logits / temperature)``.
    """
    log_softmax = optional("scipy.special").log_softmax
    rows = np.arange(len(gold))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / math.exp(log_temperature), axis=1)[rows, gold].mean())

    # The loss is convex in 1 / temperature, so it has one minimum over the logarithm too.
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)
    return math.exp(optional("scipy.optimize").minimize_scalar(loss, bounds=(low, high), method="bounded").x)
