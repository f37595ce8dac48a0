"""Training a student: one method, one seed, resumable."""

from __future__ import annotations

import json
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
from manylens.student.checkpoints import discard, last_checkpoint
from manylens.student.cpu import train_on_cpu
from manylens.student.encoding import PairEncoder, product_length
from manylens.student.methods import Method, get_method
from manylens.student.model import LatentReasoningForSequenceClassification
from manylens.student.parts import Shapes
from manylens.student.pretrained import resolve_pretrained
from manylens.student.rows import StudentCollator, write_rows
from manylens.student.targets import Targets
from manylens.student.trainer import ClipPerGroup, StudentTrainer
from manylens.student.vocabulary import compact, expand, used_ids
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


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How a training went.

    Attributes:
        method: The method's name.
        seed: The seed.
        train_pairs: Pairs trained on.
        guided_pairs: Of them, pairs with a rationale's vector, where the method reads it.
        parameters: Parameters of the saved student.
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
        train: Training pairs; those without a label only feel what the method makes of rationales and votes.
        dev: Labelled pairs; the weights with the best macro-F1 on them are kept.
        scale: The label scale.
        config: Backbone, extractor, guide, training options.
        method: A name of `METHODS`.
        seed: Of initialisation, dropout and order.
        folder: Where the model goes.
        targets: What the rationales became, where the method reads it.

    Returns:
        The report, also written to ``folder/training.json``.

    Raises:
        StudentError: If a method that reads targets gets none, there is no pair to train on or to evaluate,
            or the backbone cannot be loaded.
        ConfigError: If a name or an option is unknown.
    """
    how = get_method(method)
    if not how.reads_targets:
        targets = None
    elif targets is None:
        raise StudentError(f"method {method!r} needs targets: the rationales' vectors of the stage embed")
    # Absolute, because a checkpoint remembers the best one by its path.
    checkpoints = (folder / "checkpoints").resolve()
    checkpoints.mkdir(parents=True, exist_ok=True)
    backbone = resolve_pretrained(config.backbone)
    of_product = product_length(config.max_length) if config.split_layers else None
    encoder = PairEncoder.from_backbone(backbone, config.product_template, config.max_length, of_product)
    train_rows = write_rows(
        train,
        encoder,
        scale,
        checkpoints / "train.arrow",
        targets,
        needs=how.needs,
        augmented_length=config.earlier.augmented_length,
    )
    dev_rows = write_rows(dev, encoder, scale, checkpoints / "dev.arrow")

    set_seed(seed)
    model = _model(how, backbone, encoder, scale, config, targets, train_rows["labels"])
    trainer = _trainer(model, StudentCollator(encoder, targets), train_rows, dev_rows, config, checkpoints, seed)
    with closing(ProgressMeter(f"distil {method}, seed {seed}")) as progress:
        trainer.add_callback(progress)
        _train(trainer, last_checkpoint(checkpoints))

    expand(model.backbone)
    _drop_what_only_trains(model)
    trainer.save_model(str(folder))
    encoder.save(folder)
    report = TrainReport(
        method=method,
        seed=seed,
        train_pairs=len(train_rows),
        guided_pairs=_guided(train_rows, targets) if targets is not None and "vectors" in how.needs else 0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=trainer.state.global_step,
        best_dev_macro_f1=trainer.state.best_metric,
        history=trainer.state.log_history,
    )
    (folder / "training.json").write_text(json.dumps(vars(report), indent=2), encoding="utf-8")
    discard(checkpoints)
    return report


def _model(
    how: Method,
    backbone: str,
    encoder: PairEncoder,
    scale: LabelScale,
    config: StudentConfig,
    targets: Targets | None,
    labels: Sequence[int],
) -> LatentReasoningForSequenceClassification:
    """Return the student on its pretrained backbone, with the objective that trains it."""
    options: dict[str, Any] = {"extractor": None}
    if how.extractor and targets is not None:
        options = {
            "extractor": config.extractor,
            "extractor_options": config.extractor_options,
            "latent_dim": targets.dim,
            "latent_names": targets.names,
            "guide_loss": config.guide.loss,
            "guide_weight": config.guide.weight,
            "guide_temperature": config.guide.temperature,
            "head_reads_latents": how.head_reads_latents,
        }
    model = LatentReasoningForSequenceClassification.from_backbone(
        backbone,
        scale,
        encoder.tokenizer.sep_token_id,
        backbone_options=config.backbone_options,
        pooling=config.pooling,
        split_layers=config.split_layers,
        class_weights=_class_weights(labels, len(scale.names), config),
        **options,
    )
    shapes = Shapes(
        hidden=model.config.backbone_config.hidden_size,
        latents=0 if targets is None else len(targets.names),
        dim=0 if targets is None else targets.dim,
    )
    # After the student's own layers, so that a seed gives all methods the same head.
    model.objective = how.objective(config, shapes)
    return model


def _drop_what_only_trains(model: LatentReasoningForSequenceClassification) -> None:
    """Take off the auxiliary heads, and an extractor that the head does not read."""
    model.objective = None
    if not model.config.head_reads_latents:
        model.extractor = model.config.extractor = None


def _trainer(
    model: LatentReasoningForSequenceClassification,
    collator: StudentCollator,
    train_rows: Dataset,
    dev_rows: Dataset,
    config: StudentConfig,
    checkpoints: Path,
    seed: int,
) -> StudentTrainer:
    options = {**TRAINING_DEFAULTS, **hardware_precision(), **config.training}
    callbacks: list[TrainerCallback] = []
    if config.clip == "per_group" and options["max_grad_norm"] > 0:
        callbacks.append(ClipPerGroup(options["max_grad_norm"]))
        options["max_grad_norm"] = 0.0  # Trainer's own clip, over all parameters, is off.
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.early_stopping_patience))
    arguments = TrainingArguments(
        output_dir=str(checkpoints), seed=seed, data_seed=seed, remove_unused_columns=False, **options
    )
    if arguments.device.type == "cpu":
        train_on_cpu(model.backbone, choose_attention="attn_implementation" not in config.backbone_options)
    compact(model.backbone, used_ids((train_rows, dev_rows), collator.encoder.tokenizer.all_special_ids), arguments)
    trainer = StudentTrainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        data_collator=collator,
        processing_class=collator.encoder.tokenizer,
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


def _dev_metrics(prediction: EvalPrediction) -> dict[str, float]:
    predicted = np.asarray(prediction.predictions).argmax(axis=-1)
    classes = list(range(np.asarray(prediction.predictions).shape[-1]))
    gold = prediction.label_ids
    return {
        "macro_f1": float(f1_score(gold, predicted, average="macro", labels=classes, zero_division=0)),
        "accuracy": float(accuracy_score(gold, predicted)),
    }


def _guided(rows: Dataset, targets: Targets) -> int:
    """Return how many rows have a rationale's vector."""
    places = np.array(rows["target"])
    has_vector = np.append(targets.mask.any(axis=1), False)  # The last one is for rows without a target, at -1.
    return int(has_vector[places].sum())


def _class_weights(labels: Sequence[int], classes: int, config: StudentConfig) -> list[float] | None:
    """Return inverse class frequencies with mean 1 over the rows (scikit-learn's "balanced"); 0 for an absent class."""
    if config.class_weights is None:
        return None
    counts = Counter(label for label in labels if label >= 0)
    total = sum(counts.values())
    return [total / (classes * counts[index]) if counts[index] else 0.0 for index in range(classes)]
