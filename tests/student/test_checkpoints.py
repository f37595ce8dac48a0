from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.student.checkpoints import last_checkpoint

COMPLETE = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


def write_checkpoint(folder: Path, step: int, files: set[str] = COMPLETE) -> None:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir()
    for name in files:
        (checkpoint / name).write_text(json.dumps({"global_step": step}), encoding="utf-8")


@pytest.mark.parametrize("missing", sorted(COMPLETE))
def test_the_newest_complete_checkpoint_is_taken_and_incomplete_ones_are_removed(tmp_path: Path, missing: str) -> None:
    assert last_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, 5)
    write_checkpoint(tmp_path, 10)
    write_checkpoint(tmp_path, 15, COMPLETE - {missing})
    write_checkpoint(tmp_path, 20)
    (tmp_path / "checkpoint-20/trainer_state.json").write_text('{"global_s', encoding="utf-8")
    (tmp_path / "train.arrow").touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-5", "train.arrow"]
