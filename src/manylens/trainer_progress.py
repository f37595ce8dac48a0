"""The progress bar of a training by transformers' `Trainer` or a descendant of it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from manylens.progress import meter


class ProgressMeter(TrainerCallback):
    """One progress bar over all steps, with the loss and the dev score behind it; the first process shows it.

    Args:
        description: What is being trained.
    """

    def __init__(self, description: str) -> None:
        """Remember the description."""
        self.description = description
        self._stack = ExitStack()

    def close(self) -> None:
        """Take the bar down, after a training that failed, too."""
        self._stack.close()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Open the bar where a resumed training stands."""
        if not state.is_world_process_zero:
            return
        self._meter = self._stack.enter_context(meter(self.description, state.max_steps))
        self._meter.advance(state.global_step)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Count a step."""
        if state.is_world_process_zero:
            self._meter.advance()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Show the newest loss and dev score."""
        if not state.is_world_process_zero:
            return
        shown = {"loss": "loss", "eval_macro_f1": "dev macro-F1"}
        newest = {key: value for entry in state.log_history for key, value in entry.items() if key in shown}
        self._meter.note("  ".join(f"{shown[key]} {value:.3f}" for key, value in newest.items()))
