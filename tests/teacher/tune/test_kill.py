from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manylens.teacher.backends.local import model_identity
from manylens.teacher.tune.job import WHOLE
from tune.tuning_child import run

CHILD = Path(__file__).with_name("tuning_child.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_killed_trainings_end_with_the_same_weights(teacher: Path, tmp_path: Path) -> None:
    run(teacher, tmp_path / "at once")
    killed = tmp_path / "killed"
    generator = random.Random()
    for phase in ("sft", "dpo"):
        child = subprocess.Popen(
            [sys.executable, str(CHILD), str(teacher), str(killed)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not list((killed / "unified" / phase / "checkpoints").glob(f"checkpoint-*/{WHOLE}")):
            assert child.poll() is None, "the child ended before it saved a checkpoint"
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.5))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert not (killed / "report.json").exists()
    run(teacher, killed)
    for place in ("unified/sft/model", "unified/dpo/model", "unified/model"):
        assert model_identity(str(killed / place)) == model_identity(str(tmp_path / "at once" / place))
    assert (killed / "report.json").read_text() == (tmp_path / "at once" / "report.json").read_text()
