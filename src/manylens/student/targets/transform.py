"""Transforms of targets, fitted on the training pairs and applied to all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import RidgeCV

Transform = Literal["none", "centre", "whiten", "residual"]
Vectors = NDArray[np.float32]
#: Ridge penalties that `residual` chooses from, by leave-one-out error on the training pairs.
_RIDGE_PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
_EPSILON = float(np.finfo(np.float32).eps)


def transform_targets(
    vectors: Vectors,
    mask: NDArray[np.bool_],
    train: NDArray[np.bool_],
    how: Transform,
    pair_vectors: Callable[[], Vectors],
) -> Vectors:
    """Transform the targets of each latent apart.

    With m the mean and S the Ledoit-Wolf covariance (a shrunk one, so that few pairs can bear it) of the training
    targets, S = U diag(s) U^T, and A, b the ridge regression from the pair's own vector p to its target:

        centre     e - m
        whiten     c diag(s)^(-1/2) U^T (e - m), with c such that the mean squared norm is 1
        residual   e - (A p + b)

    Args:
        vectors: (pairs, latents, dim).
        mask: (pairs, latents), where there is a target.
        train: (pairs), the training pairs.
        how: Which transform.
        pair_vectors: Returns the (pairs, dim) vectors of the pairs' own texts; only ``residual`` calls it.

    Returns:
        (pairs, latents, dim), zero where there is no target. A latent without a training target stays as it is.
    """
    if how == "none":
        return vectors
    texts = pair_vectors() if how == "residual" else None
    result = np.zeros_like(vectors)
    for latent in range(vectors.shape[1]):
        there = mask[:, latent]
        fit = train[there]
        targets = vectors[there, latent].astype(np.float64)
        if fit.any():
            if texts is not None:
                ridge = RidgeCV(alphas=_RIDGE_PENALTIES).fit(texts[there][fit], targets[fit])
                targets = targets - ridge.predict(texts[there])
            elif how == "whiten":
                targets = _whitened(targets, fit)
            else:
                targets = targets - targets[fit].mean(axis=0)
        result[there, latent] = targets
    return result


def _whitened(targets: NDArray[np.float64], fit: NDArray[np.bool_]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = targets - targets[fit].mean(axis=0)
    if np.abs(centred[fit]).max() < _EPSILON:
        return centred  # A single target, or equal ones, has no variance.
    covariance, _ = ledoit_wolf(centred[fit], assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    white: NDArray[np.float64] = centred @ axes / np.sqrt(np.maximum(variances, _EPSILON * variances.max()))
    scaled: NDArray[np.float64] = white / np.sqrt(np.square(white[fit]).sum(axis=1).mean())
    return scaled


def mean_squared_norm(vectors: Vectors, mask: NDArray[np.bool_], train: NDArray[np.bool_]) -> float:
    """Return the mean squared norm of the training targets, 0 where there is none."""
    norms = np.square(vectors.astype(np.float64)).sum(axis=2)[mask & train[:, None]]
    return float(norms.mean()) if norms.size else 0.0
