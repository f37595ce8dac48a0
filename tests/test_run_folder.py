from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from manylens import __version__, run_folder
from manylens.errors import StageError
from manylens.recipe import load_config
from manylens.run_folder import RunFolder, StudentPlace, file_hash, fingerprint

CONFIG = load_config("demo")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.start({"data": "abc"})
    return folder


def test_fingerprints_go_by_content_and_not_by_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint("x") == hashlib.sha256(b'["x"]').hexdigest()
    different = [fingerprint(part) for part in (1, "1", [1], None, True, 1.5, {"a": 1}, "é", "\udc80")]
    assert len(set(different)) == len(different)
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert file_hash(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
    (tmp_path / "file").write_bytes(b"other content")
    assert file_hash(tmp_path / "file") == hashlib.sha256(b"other content").hexdigest()


def test_the_mark_is_written_when_the_block_has_ended_and_not_before(run: RunFolder) -> None:
    assert run.state("data", "abc") == "to do"
    with run.running("data", "abc") as folder:
        assert folder == run.path / "data" and folder.is_dir()
        assert not (folder / "done.json").exists()
    assert run.state("data", "abc") == "done"
    assert run.state("data", "other") == "stale"
    done = run.done("data")
    assert done is not None and done == run.record()["stages"]["data"]


def test_a_failure_in_the_block_leaves_no_mark_and_takes_an_old_one_away(run: RunFolder) -> None:
    with run.running("data", "abc"):
        pass
    with pytest.raises(ValueError, match="no"), run.running("data", "def") as folder:
        assert not (folder / "done.json").exists()
        raise ValueError("no")
    assert run.done("data") is None and run.state("data", "abc") == "to do"


def test_the_mark_comes_after_everything_else(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = run_folder.write_json
    monkeypatch.setattr(run_folder, "write_json", lambda path, value: (written.append(path.name), write(path, value)))
    with run.running("data", "abc"):
        pass
    assert written == ["run.json", "done.json"]


def test_usage_is_recorded(run: RunFolder) -> None:
    with run.running("data", "abc"):
        block = np.ones(64 << 20, dtype=np.uint8)
        time.sleep(0.3)
        del block
    first = run.done("data")
    with run.running("judge", "abc"):
        pass
    second = run.done("judge")
    assert first is not None and second is not None
    assert 0.3 <= first["seconds"] < 5.0 and second["seconds"] < 0.3
    assert first["peak_memory_mib"] - second["peak_memory_mib"] > 50.0
    assert set(first) == {"stage", "fingerprint", "finished", "seconds", "peak_memory_mib"}


def test_run_json_tells_versions_machine_and_what_was_wanted(run: RunFolder) -> None:
    record = run.record()
    assert (record["name"], record["seed"], record["wanted"]) == ("demo", 13, {"data": "abc"})
    assert record["versions"]["manylens"] == __version__ and "torch" in record["versions"]
    assert record["machine"]["memory_mib"] > 0 and record["python"].count(".") == 2
    with run.running("data", "abc"):
        pass
    run.start({"data": "def"})
    assert run.record()["wanted"] == {"data": "def"} and "data" in run.record()["stages"]


def test_open_reads_the_recipe_as_it_was_run(run: RunFolder) -> None:
    assert RunFolder.open(run.path).config == CONFIG
    assert RunFolder.open(str(run.path)).path == run.path


@pytest.mark.parametrize("place", ["absent", "."])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(StageError, match=r"is not a run folder: it has no config\.yaml; make one with: manylens run"):
        RunFolder.open(tmp_path / place)


def test_require_wants_what_the_last_run_wanted(run: RunFolder) -> None:
    with pytest.raises(StageError, match="stage data is to do; run its recipe again"):
        run.require("data")
    with run.running("data", "abc"):
        pass
    run.require("data")
    run.start({"data": "def"})
    with pytest.raises(StageError, match=f"stage data is stale.+manylens run {run.path}/config.yaml --run {run.path}"):
        run.require("data")
    with pytest.raises(StageError, match="stage judge is to do"):
        run.require("judge")


def test_students_stand_by_method_then_seed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, load_config(CONFIG, ["student.seeds=[1, 2]"]))
    assert [student.name for student in run.students()] == ["lrkd-seed1", "lrkd-seed2", "bert-seed1", "bert-seed2"]
    assert StudentPlace(method="bert", seed=2).place == "distil/bert-seed2"
    assert run.model == tmp_path / "distil" / "lrkd-seed1"


def test_a_locked_folder_refuses_a_second_process_until_the_first_is_gone(run: RunFolder) -> None:
    hold = (
        "import sys, time; from manylens.recipe import load_config; from manylens.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1], load_config('demo')).locked():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", hold, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(StageError, match="another process is running in"), run.locked():
        pass
    child.kill()  # kill -9: nobody is there to unlock.
    child.wait()
    child.stdout.close()
    with run.locked():
        pass


def test_a_folder_is_unlocked_when_the_block_fails(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="no"), run.locked():
        raise ValueError("no")
    with run.locked(), pytest.raises(StageError, match="another process"), RunFolder(run.path, CONFIG).locked():
        pass
