from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from transformers import TrainerState, TrainingArguments

from manylens.config import StudentConfig
from manylens.errors import ConfigError, StudentError, UnknownNameError
from manylens.records import ESCI
from manylens.student import METHODS, Student, train
from manylens.student.checkpoints import last_checkpoint
from manylens.student.targets import Targets
from manylens.student.train import TRAINING_DEFAULTS, TrainReport, hardware_precision, train_student
from manylens.trainer_progress import ProgressMeter

from . import training_child
from .build import DIM, TEMPLATE, make_config, make_pair, make_pairs, make_targets
from .training_child import train_long

PAIRS, DEV = make_pairs(40), make_pairs(16, seed=1)
TARGETS = make_targets(PAIRS)


def fit(
    folder: Path, config: StudentConfig, method: str = "lrkd", seed: int = 1, targets: Targets | None = TARGETS
) -> TrainReport:
    return train_student(PAIRS, DEV, ESCI, config, method=method, seed=seed, folder=folder, targets=targets)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_student_is_trained_and_saved_as_a_plain_folder(backbone: str, tmp_path: Path) -> None:
    config = make_config(backbone, training={"num_train_epochs": 20, "learning_rate": 5e-3})
    report = fit(tmp_path / "student", config)
    assert (report.method, report.seed, report.train_pairs, report.guided_pairs) == ("lrkd", 1, 40, 39)
    assert report.steps == 20 * 5
    losses = [entry["class_loss"] for entry in report.history if "class_loss" in entry]
    assert losses[-1] < 0.8 * losses[0]
    assert json.loads((tmp_path / "student/training.json").read_text()) == json.loads(json.dumps(vars(report)))
    assert not [path for path in (tmp_path / "student").iterdir() if path.is_dir()]

    student = Student.load(tmp_path / "student", device="cpu")
    assert report.parameters == sum(parameter.numel() for parameter in student.model.parameters())
    assert (student.encoder.template.source, student.encoder.max_length, student.labels) == (TEMPLATE, 24, ESCI.names)
    saved = student.model.config
    assert (saved.extractor, saved.latent_dim, saved.latent_names) == ("mlp", DIM, ["rationale"])
    assert (saved.guide_loss, saved.guide_weight, saved.class_weights) == ("squared_distance", 0.02, None)


def test_the_weights_with_the_best_dev_macro_f1_are_kept(backbone: str, tmp_path: Path) -> None:
    # Labels of another task, so that the score falls as training goes on.
    others = {name: ESCI.names[index - 1] for index, name in enumerate(ESCI.names)}
    dev = [replace(pair, label=others[str(pair.label)]) for pair in make_pairs(40, seed=1)]
    config = make_config(backbone, training={"num_train_epochs": 8, "learning_rate": 5e-3})
    report = train_student(PAIRS, dev, ESCI, config, method="bert", seed=1, folder=tmp_path)
    scores = [entry["eval_macro_f1"] for entry in report.history if "eval_macro_f1" in entry]
    assert len(scores) == 8
    assert report.best_dev_macro_f1 == max(scores) > scores[-1]
    predicted = [prediction.label for prediction in Student.load(tmp_path, device="cpu").predict(dev)]
    f1 = f1_score([pair.label for pair in dev], predicted, average="macro", labels=ESCI.names, zero_division=0)
    assert f1 == pytest.approx(max(scores))


def test_plain_bert_has_no_extractor_and_no_guide(backbone: str, tmp_path: Path) -> None:
    report = fit(tmp_path, make_config(backbone), method="bert", targets=None)
    assert report.guided_pairs == 0
    model = Student.load(tmp_path, device="cpu").model
    assert model.extractor is None
    assert model.classifier.in_features == 32
    assert not [entry for entry in report.history if "guide_loss" in entry]


def test_one_latent_for_each_perspective(backbone: str, tmp_path: Path) -> None:
    fit(tmp_path, make_config(backbone), targets=make_targets(PAIRS, ("intent", "rules", "structure")))
    model = Student.load(tmp_path, device="cpu").model
    assert model.config.latent_names == ["intent", "rules", "structure"]
    assert model.classifier.in_features == 32 + 3 * DIM


