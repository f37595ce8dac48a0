"""What each process of ``accelerate launch`` runs: ``python -m manylens.teacher.tune.worker JOB.json``."""

from __future__ import annotations

import sys
from pathlib import Path

from manylens.teacher.tune.job import TrainJob
from manylens.teacher.tune.train import train

if __name__ == "__main__":
    train(TrainJob.read(Path(sys.argv[1])))
