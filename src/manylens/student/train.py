"""Training a student: one method, one seed, resumable."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from manylens.config import StudentConfig
from manylens.errors import StudentError
from manylens.records import LabelScale, Pair
from manylens.student.encoding import PairEncoder
from manylens.student.methods import get_method
from manylens.student.model import LatentReasoningForSequenceClassification
from manylens.student.pretrained import resolve_pretrained
from manylens.student.rows import StudentCollator, write_rows
from manylens.student.targets import Targets
from manylens.student.trainer import ClipPerGroup, GuideWarmup, StudentTrainer
from manylens.trainer_progress import ProgressMeter

#: What a student's training starts from; the recipe's `student.training` overrides any of it.
TRAINING_DEFAULTS: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
    "greater_is_better": True,
    "save_total_limit": 1,
    "restore_callback_states_from_checkpoint": True,
    "max_grad_norm": 1.0,
    "optim": "adamw_torch_fused",
    "report_to": "none",
    "disable_tqdm": True,
}
#: What `train_student` sets itself.
RESERVED_TRAINING_KEYS = ("output_dir", "seed", "data_seed", "remove_unused_columns")
#: What a complete checkpoint of Trainer holds, beside its state.
_CHECKPOINT_FILES = ("model*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How a training went.

    Attributes:
        method: The method's name.
        seed: The seed.
        train_pairs: Pairs trained on.
        guided_pairs: Of them, pairs with a rationale.
        parameters: Trainable parameters.
        steps: Optimiser steps.
        best_dev_macro_f1: Of the weights that were kept; ``None`` where dev was not evaluated.
        history: Trainer's log.
    """

    method: str
    seed: int
    train_pairs: int
    guided_pairs: int
    parameters: int
    steps: int
    best_dev_macro_f1: float | None
    history: list[dict[str, float]]


def hardware_precision() -> dict[str, bool]:
    """Return TrainingArguments' precision: bf16 where the processor computes it, else fp32.

    PyTorch before `torch.cpu.get_capabilities` does not say what a CPU can; there it is fp32.
    """
    if torch.cuda.is_available():
        return {"bf16": torch.cuda.is_bf16_supported()}
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return {"use_cpu": True, "bf16": bool(capabilities.get("avx512_bf16", False))}


def train_student(
    train: Iterable[Pair],
    dev: Iterable[Pair],
    scale: LabelScale,
    config: StudentConfig,
    *,
    method: str,
    seed: int,
    folder: Path,
    targets: Targets | None = None,
) -> TrainReport:
    """Train one student and save it as a plain Hugging Face folder.

    A training that was killed goes on from its last checkpoint in ``folder/checkpoints``, and ends with the
    same weights. The caller sees to it that the folder was not begun with other arguments.

    Args:
        train: Training pairs; those without a label only feel the guide.
        dev: Labelled pairs; the weights with the best macro-F1 on them are kept.
        scale: The label scale.
        config: Backbone, extractor, guide, training options.
        method: A name of `METHODS`.
        seed: Of initialisation, dropout and order.
        folder: Where the model goes.
        targets: The rationales' vectors, where the method has a guide.

    Returns:
        The report, also written to ``folder/training.json``.

    Raises:
        StudentError: If a guided method gets no targets, there is no pair to train on or to evaluate,
            or the backbone cannot be loaded.
        ConfigError: If a name or an option is unknown.
    """
    how = get_method(method)
    if how.extractor and targets is None:
        raise StudentError(f"method {method!r} needs targets: the rationales' vectors of the stage embed")
    # Absolute, because a checkpoint remembers the best one by its path.
    checkpoints = (folder / "checkpoints").resolve()
    checkpoints.mkdir(parents=True, exist_ok=True)
    backbone = resolve_pretrained(config.backbone)
    encoder = PairEncoder.from_backbone(backbone, config.product_template, config.max_length)
    train_rows = write_rows(train, encoder, scale, checkpoints / "train.arrow", targets if how.guide else None)
    dev_rows = write_rows(dev, encoder, scale, checkpoints / "dev.arrow")

    set_seed(seed)
    options: dict[str, Any] = {"class_weights": _class_weights(train_rows["labels"], len(scale.names), config)}
    if how.extractor and targets is not None:
        options |= {
            "extractor": config.extractor,
            "extractor_options": config.extractor_options,
            "latent_dim": targets.dim,
            "latent_names": targets.names,
            "guide_loss": config.guide.loss,
            "guide_weight": config.guide.weight,
        }
    else:
        options |= {"extractor": None}
    model = LatentReasoningForSequenceClassification.from_backbone(
        backbone, scale, encoder.tokenizer.sep_token_id, **options
    )
    trainer = _trainer(model, encoder, train_rows, dev_rows, config, checkpoints, seed)
    with closing(ProgressMeter(f"distil {method}, seed {seed}")) as progress:
        trainer.add_callback(progress)
        _train(trainer, last_checkpoint(checkpoints))

    trainer.save_model(str(folder))
    encoder.save(folder)
    report = TrainReport(
        method=method,
        seed=seed,
        train_pairs=len(train_rows),
        guided_pairs=sum(any(mask) for mask in train_rows["rationale_mask"]) if how.guide else 0,
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        steps=trainer.state.global_step,
        best_dev_macro_f1=trainer.state.best_metric,
        history=trainer.state.log_history,
    )
    (folder / "training.json").write_text(json.dumps(vars(report), indent=2), encoding="utf-8")
    _discard(checkpoints)
    return report


