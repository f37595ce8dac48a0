"""Training a plain BERT student against sentence-transformers' CrossEncoderTrainer, on the demo store.

    python -m benchmarks.training --rounds 5

Both start from the same weights and take the same pairs, batch size, steps, learning rate, schedule, clipping,
optimiser and precision; what is timed reaches from the pairs to the saved model. Seconds are the process's own, which
other work on the machine lengthens less than those of a clock. Each round is a seed; the two take turns in being
first, because a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import CrossEntropyLoss

from manylens.config import DemoData, StudentConfig
from manylens.data import Pairs, load_pairs
from manylens.records import ESCI, Pair
from manylens.student.encoding import PairEncoder
from manylens.student.train import hardware_precision, train_student

#: What both are given.
SHARED: dict[str, Any] = {
    "learning_rate": 5e-5,
    "warmup_steps": 0.1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "optim": "adamw_torch_fused",
    "logging_strategy": "steps",
    "logging_steps": 11,
    "eval_strategy": "no",
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
MAX_LENGTH = 128
#: Mean training loss of each stretch of `logging_steps`.
Losses = list[float]


def student_config(**training: object) -> StudentConfig:
    """Return a plain BERT student, with what both trainers share."""
    return StudentConfig(
        method="bert",
        max_length=MAX_LENGTH,
        clip="all",
        training={**SHARED, "load_best_model_at_end": False, "train_sampling_strategy": "group_by_length", **training},
    )


def train_ours(train: Sequence[Pair], dev: Sequence[Pair], seed: int, folder: Path, **training: object) -> Losses:
    """Train with manylens."""
    report = train_student(train, dev, ESCI, student_config(**training), method="bert", seed=seed, folder=folder)
    return [entry["loss"] for entry in report.history if "loss" in entry]


def train_theirs(train: Sequence[Pair], start: Path, seed: int, folder: Path, **training: object) -> Losses:
    """Train the student in `start` with sentence-transformers."""
    render = PairEncoder.load(start).template.render
    rows = Dataset.from_dict(
        {
            "query": [pair.query for pair in train],
            "product": [render(pair) for pair in train],
            "label": [ESCI.index(str(pair.label)) for pair in train],
        }
    )
    model = CrossEncoder(str(start), max_length=MAX_LENGTH)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder), seed=seed, data_seed=seed, **hardware_precision(), **SHARED, **training
    )
    trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=rows, loss=CrossEntropyLoss(model))
    trainer.train()
    model.save_pretrained(str(folder))
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def timed(run: Callable[[], Losses]) -> tuple[float, Losses]:
    """Return the processor seconds that a run takes, and its losses."""
    start = time.process_time()
    losses = run()
    return time.process_time() - start, losses


def measure(rounds: int, epochs: int, batch_size: int, folder: Path) -> None:
    """Run both in turns and print what came out."""
    load_pairs(DemoData(loader="demo"), ESCI, folder)
    pairs = Pairs.read(folder / "pairs.parquet")
    train, dev = list(pairs.split("train")), list(pairs.split("dev"))
    wanted = {"num_train_epochs": epochs, "per_device_train_batch_size": batch_size}
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    losses: dict[str, list[Losses]] = {"ours": [], "theirs": []}
    for seed in range(1, rounds + 1):
        start = folder / f"start-{seed}"
        # A step at rate 0 saves the weights that this seed starts from.
        train_ours(train[:8], dev, seed, start, learning_rate=0.0, max_steps=1)
        runs = {
            "ours": lambda seed=seed: train_ours(train, dev, seed, folder / f"ours-{seed}", **wanted),
            "theirs": lambda seed=seed, start=start: train_theirs(
                train, start, seed, folder / f"theirs-{seed}", **wanted
            ),
        }
        for name in sorted(runs, reverse=seed % 2 == 0):
            taken, curve = timed(runs[name])
            seconds[name].append(taken)
            losses[name].append(curve)
            print(f"seed {seed}, {name}: {taken:.1f} s, losses {curve}", flush=True)

    for name, taken in seconds.items():
        speeds = [epochs * len(train) / each for each in taken]
        print(
            f"{name}: {statistics.median(speeds):.1f} pairs a processor second, {min(speeds):.1f} to {max(speeds):.1f}"
        )
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["theirs"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    ours, theirs = np.array(losses["ours"]), np.array(losses["theirs"])
    for stretch in range(ours.shape[1]):
        difference = (ours - theirs)[:, stretch]
        print(
            f"to step {(stretch + 1) * SHARED['logging_steps']}: "
            f"loss {ours[:, stretch].mean():.4f} against {theirs[:, stretch].mean():.4f}, "
            f"mean absolute difference {np.abs(difference).mean():.4f}, mean difference {difference.mean():.4f}, "
            f"range over seeds {np.ptp(ours[:, stretch]):.4f} and {np.ptp(theirs[:, stretch]):.4f}"
        )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        measure(options.rounds, options.epochs, options.batch_size, Path(folder))


if __name__ == "__main__":
    main()