def test_a_seed_gives_the_same_student_and_another_seed_another(backbone: str, tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        fit(tmp_path / name, make_config(backbone), seed=seed)
    assert same_weights(tmp_path / "first", tmp_path / "again")
    assert not same_weights(tmp_path / "first", tmp_path / "other")


def run_until(ready: Callable[[], bool], backbone: str, folder: Path) -> None:
    """Train in a child process and kill it as soon as `ready`."""
    child = subprocess.Popen(
        [sys.executable, training_child.__file__, backbone, str(folder)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not ready():
        assert child.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_training_killed_twice_ends_with_the_weights_of_an_undisturbed_one(backbone: str, tmp_path: Path) -> None:
    undisturbed = train_long(backbone, tmp_path / "undisturbed")
    assert undisturbed.steps < 40 * 5, "early stopping was to end it"

    checkpoints = tmp_path / "killed/checkpoints"
    run_until(lambda: bool([*checkpoints.glob("*/trainer_state.json")]), backbone, tmp_path / "killed")
    # The second time while a later checkpoint is being written.
    seen = {path.name for path in checkpoints.iterdir()}
    run_until(lambda: {path.name for path in checkpoints.iterdir()} > seen, backbone, tmp_path / "killed")
    report = train_long(backbone, tmp_path / "killed")

    assert same_weights(tmp_path / "killed", tmp_path / "undisturbed")
    assert report.steps == undisturbed.steps
    assert report.best_dev_macro_f1 == undisturbed.best_dev_macro_f1
    assert [entry["step"] for entry in report.history] == [entry["step"] for entry in undisturbed.history]


@pytest.mark.parametrize(("patience", "steps"), [(None, 30), (2, 15)])
def test_a_kill_after_the_last_step_trains_no_further(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int | None, steps: int
) -> None:
    training = {"learning_rate": 0.0, "num_train_epochs": 6, "save_total_limit": 6}
    config = make_config(backbone, early_stopping_patience=patience, training=training)
    with monkeypatch.context() as patch:
        patch.setattr(train, "discard", lambda checkpoints: None)
        first = fit(tmp_path, config)
    before = weights(tmp_path)
    assert (tmp_path / f"checkpoints/checkpoint-{steps}").is_dir()
    (tmp_path / "model.safetensors").unlink()
    second = fit(tmp_path, config)
    assert (first.steps, second.steps) == (steps, steps)
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path).items())
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_early_stopping_remembers_its_patience_over_an_interruption(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(backbone, early_stopping_patience=2, training={"learning_rate": 0.0, "num_train_epochs": 9})

    def interrupt(bar: ProgressMeter, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        if state.global_step == 12:  # after the second epoch, which did not better the first
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressMeter, "on_step_end", interrupt)
        fit(tmp_path, config)
    assert last_checkpoint((tmp_path / "checkpoints").resolve()) is not None
    assert fit(tmp_path, config).steps == 15


def test_checkpoints_that_were_half_removed_are_not_taken_up_again(backbone: str, tmp_path: Path) -> None:
    litter = tmp_path / "student/checkpoints.discarded/checkpoint-5"
    litter.mkdir(parents=True)
    (litter / "trainer_state.json").write_text('{"global_step": 5}', encoding="utf-8")
    fit(tmp_path / "student", make_config(backbone))
    fit(tmp_path / "clean", make_config(backbone))
    assert same_weights(tmp_path / "student", tmp_path / "clean")
    assert not litter.exists()


def test_early_stopping_goes_by_dev_macro_f1(backbone: str, tmp_path: Path) -> None:
    config = make_config(backbone, early_stopping_patience=2, training={"learning_rate": 0.0, "num_train_epochs": 9})
    report = fit(tmp_path, config)
    # The first epoch sets the score, the second and third do not better it.
    assert report.steps == 3 * 5


def test_balanced_class_weights_by_hand(backbone: str, tmp_path: Path) -> None:
    labels = ["exact"] * 6 + ["substitute"] * 3 + ["irrelevant"] * 3 + [None]
    pairs = [make_pair(title=f"hat {index}", pair_id=str(index), label=label) for index, label in enumerate(labels)]
    config = make_config(backbone, class_weights="balanced", training={"num_train_epochs": 1})
    train_student(pairs, DEV, ESCI, config, method="bert", seed=1, folder=tmp_path)
    model = Student.load(tmp_path, device="cpu").model
    # 12 labelled pairs, 4 classes: 12 / (4 * 6), 12 / (4 * 3), absent, 12 / (4 * 3).
    assert model.config.class_weights == pytest.approx([0.5, 1.0, 0.0, 1.0])
    assert model.class_weights.tolist() == model.config.class_weights


def test_bf16_trains(backbone: str, tmp_path: Path) -> None:
    report = fit(tmp_path, make_config(backbone, training={"bf16": True}))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float32}
    assert report.best_dev_macro_f1 is not None


def test_what_the_hardware_computes_is_what_training_arguments_take(tmp_path: Path) -> None:
    options = {**TRAINING_DEFAULTS, **hardware_precision()}
    assert TrainingArguments(output_dir=str(tmp_path), **options).bf16 == hardware_precision()["bf16"]


@pytest.mark.parametrize("clip", ["all", "per_group"])
def test_a_norm_of_zero_means_no_clipping(backbone: str, tmp_path: Path, clip: str) -> None:
    fit(tmp_path / "free", make_config(backbone, clip=clip, training={"max_grad_norm": 0.0}))
    fit(tmp_path / "wide", make_config(backbone, clip=clip, training={"max_grad_norm": 1e6}))
    free, wide = weights(tmp_path / "free"), weights(tmp_path / "wide")
    for name in free:
        torch.testing.assert_close(free[name], wide[name], rtol=1e-4, atol=1e-6)


def test_a_huge_guide_cannot_shrink_the_heads_step_where_groups_are_clipped_apart(
    backbone: str, tmp_path: Path
) -> None:
    moved = {}
    for clip in ("all", "per_group"):
        training = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 1, "lr_scheduler_type": "constant"}
        options = {"guide": {"weight": 1e4}, "clip": clip}
        fit(tmp_path / clip, make_config(backbone, training=training, **options))
        fit(tmp_path / f"{clip} still", make_config(backbone, training={**training, "learning_rate": 0.0}, **options))
        before, after = weights(tmp_path / f"{clip} still"), weights(tmp_path / clip)
        moved[clip] = float((after["classifier.weight"] - before["classifier.weight"]).norm())
    assert moved["per_group"] > 50 * moved["all"]


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.reads_targets])
def test_a_method_that_reads_targets_needs_them(backbone: str, tmp_path: Path, method: str) -> None:
    with pytest.raises(StudentError, match=f"method '{method}' needs targets"):
        fit(tmp_path / "student", make_config(backbone), method=method, targets=None)
    assert not (tmp_path / "student").exists()


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_and_saves_a_student_without_what_only_trains(
    backbone: str, tmp_path: Path, method: str
) -> None:
    report = fit(tmp_path, make_config(backbone, training={"num_train_epochs": 1}), method=method)
    student = Student.load(tmp_path, device="cpu")
    assert [prediction.label in ESCI.names for prediction in student.predict(DEV)] == [True] * len(DEV)
    has_extractor = method in ("lrkd", "lrkd_no_guide")
    assert (student.model.extractor is not None) == has_extractor
    parts = {"backbone", "classifier"} | ({"extractor"} if has_extractor else set())
    assert {name.partition(".")[0] for name in weights(tmp_path)} == parts
    assert report.parameters == sum(parameter.numel() for parameter in student.model.parameters())
    logged = {name for entry in report.history for name in entry}
    assert set(METHODS[method].losses) - {"orthogonality"} <= logged
    assert (report.train_pairs, report.guided_pairs) == (40, 39 if "vectors" in METHODS[method].needs else 0)


