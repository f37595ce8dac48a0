"""Objectives: the loss of a training step, as the sum of a method's parts, with lambda's schedule and balance.

The objective hangs on the model while that is trained, so the heads of its parts are in every checkpoint, and is taken
off before the student is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from manylens.config import GuideConfig
from manylens.errors import StudentError
from manylens.student.model import LatentReasoningForSequenceClassification
from manylens.student.parts import Part, Step


class Objective(nn.Module):
    """The loss of a step: ``sum_p w_p L_p + lambda L_guide``, with the schedule of lambda.

    Attributes:
        parts: The parts by name; the guide is called ``guide_loss``.
        ratio: Under ``guide.balance``, the last quotient of the gradients' lengths; saved with the checkpoints.
    """

    ratio: Tensor

    def __init__(self, parts: Mapping[str, Part], guide: GuideConfig) -> None:
        """Put the parts together.

        Args:
            parts: The parts by name.
            guide: Schedule and balance of the guide.
        """
        super().__init__()
        self.parts = nn.ModuleDict({name: part for name, part in parts.items() if part.weight > 0})
        self.guide = guide
        self.register_buffer("ratio", torch.ones(()))

    def forward(
        self, model: LatentReasoningForSequenceClassification, step: Step, *, done: int, steps: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its unweighted parts.

        Args:
            model: The student, for the balance of gradients.
            step: What the parts see.
            done: Optimiser steps before this one.
            steps: Optimiser steps of the whole training.
        """
        losses: dict[str, Tensor] = {name: part(step) for name, part in self.parts.items()}
        weights = {name: cast(Part, part).weight for name, part in self.parts.items()}
        # The guide by itself: it alone has a schedule.
        others = {name: weights[name] * loss for name, loss in losses.items() if name != "guide_loss"}
        if "guide_loss" not in losses:
            return reduce(torch.add, others.values()), losses
        guide, strength = losses["guide_loss"], weights["guide_loss"]
        apart = [others.pop("orthogonality")] if "orthogonality" in others else []
        if done < self.guide.align_ratio * steps:
            return reduce(torch.add, [strength * guide, *apart]), losses
        classify = reduce(torch.add, others.values())
        rising = self.guide.warmup_ratio * steps
        strength *= min(1.0, done / rising) if rising else 1.0
        if self.guide.balance == "gradient_norm":
            self._balance(model, classify, guide)
            guide = self.ratio * guide
        return reduce(torch.add, [classify, strength * guide, *apart]), losses

    def _balance(self, model: LatentReasoningForSequenceClassification, classify: Tensor, guide: Tensor) -> None:
        """Set `ratio`; a batch in which either has no gradient keeps the last one."""
        weights = [parameter for parameter in last_layer(model.backbone).parameters() if parameter.requires_grad]
        wanted, given = (gradient_norm(loss, weights) for loss in (classify, guide))
        both = (wanted > 0) & (given > 0)
        self.ratio = torch.where(both, wanted / given.clamp(min=torch.finfo(given.dtype).tiny), self.ratio)


def gradient_norm(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Return the Euclidean length of the gradient of `loss`, a scalar.

    Only the graph between `loss` and `parameters` is walked, and it is kept for the step's own backward pass.
    """
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else loss.new_zeros(())


def last_layer(backbone: nn.Module) -> nn.Module:
    """Return the last layer of an encoder: of its list of layers that is as long as its configuration says.

    Raises:
        StudentError: If there is no such list.
    """
    depth = cast(int, getattr(backbone.config, "num_hidden_layers", 0))
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module[-1]
    raise StudentError(
        f"student.guide.balance: {type(backbone).__name__} has no list of {depth} layers; leave balance out"
    )
