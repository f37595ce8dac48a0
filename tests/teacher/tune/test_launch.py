from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.errors import TeacherError
from manylens.teacher.tune.launch import launch
from tune.build import make_pairs, make_rows
from tune.test_train import make_job


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["sft", "dpo"])
def test_two_processes_share_the_work(phase: str, teacher: Path, tmp_path: Path) -> None:
    rows = make_rows(make_pairs())
    table = rows.sft if phase == "sft" else rows.preferences
    job = make_job(teacher, table, tmp_path, phase=phase, adapter="lora")
    launch(job, 2)
    report = json.loads((job.trained / "training.json").read_text())
    # Two steps of two rows in each of two processes, of 12 or 8 rows.
    assert (report["processes"], report["steps"]) == (2, 2)
    assert report["epochs"] == pytest.approx(8 / table.num_rows)
    assert (job.trained / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_a_failed_process_is_told_of(teacher: Path, tmp_path: Path) -> None:
    job = make_job(teacher, make_rows(make_pairs()).sft, tmp_path, lora={"no_such": 1}, adapter="lora")
    with pytest.raises(TeacherError, match="sft unified: a training process ended with status 1"):
        launch(job, 2)
