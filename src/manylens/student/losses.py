"""Losses: plain functions of tensors, each a mean over what the batch has of its kind.

The paper writes the guide as "MSE" and publishes neither its reduction nor its scale. That decides
everything: between two unit vectors of 1,024 dimensions the mean over dimensions is at most 4/1024, so that
lambda = 0.1 does nothing. The reduction is therefore part of the loss's name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from manylens.errors import UnknownNameError

#: The label of a pair that nobody labelled.
IGNORED_LABEL = -100

#: From (batch, latents, dim) latents and targets, a (batch, latents) mask and a temperature to (batch, latents) losses.
GuideLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def squared_distance(latents: Tensor, targets: Tensor) -> Tensor:
    """Return ``sum_d (r_d - e_d)^2``: MSE with a sum over dimensions."""
    return (latents - targets).square().sum(dim=-1)


def mse(latents: Tensor, targets: Tensor) -> Tensor:
    """Return ``mean_d (r_d - e_d)^2``: the literal mean squared error."""
    return (latents - targets).square().mean(dim=-1)


def cosine(latents: Tensor, targets: Tensor) -> Tensor:
    """Return ``1 - cos(r, e)``, which leaves the latent's length free."""
    return 1.0 - cosine_similarity(latents, targets, dim=-1)


def info_nce(latents: Tensor, targets: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss by which each latent finds its own target among those of the batch.

    ``-log(exp(cos(r_i, e_i) / t) / sum_k exp(cos(r_i, e_k) / t))`` (van den Oord et al., arXiv 1807.03748, eq. 4), over
    the k that have a target. It goes one way, from latents to targets: the targets are fixed, and nobody looks
    for a latent by a rationale. An equal target of another pair is left out: it is no wrong answer.

    Args:
        latents: (batch, latents, dim).
        targets: (batch, latents, dim); a latent is compared with the targets of its own place.
        mask: (batch, latents) bool, true where there is a target.
        temperature: t.

    Returns:
        (batch, latents); 0 where a latent's target is the only one.
    """
    anchors, candidates = (normalize(vectors, dim=-1).transpose(0, 1) for vectors in (latents, targets))
    logits = anchors @ candidates.transpose(1, 2) / temperature
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    by_latent = targets.transpose(0, 1)
    equal = (by_latent[:, :, None] == by_latent[:, None, :]).all(dim=-1)
    compared = (mask.T[:, None, :] & ~equal) | itself
    logits = logits.masked_fill(~compared, -torch.inf)
    losses: Tensor = logits.logsumexp(dim=-1) - logits.diagonal(dim1=-2, dim2=-1)
    return losses.T


def _apart(distance: Callable[[Tensor, Tensor], Tensor]) -> GuideLoss:
    """Make a guide loss of a distance, in which the pairs of a batch do not see each other."""
    return lambda latents, targets, mask, temperature: distance(latents, targets)


GUIDE_LOSSES: dict[str, GuideLoss] = {
    "squared_distance": _apart(squared_distance),
    "mse": _apart(mse),
    "cosine": _apart(cosine),
    "info_nce": info_nce,
}


def guide_loss(
    name: str,
    latents: Tensor,
    targets: Tensor,
    mask: Tensor,
    *,
    weights: Tensor | None = None,
    temperature: float = 0.05,
) -> Tensor:
    """Return the guide loss of a batch: the mean over the latents that have a target.

    Args:
        name: A key of `GUIDE_LOSSES`.
        latents: (batch, latents, dim).
        targets: (batch, latents, dim); rows without a rationale may hold anything finite.
        mask: (batch, latents) bool, true where there is a rationale.
        weights: (batch,) weights of the pairs in the mean. ``None`` means equal ones.
        temperature: Of ``info_nce``.

    Returns:
        A scalar; 0 where no latent of the batch has a target.

    Raises:
        UnknownNameError: If there is no such loss.
    """
    if name not in GUIDE_LOSSES:
        raise UnknownNameError("guide loss", name, GUIDE_LOSSES)
    losses = GUIDE_LOSSES[name](latents.float(), targets.float(), mask, temperature)
    shares = mask.to(losses.dtype) if weights is None else mask * weights[:, None]
    return _weighted_mean(losses, shares)


def orthogonality(latents: Tensor) -> Tensor:
    """Return the mean squared cosine between two latents of a pair, which is 0 where all are orthogonal.

    Args:
        latents: (batch, latents, dim).

    Returns:
        A scalar; 0 for a single latent.
    """
    count = latents.shape[1]
    if count < 2:
        return latents.float().sum() * 0.0
    directions = normalize(latents.float(), dim=-1)
    squares = (directions @ directions.transpose(1, 2)).square()
    others = ~torch.eye(count, dtype=torch.bool, device=latents.device)
    return squares[:, others].mean()


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


def soft_label_loss(logits: Tensor, votes: Tensor, *, temperature: float, smoothing: float) -> Tensor:
    """Return ``T^2 KL(p_T || softmax(z / T))``, the mean over the pairs that have votes.

    Hinton et al., arXiv 1503.02531, section 2. A panel has votes and no logits: with s = `smoothing` and C classes
    p = (1 - s) votes + s / C, and log p stands for the teacher's logits, so that p_T is p^(1/T), normalised.

    Args:
        logits: (batch, classes), z.
        votes: (batch, classes) shares of the panel; a row of zeros where it did not judge.
        temperature: T.
        smoothing: s, at least 0; at 0 a class without a vote gets no mass at any temperature.

    Returns:
        A scalar; 0 where no pair has votes.
    """
    known = votes.sum(dim=-1) > 0
    shares = torch.where(known[:, None], votes.float(), 1.0 / votes.shape[-1])
    teacher = (1.0 - smoothing) * shares + smoothing / votes.shape[-1]
    wanted = (teacher.log() / temperature).log_softmax(dim=-1)
    given = (logits.float() / temperature).log_softmax(dim=-1)
    # exp(-inf) * -inf is not a number: a class that gets no mass costs nothing.
    divergence = torch.where(wanted.exp() > 0, wanted.exp() * (wanted - given), 0.0).sum(dim=-1)
    return temperature**2 * _weighted_mean(divergence, known.to(divergence.dtype))


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=torch.finfo(values.dtype).tiny)
