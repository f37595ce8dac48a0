"""transformers' `Trainer` with what a student needs: learning rates and clipping by group, and a warm-up of lambda."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from manylens.student.model import LatentReasoningForSequenceClassification, LatentReasoningOutput


def parameter_groups(model: LatentReasoningForSequenceClassification) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters of backbone, extractor and head; an empty group is left out."""
    parts = {"backbone": model.backbone, "extractor": model.extractor, "head": model.classifier}
    groups = {
        name: [parameter for parameter in part.parameters() if parameter.requires_grad]
        for name, part in parts.items()
        if part is not None
    }
    return {name: parameters for name, parameters in groups.items() if parameters}


class StudentTrainer(Trainer):
    """A `Trainer` that gives new layers a learning rate of their own and logs both losses.

    Args:
        *args: As for `Trainer`.
        new_layers_learning_rate: For extractor and head; ``None`` means the backbone's.
        **kwargs: As for `Trainer`.
    """

    def __init__(self, *args: Any, new_layers_learning_rate: float | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Create the trainer."""
        super().__init__(*args, **kwargs)
        self._new_layers_learning_rate = new_layers_learning_rate
        self._loss_sums: dict[str, Tensor] = {}
        self._loss_count = 0

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimiser of `TrainingArguments`, with a group for new layers where they have their own rate."""
        if self.optimizer is not None or self._new_layers_learning_rate is None:
            return super().create_optimizer(model)
        student = cast(LatentReasoningForSequenceClassification, self.model if model is None else model)
        decayed = set(self.get_decay_parameter_names(student))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in student.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((name.startswith("backbone."), name in decayed), []).append(parameter)
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, student)
        self.optimizer = optimizer_class(
            [
                {
                    "params": parameters,
                    "lr": self.args.learning_rate if pretrained else self._new_layers_learning_rate,
                    "weight_decay": self.args.weight_decay if decay else 0.0,
                }
                for (pretrained, decay), parameters in groups.items()
            ],
            **options,
        )
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ANN401
    ) -> Tensor | tuple[Tensor, LatentReasoningOutput]:
        """Return the model's own loss, and remember its parts for the log."""
        outputs: LatentReasoningOutput = model(**inputs)
        assert outputs.loss is not None
        if model.training:
            self._loss_count += 1
            for name in ("class_loss", "guide_loss"):
                part = getattr(outputs, name)
                if part is not None:
                    self._loss_sums[name] = self._loss_sums.get(name, 0.0) + part.detach().mean()
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean of each part of the loss since the last log beside the whole."""
        if "loss" in logs and self._loss_count:
            logs |= {name: round(float(total) / self._loss_count, 4) for name, total in self._loss_sums.items()}
            self._loss_sums, self._loss_count = {}, 0
        super().log(logs, start_time)


class GuideWarmup(TrainerCallback):
    """Raises lambda linearly from 0 over the first steps, so that the guide cannot drown an untrained head.

    Args:
        ratio: Share of all steps over which it rises.
    """

    def __init__(self, ratio: float) -> None:
        """Remember the share."""
        self.ratio = ratio

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: LatentReasoningForSequenceClassification | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Set lambda for this step."""
        assert model is not None
        steps = self.ratio * state.max_steps
        model.guide_weight = model.config.guide_weight * (min(1.0, state.global_step / steps) if steps else 1.0)


class ClipPerGroup(TrainerCallback):
    """Clips the gradient norm of backbone, extractor and head apart.

    With one norm over everything, a large guide gradient shrinks the classifier's step with its own.

    Args:
        max_norm: Largest norm of a group's gradient.
    """

    def __init__(self, max_norm: float) -> None:
        """Remember the norm."""
        self.max_norm = max_norm

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: LatentReasoningForSequenceClassification | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Clip."""
        assert model is not None
        for parameters in parameter_groups(model).values():
            nn.utils.clip_grad_norm_(parameters, self.max_norm)