@pytest.mark.parametrize("method", METHODS)
def test_pairs_without_a_label_train_what_can_learn_from_them(backbone: str, tmp_path: Path, method: str) -> None:
    # Batches of four with nine labelled pairs of forty: many batches have no label at all.
    pairs = [pair if index < 9 else replace(pair, label=None) for index, pair in enumerate(PAIRS)]
    config = make_config(backbone, training={"num_train_epochs": 1, "per_device_train_batch_size": 4})
    report = train_student(pairs, DEV, ESCI, config, method=method, seed=1, folder=tmp_path, targets=TARGETS)
    assert report.train_pairs == (40 if METHODS[method].needs else 9)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_a_method_that_ignores_targets_trains_as_without_them(backbone: str, tmp_path: Path) -> None:
    fit(tmp_path / "with", make_config(backbone), method="bert")
    fit(tmp_path / "without", make_config(backbone), method="bert", targets=None)
    assert same_weights(tmp_path / "with", tmp_path / "without")


def test_a_guide_of_weight_zero_is_no_guide(backbone: str, tmp_path: Path) -> None:
    fit(tmp_path / "zero", make_config(backbone, guide={"weight": 0.0}))
    fit(tmp_path / "none", make_config(backbone), method="lrkd_no_guide")
    assert same_weights(tmp_path / "zero", tmp_path / "none")


