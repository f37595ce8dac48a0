from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from manylens.config import StudentConfig
from manylens.records import ESCI
from manylens.student import LatentReasoningForSequenceClassification
from manylens.student.methods import get_method
from manylens.student.parts import Shapes
from manylens.student.rows import StudentCollator, write_rows
from manylens.student.trainer import ClipPerGroup, StudentTrainer, parameter_groups

from .build import BACKBONES, DIM, make_encoder, make_model, make_pairs, make_targets

ENCODER = make_encoder()
PAIRS = make_pairs(17)
TARGETS = make_targets(PAIRS)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Sixteen pairs, each with a target."""
    return write_rows(PAIRS[1:], ENCODER, ESCI, tmp_path_factory.mktemp("rows") / "rows.arrow", TARGETS)


def still_model(
    method: str = "lrkd", guide: dict[str, float] | None = None, **options: object
) -> LatentReasoningForSequenceClassification:
    """A model without dropout, with its objective."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = make_model(backbone_config={**BACKBONES["bert"].to_dict(), **still}, dropout=0.0, **options)
    model.objective = get_method(method).objective(
        StudentConfig(guide=guide or {}), Shapes(hidden=32, latents=1, dim=DIM)
    )
    return model


def make_trainer(
    folder: Path,
    rows: Dataset | None = None,
    model: LatentReasoningForSequenceClassification | None = None,
    new_layers_learning_rate: float | None = None,
    **training: object,
) -> StudentTrainer:
    arguments = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        **training,
    }
    return StudentTrainer(
        model=model or still_model(),
        args=TrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=rows,
        data_collator=StudentCollator(ENCODER, TARGETS),
        new_layers_learning_rate=new_layers_learning_rate,
    )


def test_parameters_are_grouped_by_part() -> None:
    model = make_model()
    groups = parameter_groups(model)
    assert list(groups) == ["backbone", "extractor", "head"]
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    assert list(parameter_groups(make_model(extractor=None))) == ["backbone", "head"]
    assert list(parameter_groups(still_model("ced_kd"))) == ["backbone", "extractor", "head", "auxiliary"]
    model.backbone.requires_grad_(False)
    assert list(parameter_groups(model)) == ["extractor", "head"]


def test_new_layers_have_their_own_rate_and_biases_and_norms_do_not_decay(tmp_path: Path) -> None:
    model = still_model("ced_kd", extractor="gat")
    trainer = make_trainer(tmp_path, model=model, new_layers_learning_rate=0.1, learning_rate=0.001, weight_decay=0.01)
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in trainer.create_optimizer().param_groups
        for parameter in group["params"]
    }
    named = {name: settings[id(parameter)] for name, parameter in model.named_parameters()}
    assert named["backbone.embeddings.word_embeddings.weight"] == (0.001, 0.01)
    assert named["backbone.embeddings.LayerNorm.weight"] == (0.001, 0.0)
    assert named["backbone.encoder.layer.0.output.dense.bias"] == (0.001, 0.0)
    assert named["extractor.layers.0.source"] == (0.1, 0.01)
    assert named["extractor.layers.0.norm.weight"] == (0.1, 0.0)
    assert named["extractor.to_latents.bias"] == (0.1, 0.0)
    assert named["classifier.weight"] == (0.1, 0.01)
    assert named["objective.parts.rationale_loss.project.weight"] == (0.1, 0.01)
    assert len(settings) == len(named)


def test_without_a_rate_of_their_own_new_layers_learn_like_the_backbone(tmp_path: Path) -> None:
    optimizer = make_trainer(tmp_path, learning_rate=0.002).create_optimizer()
    assert {group["lr"] for group in optimizer.param_groups} == {0.002}


def test_the_schedule_moves_both_rates(tmp_path: Path, rows: Dataset) -> None:
    trainer = make_trainer(
        tmp_path, rows, new_layers_learning_rate=0.1, learning_rate=0.001, max_steps=4, lr_scheduler_type="linear"
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=4)
    assert trainer.lr_scheduler is not None
    assert trainer.optimizer is not None
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    assert sorted({group["lr"] for group in trainer.optimizer.param_groups}) == pytest.approx([0.00075, 0.075])


