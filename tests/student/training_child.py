"""Trains one student in a process that a test can kill: ``python training_child.py BACKBONE FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from manylens.records import ESCI
from manylens.student.train import TrainReport, train_student

if __name__ == "__main__":
    from build import make_config, make_pairs, make_targets
else:
    from .build import make_config, make_pairs, make_targets


def train_long(backbone: str, folder: Path) -> TrainReport:
    """Train with everything whose state must outlive a kill: warm-ups, dropout, early stopping, grouped lengths."""
    pairs = make_pairs(40)
    config = make_config(
        backbone,
        extractor="gat",
        guide={"weight": 0.2, "warmup_ratio": 0.5},
        new_layers_learning_rate=2e-3,
        early_stopping_patience=8,
        training={
            "num_train_epochs": 40,
            "learning_rate": 3e-4,
            "warmup_steps": 0.1,
            "train_sampling_strategy": "group_by_length",
        },
    )
    return train_student(
        pairs, make_pairs(16, seed=1), ESCI, config, method="lrkd", seed=5, folder=folder, targets=make_targets(pairs)
    )


if __name__ == "__main__":
    train_long(sys.argv[1], Path(sys.argv[2]))