def _trainer(
    model: LatentReasoningForSequenceClassification,
    encoder: PairEncoder,
    train_rows: Dataset,
    dev_rows: Dataset,
    config: StudentConfig,
    checkpoints: Path,
    seed: int,
) -> StudentTrainer:
    options = {**TRAINING_DEFAULTS, **hardware_precision(), **config.training}
    callbacks: list[TrainerCallback] = [GuideWarmup(config.guide.warmup_ratio)]
    if config.clip == "per_group" and options["max_grad_norm"] > 0:
        callbacks.append(ClipPerGroup(options["max_grad_norm"]))
        options["max_grad_norm"] = 0.0  # Trainer's own clip, over all parameters, is off.
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
    arguments = TrainingArguments(
        output_dir=str(checkpoints), seed=seed, data_seed=seed, remove_unused_columns=False, **options
    )
    trainer = StudentTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        data_collator=StudentCollator(encoder),
        processing_class=encoder.tokenizer,
        compute_metrics=_dev_metrics,
        callbacks=callbacks,
        new_layers_learning_rate=config.new_layers_learning_rate,
    )
    trainer.remove_callback(PrinterCallback)  # The progress bar shows what it prints.
    return trainer


def _train(trainer: StudentTrainer, checkpoint: str | None) -> None:
    """Train from `checkpoint`, or from the start."""
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            # It had ended when it was killed; without this an early stop would be forgotten and training go on.
            trainer.args.max_steps = state.global_step
    trainer.train(resume_from_checkpoint=checkpoint)


def _discard(checkpoints: Path) -> None:
    """Remove all checkpoints, renamed first: a kill must not leave half of one to resume from."""
    discarded = checkpoints.with_name("checkpoints.discarded")
    shutil.rmtree(discarded, ignore_errors=True)
    checkpoints.rename(discarded)
    shutil.rmtree(discarded)


def _dev_metrics(prediction: EvalPrediction) -> dict[str, float]:
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    classes = list(range(np.asarray(prediction.predictions).shape[-1]))
    gold = prediction.label_ids
    return {
        "macro_f1": float(f1_score(gold, predicted, average="macro", labels=classes, zero_division=0)),
        "accuracy": float(accuracy_score(gold, predicted)),
    }


def _class_weights(labels: Sequence[int], classes: int, config: StudentConfig) -> list[float] | None:
    """Return inverse class frequencies with mean 1 over the rows (scikit-learn's "balanced"); 0 for an absent class."""
    if config.class_weights is None:
        return None
    counts = Counter(label for label in labels if label >= 0)
    total = sum(counts.values())
    return [total / (classes * counts[index]) if counts[index] else 0.0 for index in range(classes)]


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint in `folder`, or ``None``; incomplete ones are removed.

    A kill cuts off a checkpoint while Trainer writes it, or while Trainer deletes an old one.
    """
    newest: tuple[int, Path] | None = None
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            step = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        except (OSError, ValueError, KeyError):
            step = None
        if step is None or any(not list(checkpoint.glob(pattern)) for pattern in _CHECKPOINT_FILES):
            shutil.rmtree(checkpoint)
        elif newest is None or step > newest[0]:
            newest = (step, checkpoint)
    return None if newest is None else str(newest[1])
