"""One training: all that the process or processes that train need to know, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from manylens.files import write_json
from manylens.teacher.tune.options import Phase

#: Written into a checkpoint's folder when the checkpoint is whole.
WHOLE = "whole"


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What is trained, on what, and how.

    Attributes:
        phase: Supervised fine-tuning, or direct preference optimisation.
        description: For the progress bar.
        model: The model that training starts from, by id or path; in DPO it is the reference, too.
        rows: A Parquet file of rows.
        folder: Gets ``checkpoints`` while training and ``trained`` at its end.
        options: For `trl.SFTConfig` or `trl.DPOConfig`.
        adapter: As in `TuneConfig`.
        lora: For `peft.LoraConfig`.
        max_length: At least the tokens of the longest row.
        seed: Of adapter weights, dropout and order.
    """

    phase: Phase
    description: str
    model: str
    rows: str
    folder: str
    options: dict[str, Any]
    adapter: Literal["lora", "qlora", "none"]
    lora: dict[str, Any]
    max_length: int
    seed: int

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go."""
        return Path(self.folder) / "checkpoints"

    @property
    def trained(self) -> Path:
        """Where the adapter or the full weights go, with the tokenizer and ``training.json``."""
        return Path(self.folder) / "trained"

    def write(self, path: Path) -> None:
        """Write the job to a JSON file."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> TrainJob:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest whole checkpoint in a folder, or ``None``.

    One that a kill cut off while it was written has no mark. One that it cut off while it was deleted is never
    the newest: the two before the one being written are kept.
    """
    whole = [path for path in folder.glob("checkpoint-*") if (path / WHOLE).exists()]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None
