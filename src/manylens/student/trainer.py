"""transformers' `Trainer` with what a student needs: its objective, and learning rates and clipping by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from manylens.student.model import LatentReasoningForSequenceClassification, LatentReasoningOutput
from manylens.student.parts import Step
from manylens.student.rows import AUGMENTED, TOKEN_COLUMNS


def parameter_groups(model: LatentReasoningForSequenceClassification) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters of backbone, extractor, head and auxiliary heads; an empty group is left out."""
    parts = {
        "backbone": model.backbone,
        "extractor": model.extractor,
        "head": model.classifier,
        "auxiliary": model.objective,
    }
    groups = {
        name: [parameter for parameter in part.parameters() if parameter.requires_grad]
        for name, part in parts.items()
        if part is not None
    }
    return {name: parameters for name, parameters in groups.items() if parameters}


class StudentTrainer(Trainer):
    """A `Trainer` that trains a student by its objective, and logs the parts of the loss.

    Args:
        *args: As for `Trainer`.
        new_layers_learning_rate: For all but the backbone; ``None`` means the backbone's.
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
        """Return the objective's loss, and remember its parts for the log; in evaluation, the model's own loss."""
        student = cast(LatentReasoningForSequenceClassification, self.model)
        if not model.training or student.objective is None:
            outputs: LatentReasoningOutput = model(**inputs)
            assert outputs.loss is not None
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        outputs = model(**_tokens(inputs, ""))
        step = Step(
            outputs=outputs,
            augmented=model(**_tokens(inputs, AUGMENTED)) if AUGMENTED + TOKEN_COLUMNS[0] in inputs else None,
            batch=inputs,
            class_weights=student.class_weights,
        )
        loss, parts = student.objective(student, step, done=self.state.global_step, steps=self.state.max_steps)
        self._loss_count += 1
        for name, part in parts.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + part.detach()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the mean of each part of the loss since the last log beside the whole."""
        if "loss" in logs and self._loss_count:
            logs |= {name: round(float(total) / self._loss_count, 4) for name, total in self._loss_sums.items()}
            self._loss_sums, self._loss_count = {}, 0
        super().log(logs, start_time)


def _tokens(inputs: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: inputs[prefix + name] for name in TOKEN_COLUMNS if prefix + name in inputs}


class ClipPerGroup(TrainerCallback):
    """Clips the gradient norm of backbone, extractor, head and auxiliary heads apart.

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
