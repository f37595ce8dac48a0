"""Jobs: the students that a study needs, each trained once, whichever studies and arms share it.

OUT/upstream/<fingerprint>/        a run folder up to the stage embed, one for each distinct upstream
OUT/work/<fingerprint>/            the run folder of a student in training
OUT/jobs/<fingerprint>/            what is kept of a student:
    predictions.parquet                of dev and test
    predictions-zero_latents.parquet   the same with zeros for the latents, where it has any
    vectors.npz                        its states of every pair, where the study asks for them
    training.json                      the training's report
    job.json                           recipe, seed, time; written last
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manylens.config import Config
from manylens.errors import StageError
from manylens.pipeline import fingerprints, stages_of
from manylens.recipe import Recipe, load_config
from manylens.run_folder import RunFolder, StudentPlace
from manylens.stages import student_fingerprint
from manylens.study.arms import Arm, Inference, Study

#: Pairs up to which a student's states are kept.
VECTOR_PAIRS = 20_000
#: Characters of a fingerprint that name a folder.
_SHORT = 16


@dataclass(frozen=True, kw_only=True)
class Job:
    """One student.

    Attributes:
        config: The recipe, with the arm's method and this seed alone.
        fingerprint: Of all that the student depends on.
        upstream: Of the stage embed.
        judged: Of the stage before it: upstreams that only differ in targets share it.
    """

    config: Config
    fingerprint: str
    upstream: str
    judged: str

    @property
    def seed(self) -> int:
        """The training seed."""
        return self.config.student.seeds[0]


@dataclass(frozen=True)
class Places:
    """The folders under a study's output folder.

    Attributes:
        out: The output folder.
    """

    out: Path

    def kept(self, job: Job) -> Path:
        """Return the folder of what is kept of a student."""
        return self.out / "jobs" / job.fingerprint[:_SHORT]

    def work(self, job: Job) -> Path:
        """Return the run folder of a student in training."""
        # With the upstream: methods without targets are the same student on any of them, their run folders are not.
        return self.out / "work" / f"{job.fingerprint[:_SHORT]}-{job.upstream[:8]}"

    def upstream(self, job: Job) -> Path:
        """Return the run folder of a student's upstream."""
        return self.out / "upstream" / job.upstream[:_SHORT]

    def prepared(self, job: Job) -> bool:
        """Return whether a student's upstream is there."""
        return RunFolder(self.upstream(job), job.config).state("embed", job.upstream) == "done"

    def record(self, job: Job) -> dict[str, Any] | None:
        """Return ``job.json`` of a student; ``None`` where it is not trained yet."""
        try:
            found: dict[str, Any] = json.loads((self.kept(job) / "job.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found if found["fingerprint"] == job.fingerprint else None

    def kept_whole(self, job: Job, *, vectors: bool) -> bool:
        """Return whether a student is trained, and its states are there where they are asked for and not too many."""
        record = self.record(job)
        if record is None or not vectors or sum(record["pairs"].values()) > VECTOR_PAIRS:
            return record is not None
        return (self.kept(job) / "vectors.npz").exists()

    def predictions(self, job: Job, inference: Inference = "as_trained") -> pa.Table:
        """Return a student's predictions of dev and test.

        Raises:
            StageError: If the student has no latents to set to zero.
        """
        path = self.kept(job) / predictions_name(inference)
        if not path.exists():
            raise StageError(f"{path} is not there: method {job.config.student.method!r} has no latents to set to zero")
        return pq.read_table(path)


def predictions_name(inference: Inference) -> str:
    """Return the name of the file of predictions."""
    return "predictions.parquet" if inference == "as_trained" else f"predictions-{inference}.parquet"


def jobs_of(study: Study, recipe: Recipe, overrides: Sequence[str], seeds: Sequence[int]) -> dict[str, list[Job]]:
    """Return the students of every arm, in the order of the seeds.

    Args:
        study: The study.
        recipe: The recipe that the arms change.
        overrides: Changes of the recipe for all arms.
        seeds: Training seeds.

    Returns:
        By the arm's name; arms that share a student have equal jobs.

    Raises:
        ManylensError: If the recipe or an arm is wrong, or an input file is missing.
    """
    return {arm.name: _jobs(arm, recipe, overrides, seeds) for arm in study.arms}


def _jobs(arm: Arm, recipe: Recipe, overrides: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    changes = [*overrides, *arm.overrides, f"student.method={arm.method}", "student.baselines=[]"]
    config = load_config(recipe, changes)
    asked = [stage.name for stage in stages_of(config)]
    found = fingerprints(config, until="embed")
    return [
        Job(
            config=config.model_copy(update={"student": config.student.model_copy(update={"seeds": (seed,)})}),
            fingerprint=student_fingerprint(config, StudentPlace(method=arm.method, seed=seed), found),
            upstream=found["embed"],
            judged=found[asked[asked.index("embed") - 1]],
        )
        for seed in seeds
    ]