def test_the_guide_of_a_dropped_extractor_moved_the_backbone(backbone: str, tmp_path: Path) -> None:
    fit(tmp_path / "dropped", make_config(backbone, guide={"weight": 1.0}), method="lrkd_dropped")
    fit(tmp_path / "bert", make_config(backbone), method="bert")
    dropped, bert = weights(tmp_path / "dropped"), weights(tmp_path / "bert")
    assert dropped.keys() == bert.keys()
    assert not torch.equal(dropped["classifier.weight"], bert["classifier.weight"])


def test_aligning_first_leaves_the_head_where_it_began(backbone: str, tmp_path: Path) -> None:
    training = {"max_steps": 4, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    fit(tmp_path / "align", make_config(backbone, guide={"align_ratio": 0.99}, training=training))
    fit(tmp_path / "still", make_config(backbone, training={**training, "learning_rate": 0.0}))
    aligned, still = weights(tmp_path / "align"), weights(tmp_path / "still")
    assert torch.equal(aligned["classifier.weight"], still["classifier.weight"])
    assert not torch.equal(aligned["extractor.dense.weight"], still["extractor.dense.weight"])


@pytest.mark.parametrize("method", ["mkd", "crsd", "lrkd", "lrkd_dropped"])
def test_an_interrupted_training_ends_with_the_same_weights_whatever_its_objective(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    guide = {"balance": "gradient_norm", "align_ratio": 0.2, "loss": "info_nce", "orthogonality": 0.1}
    config = make_config(backbone, guide=guide, new_layers_learning_rate=2e-3)
    targets = make_targets(PAIRS, ("one", "two"))

    def interrupt(bar: ProgressMeter, args: object, state: TrainerState, control: object, **kwargs: object) -> None:
        if state.global_step == 8:
            raise KeyboardInterrupt

    fit(tmp_path / "whole", config, method=method, targets=targets)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressMeter, "on_step_end", interrupt)
        fit(tmp_path / "cut", config, method=method, targets=targets)
    checkpoint = last_checkpoint((tmp_path / "cut/checkpoints").resolve())
    assert checkpoint is not None and checkpoint.endswith("checkpoint-5")
    fit(tmp_path / "cut", config, method=method, targets=targets)
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_backbone_options_reach_the_backbone(backbone: str, tmp_path: Path) -> None:
    options = {"num_hidden_layers": 1, "attn_implementation": "eager", "hidden_dropout_prob": 0.0}
    fit(tmp_path, make_config(backbone, backbone_options=options), method="bert")
    saved = Student.load(tmp_path, device="cpu").model
    assert len(saved.backbone.encoder.layer) == 1
    assert saved.config.backbone_config.hidden_dropout_prob == 0.0
    with pytest.raises(ConfigError, match=r"student\.backbone_options do not fit .*layrs"):
        fit(tmp_path / "wrong", make_config(backbone, backbone_options={"layrs": 1}), method="bert")


def test_wrong_names_and_empty_splits_are_refused(backbone: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown method 'lrk'"):
        fit(tmp_path, make_config(backbone), method="lrk")
    with pytest.raises(UnknownNameError, match="unknown extractor 'poli'"):
        fit(tmp_path, make_config(backbone, extractor="poli"))
    with pytest.raises(ConfigError, match="do not fit extractor 'mlp'"):
        fit(tmp_path, make_config(backbone, extractor_options={"heads": 2}))
    with pytest.raises(StudentError, match=r"dev\.arrow: expected at least one pair"):
        train_student(PAIRS, [], ESCI, make_config(backbone), method="bert", seed=1, folder=tmp_path)
