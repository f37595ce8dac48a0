"""Tunes the tiny teacher until it is done or killed; run by test_kill.py as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from manylens.records import ESCI
from manylens.teacher.perspectives import NEUTRAL
from manylens.teacher.tune import tune
from tune.build import SHORT, make_config, make_pairs, make_rows


def run(teacher: Path, folder: Path) -> None:
    """Tune with LoRA, whose dropout and order of rows hang on the state of random generators."""
    torch.set_num_threads(1)
    options = {**SHORT, "max_steps": 30, "learning_rate": 0.01}
    rows = make_rows(make_pairs())
    tune(
        make_config(sft=options, dpo=options),
        model=str(teacher),
        sft=rows.sft,
        preferences=rows.preferences,
        dev=make_pairs(2, split="dev"),
        scale=ESCI,
        prompt=NEUTRAL,
        folder=folder,
        seed=1,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