def callback_state(step: int = 0, max_steps: int = 10) -> tuple[TrainingArguments, TrainerState, TrainerControl]:
    return TrainingArguments(use_cpu=True), TrainerState(global_step=step, max_steps=max_steps), TrainerControl()


def norm(parameters: list[Tensor]) -> float:
    return float(torch.cat([parameter.flatten() for parameter in parameters]).norm())


def test_each_group_is_clipped_by_its_own_norm() -> None:
    model = make_model()
    for group, size in zip(parameter_groups(model).values(), (3.0, 100.0, 0.25), strict=True):
        count = sum(parameter.numel() for parameter in group)
        for parameter in group:
            parameter.grad = torch.full_like(parameter, size / count**0.5)
    ClipPerGroup(2.0).on_pre_optimizer_step(*callback_state(), model=model)
    norms = [norm([p.grad for p in group if p.grad is not None]) for group in parameter_groups(model).values()]
    assert norms == pytest.approx([2.0, 2.0, 0.25], rel=1e-4)


def test_both_losses_are_logged_and_lambda_binds_them(tmp_path: Path, rows: Dataset) -> None:
    trainer = make_trainer(tmp_path, rows, still_model(guide={"weight": 0.5, "warmup_ratio": 1.0}))
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 4
    for step, entry in enumerate(logs):
        expected = entry["class_loss"] + 0.5 * step / 4 * entry["guide_loss"]
        assert entry["loss"] == pytest.approx(expected, abs=2e-3)
    assert all(entry["guide_loss"] > 0 for entry in logs)


def test_logged_parts_are_means_over_the_interval(tmp_path: Path, rows: Dataset) -> None:
    each, twice = (make_trainer(tmp_path, rows, logging_steps=steps, seed=3) for steps in (1, 2))
    each.train()
    twice.train()
    single = [entry["guide_loss"] for entry in each.state.log_history if "loss" in entry]
    paired = [entry["guide_loss"] for entry in twice.state.log_history if "loss" in entry]
    assert paired == pytest.approx([sum(single[:2]) / 2, sum(single[2:]) / 2], abs=2e-4)


@pytest.mark.parametrize("method", ["bert", "lrkd"])
def test_the_objective_is_what_a_plain_trainer_minimises_by_the_models_own_loss(
    tmp_path: Path, rows: Dataset, method: str
) -> None:
    options = {"extractor": None} if method == "bert" else {"guide_weight": 0.5, "guide": {"weight": 0.5}}
    ours = make_trainer(tmp_path, rows, still_model(method, **options))
    plain_model = still_model(method, **options)
    plain_model.objective = None
    plain = Trainer(
        model=plain_model, args=ours.args, train_dataset=rows, data_collator=StudentCollator(ENCODER, TARGETS)
    )
    ours.train()
    plain.train()
    for (name, one), other in zip(ours.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_accumulated_batches_make_the_step_of_one_big_batch(tmp_path: Path, rows: Dataset) -> None:
    results = []
    for size, accumulated in ((16, 1), (4, 4)):
        trainer = make_trainer(
            tmp_path,
            rows,
            still_model(guide={"weight": 0.5}),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            optim="sgd",
            learning_rate=0.1,
        )
        trainer.train()
        assert trainer.state.global_step == 1
        (loss,) = (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        results.append((loss, trainer.model.state_dict()))
    (big_loss, big), (accumulated_loss, accumulated) = results
    assert accumulated_loss == pytest.approx(big_loss, abs=2e-4)
    for name in big:
        torch.testing.assert_close(accumulated[name], big[name], rtol=1e-4, atol=1e-6)


def test_batches_are_grouped_by_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pairs = make_pairs(160)
    rows = write_rows(pairs, ENCODER, ESCI, tmp_path / "rows.arrow")
    padding = {}
    for strategy in ("random", "group_by_length"):
        trainer = make_trainer(tmp_path, rows, per_device_train_batch_size=8, train_sampling_strategy=strategy)
        batches = list(trainer.get_train_dataloader())
        assert sum(len(batch["labels"]) for batch in batches) == 160
        padding[strategy] = sum(int((batch["attention_mask"] == 0).sum()) for batch in batches)
    assert padding["group_by_length"] < 0.6 * padding["random"]
