from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import Trainer, TrainingArguments

from manylens import progress
from manylens.trainer_progress import ProgressMeter


class Line(torch.nn.Module):
    """y = a x."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.slope * x - labels) ** 2).mean()}


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    output = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=output, force_terminal=True, width=160))
    return output


def trainer(folder: Path, rows: list[dict[str, float]]) -> Trainer:
    settings = TrainingArguments(
        str(folder),
        max_steps=4,
        logging_steps=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return Trainer(Line(), settings, train_dataset=rows)  # type: ignore[arg-type]


def test_one_bar_shows_steps_and_the_newest_loss(tmp_path: Path, screen: io.StringIO) -> None:
    training = trainer(tmp_path, [{"x": 1.0, "labels": 2.0}] * 8)
    with closing(ProgressMeter("tune sft")) as bar:
        training.add_callback(bar)
        training.train()
    last = screen.getvalue().split("tune sft")[-1]
    losses = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    assert "4/4" in last and f"loss {losses[-1]:.3f}" in last


def test_a_failed_training_takes_its_bar_down(tmp_path: Path, screen: io.StringIO) -> None:
    training = trainer(tmp_path, [{"x": 1.0}] * 8)
    with pytest.raises(TypeError, match="labels"), closing(ProgressMeter("tune sft")) as bar:
        training.add_callback(bar)
        training.train()
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")  # The cursor is shown again.
