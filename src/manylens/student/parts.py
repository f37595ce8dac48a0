"""Parts: the named losses that methods are made of.

Each is a module, because some have a head of their own: a projection that exists in training only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from manylens.config import StudentConfig
from manylens.student.losses import (
    IGNORED_LABEL,
    class_loss,
    guide_loss,
    info_nce,
    orthogonality,
    soft_label_loss,
    squared_distance,
)
from manylens.student.model import LatentReasoningOutput

#: What a part reads of the targets of a pair.
Need = Literal["vectors", "votes", "texts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shapes:
    """The sizes that heads depend on.

    Attributes:
        hidden: Width of the token states.
        latents: Targets of a pair.
        dim: Dimension of a target.
    """

    hidden: int
    latents: int
    dim: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What the parts of a loss see of a batch.

    Attributes:
        outputs: The model's answer to the pairs.
        augmented: Its answer to query, product and rationale together, where the batch has them.
        batch: What `StudentCollator` made.
        class_weights: (classes,) weights of the cross-entropy, if any.
    """

    outputs: LatentReasoningOutput
    augmented: LatentReasoningOutput | None
    batch: Mapping[str, Tensor]
    class_weights: Tensor | None


class Part(nn.Module):
    """One named part of a loss.

    Args:
        config: The student's section of the recipe.
        shapes: Sizes for a head.

    Attributes:
        needs: What it reads of the targets; a pair that has none of it, and no label, teaches nothing.
        section: The section of ``student`` that it reads, beside the training options.
        weight: Its factor in the sum; a part of weight 0 is left out.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    section: ClassVar[Literal["guide", "earlier"] | None] = None

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Keep the weight; subclasses make their head."""
        super().__init__()
        self.weight = 1.0

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        raise NotImplementedError


class ClassLoss(Part):
    """Cross-entropy of the labelled pairs."""

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        return class_loss(_logits(step.outputs), step.batch["labels"], step.class_weights)


class HardLabels(ClassLoss):
    """Cross-entropy beside soft labels: its share is what `earlier.soft_label_weight` leaves."""

    section = "earlier"

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Keep the weight."""
        super().__init__(config, shapes)
        self.weight = 1.0 - config.earlier.soft_label_weight


class SoftLabels(Part):
    """Divergence from the panel's votes; see `soft_label_loss`."""

    needs = frozenset({"votes"})
    section = "earlier"

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Keep weight, temperature and smoothing."""
        super().__init__(config, shapes)
        self.weight = config.earlier.soft_label_weight
        self.temperature, self.smoothing = config.earlier.temperature, config.earlier.smoothing

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        return soft_label_loss(
            _logits(step.outputs), step.batch["votes"], temperature=self.temperature, smoothing=self.smoothing
        )


class RationaleProjection(Part):
    """Squared distance between a linear map of h and the rationale's vector; the map is dropped after training."""

    needs = frozenset({"vectors"})
    section = "earlier"

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Create the map."""
        super().__init__(config, shapes)
        self.weight = config.earlier.rationale_weight
        self.project = nn.Linear(shapes.hidden, shapes.latents * shapes.dim)

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        targets = step.batch["rationale_embedding"]
        projected = self.project(_pooled(step.outputs)).unflatten(-1, targets.shape[1:])
        return guide_loss(squared_distance.__name__, projected, targets, step.batch["rationale_mask"])


class Contrast(Part):
    """InfoNCE between the h of a pair and that of the same pair with its rationale, among those of the batch."""

    needs = frozenset({"texts"})
    section = "earlier"

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Keep weight and temperature."""
        super().__init__(config, shapes)
        self.weight, self.temperature = config.earlier.contrast_weight, config.earlier.contrast_temperature

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        assert step.augmented is not None
        plain, augmented = (_pooled(outputs)[:, None].float() for outputs in (step.outputs, step.augmented))
        has_text = step.batch["has_text"]
        losses = info_nce(plain, augmented, has_text[:, None], self.temperature)[:, 0]
        return (losses * has_text).sum() / has_text.sum().clamp(min=1)


class AugmentedClassLoss(Part):
    """Cross-entropy of the labelled pairs that the student reads together with their rationale."""

    needs = frozenset({"texts"})

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        assert step.augmented is not None
        labels = step.batch["labels"].masked_fill(~step.batch["has_text"], IGNORED_LABEL)
        return class_loss(_logits(step.augmented), labels, step.class_weights)


class Guide(Part):
    """The guide loss: how far the latents are from the rationales' vectors."""

    needs = frozenset({"vectors"})
    section = "guide"

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Keep the options; the weight is the final lambda."""
        super().__init__(config, shapes)
        self.weight = config.guide.weight
        self.loss, self.temperature = config.guide.loss, config.guide.temperature
        self.by_agreement = config.guide.weigh_by == "agreement"

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        return guide_loss(
            self.loss,
            self.latents(step),
            step.batch["rationale_embedding"],
            step.batch["rationale_mask"],
            weights=agreement(step.batch["votes"]) if self.by_agreement else None,
            temperature=self.temperature,
        )

    def latents(self, step: Step) -> Tensor:
        """Return what is compared with the targets, of shape (batch, latents, dim)."""
        assert step.outputs.latents is not None
        return step.outputs.latents


class ClsGuide(Guide):
    """The guide loss of h itself; by a linear map, dropped after training, only where the widths differ."""

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Create the map, if any."""
        super().__init__(config, shapes)
        same = shapes.hidden == shapes.dim
        self.project: nn.Module = nn.Identity() if same else nn.Linear(shapes.hidden, shapes.dim)

    def latents(self, step: Step) -> Tensor:
        """Return h once for each target."""
        projected: Tensor = self.project(_pooled(step.outputs))
        return projected[:, None].expand_as(step.batch["rationale_embedding"])


class Orthogonality(Part):
    """Squared cosines between the latents of a pair, which keep several latents from saying the same."""

    section = "guide"

    def __init__(self, config: StudentConfig, shapes: Shapes) -> None:
        """Keep the weight: 0 for a single latent, which has nothing to be orthogonal to."""
        super().__init__(config, shapes)
        self.weight = config.guide.orthogonality if shapes.latents > 1 else 0.0

    def forward(self, step: Step) -> Tensor:
        """Return the unweighted loss, a scalar."""
        assert step.outputs.latents is not None
        return orthogonality(step.outputs.latents)


def agreement(votes: Tensor) -> Tensor:
    """Return the share of the panel that agrees with its majority, and 1 where it did not judge.

    Args:
        votes: (batch, classes) shares, or a row of zeros.

    Returns:
        (batch,).
    """
    return torch.where(votes.sum(dim=-1) > 0, votes.amax(dim=-1), 1.0)


def _logits(outputs: LatentReasoningOutput) -> Tensor:
    assert outputs.logits is not None
    return outputs.logits


def _pooled(outputs: LatentReasoningOutput) -> Tensor:
    assert outputs.pooled is not None
    return outputs.pooled
