from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from judging_child import IN_FLIGHT, PAIRS, PANEL, SlowTeacher

from manylens.records import ESCI
from manylens.teacher.judge import judgements_of
from manylens.teacher.store import JudgementStore

CHILD = Path(__file__).with_name("judging_child.py")
KILLS = 4


def keys(log: Path) -> list[tuple[str, str, int]]:
    if not log.exists():
        return []
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_kill_9_loses_only_what_is_in_flight(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite"
    logs = [tmp_path / f"run{number}.jsonl" for number in range(KILLS + 1)]
    generator = random.Random()
    for log in logs[:-1]:
        child = subprocess.Popen([sys.executable, str(CHILD), str(database), str(log)], stderr=subprocess.DEVNULL)
        while not keys(log):
            assert child.poll() is None, "the child ended before it asked anything"
            time.sleep(0.002)
        time.sleep(generator.uniform(0.0, 0.3))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, str(CHILD), str(database), str(logs[-1])], check=True, capture_output=True)

    wanted = {(pair.pair_id, perspective.name, 0) for pair in PAIRS for perspective in PANEL}
    runs = [keys(log) for log in logs]
    asked = Counter(key for run in runs for key in run)
    assert set(asked) == wanted
    for number, run in enumerate(runs[:-1]):
        again = set(run) & {key for later in runs[number + 1 :] for key in later}
        # Answers come out of order, so the requests in flight are not always the last ones.
        assert len(again) <= IN_FLIGHT
    with JudgementStore(database) as store:
        assert len(store) == len(wanted)
        judgements = list(judgements_of(PAIRS, PANEL, ESCI, SlowTeacher(tmp_path / "unused"), store))
    assert {(j.pair_id, j.perspective, j.sample) for j in judgements} == wanted
    assert {j.label for j in judgements} == {"exact"}
