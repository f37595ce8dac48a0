"""Checkpoints of a training that a kill may strike at any moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

#: What a complete checkpoint of Trainer holds, beside its state.
_CHECKPOINT_FILES = ("model*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")


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


def discard(checkpoints: Path) -> None:
    """Remove all checkpoints, renamed first: a kill must not leave half of one to resume from."""
    discarded = checkpoints.with_name("checkpoints.discarded")
    shutil.rmtree(discarded, ignore_errors=True)
    checkpoints.rename(discarded)
    shutil.rmtree(discarded)
