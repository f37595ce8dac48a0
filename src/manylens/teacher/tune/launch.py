"""Starting a training: in this process, or in several through ``accelerate launch``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from manylens.errors import TeacherError
from manylens.teacher.tune.job import TrainJob


def launch(job: TrainJob, processes: int) -> None:
    """Train.

    Args:
        job: The job.
        processes: Processes that share the work, one a GPU. More than one are started by ``accelerate launch``,
            which also reads what ``accelerate config`` wrote, so that FSDP and DeepSpeed are to be had there.

    Raises:
        TeacherError: If a process failed.
    """
    if processes == 1:
        from manylens.teacher.tune.train import train

        train(job)
        return
    path = Path(job.folder) / "job.json"
    job.write(path)
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--num_processes", str(processes)),
        *_hardware(),
        *("--module", "manylens.teacher.tune.worker", str(path)),
    ]
    result = subprocess.run(command, check=False)
    if result.returncode:
        raise TeacherError(
            f"{job.description}: a training process ended with status {result.returncode}, see its messages above; "
            "run the same command again to go on from the last checkpoint"
        )


def _hardware() -> list[str]:
    import torch

    # Among GPUs, accelerate knows what to do. Without any it starts one process, unless it is told that there are some.
    return [] if torch.cuda.is_available() else ["--multi_gpu"]
