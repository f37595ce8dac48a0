from __future__ import annotations

from pathlib import Path

from manylens.teacher.tune.job import WHOLE, TrainJob, last_checkpoint


def test_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) is None
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = TrainJob(
        phase="dpo",
        description="dpo unified",
        model="m",
        rows="rows.parquet",
        folder="f",
        options={"learning_rate": 5e-6, "loss_type": ["sigmoid"]},
        adapter="lora",
        lora={"r": 16},
        max_length=512,
        seed=1,
    )
    job.write(tmp_path / "job.json")
    assert TrainJob.read(tmp_path / "job.json") == job
    assert (job.checkpoints, job.trained) == (Path("f/checkpoints"), Path("f/trained"))
