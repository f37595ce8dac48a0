"""Losses: the cross-entropy of the classes, and the guide: how far a latent is from the rationale's vector.

The paper writes the guide as "MSE" and publishes neither its reduction nor its scale. That decides
everything: between two unit vectors of 1,024 dimensions the mean over dimensions is at most 4/1024, so that
lambda = 0.1 does nothing. The reduction is therefore part of the loss's name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from manylens.errors import UnknownNameError

#: The label of a pair that nobody labelled.
IGNORED_LABEL = -100

#: From (..., dim) latents and targets to (...) distances.
GuideDistance = Callable[[Tensor, Tensor], Tensor]


def squared_distance(latents: Tensor, targets: Tensor) -> Tensor:
    """Return ``sum_d (r_d - e_d)^2``: MSE with a sum over dimensions."""
    return (latents - targets).square().sum(dim=-1)


def mse(latents: Tensor, targets: Tensor) -> Tensor:
    """Return ``mean_d (r_d - e_d)^2``: the literal mean squared error."""
    return (latents - targets).square().mean(dim=-1)


def cosine(latents: Tensor, targets: Tensor) -> Tensor:
    """Return ``1 - cos(r, e)``, which leaves the latent's length free."""
    return 1.0 - cosine_similarity(latents, targets, dim=-1)


GUIDE_LOSSES: dict[str, GuideDistance] = {"squared_distance": squared_distance, "mse": mse, "cosine": cosine}


def guide_loss(name: str, latents: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the guide loss of a batch: the mean distance over the latents that have a target.

    Args:
        name: A key of `GUIDE_LOSSES`.
        latents: (batch, latents, dim).
        targets: (batch, latents, dim); rows without a rationale may hold anything finite.
        mask: (batch, latents) bool, true where there is a rationale.

    Returns:
        A scalar; 0 where no latent of the batch has a target.

    Raises:
        UnknownNameError: If there is no such loss.
    """
    if name not in GUIDE_LOSSES:
        raise UnknownNameError("guide loss", name, GUIDE_LOSSES)
    distances = GUIDE_LOSSES[name](latents.float(), targets.float())
    weights = mask.to(distances.dtype)
    return (distances * weights).sum() / weights.sum().clamp(min=1.0)


def class_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over the labelled pairs of a batch.

    PyTorch's own mean is not a number for a batch without a label, which a partly labelled data set has.

    Args:
        logits: (batch, classes).
        labels: (batch,) class indices, or `IGNORED_LABEL`.
        class_weights: (classes,); the mean is weighted by them. ``None`` means equal weights.

    Returns:
        A scalar; 0 where no pair has a label.
    """
    logits = logits.float()
    weights = logits.new_ones(logits.shape[-1]) if class_weights is None else class_weights
    total = cross_entropy(logits, labels, weight=weights, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / weights[labels[labels != IGNORED_LABEL]].sum().clamp(min=torch.finfo(total.dtype).tiny)
