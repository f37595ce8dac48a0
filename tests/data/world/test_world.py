from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manylens.config import RecordedTeacher, WorldData
from manylens.data import Pairs, input_files, load_pairs, recorded_judgements
from manylens.data.world import VERSION
from manylens.recipe import load_config
from manylens.records import ESCI
from manylens.teacher import JudgementStore, build_backend, curate, judge, judgements_of, load_perspective

WORLD = WorldData(loader="world", pairs=300, seed=7, label_noise=0.1, hidden=0.2, teacher_error=0.1)


def test_it_is_made_once_and_the_same_again() -> None:
    (path,) = input_files(WORLD)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    stamp = path.stat().st_mtime_ns
    assert input_files(WORLD.model_copy(update={"split_seed": 5})) == (path,)
    assert path.stat().st_mtime_ns == stamp
    shutil.rmtree(path.parent)
    assert input_files(WORLD) == (path,)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert sorted(before) == ["judgements.jsonl", "pairs.jsonl"]
    assert [file.name for file in path.parent.parent.iterdir() if "." in file.name] == []


@pytest.mark.parametrize(
    "dial",
    [{"pairs": 310}, {"products_per_query": 5}, {"seed": 8}, {"informativeness": 0.5}, {"label_noise": 0.2}],
    ids=str,
)
def test_another_dial_is_another_world(dial: dict[str, float]) -> None:
    assert input_files(WORLD.model_copy(update=dial)) != input_files(WORLD)


def test_the_version_stands_for_what_the_dials_make() -> None:
    """A world in somebody's cache must not outlive a change of what makes it: then raise VERSION too."""
    digest = hashlib.sha256()
    for file in (input_files(WORLD)[0], recorded_judgements(WORLD)):
        digest.update(file.read_bytes())
    assert (VERSION, digest.hexdigest()[:16]) == (1, "4305060c9bbaf43e")


def test_the_pairs_load_and_every_pair_of_train_and_dev_is_judged(tmp_path: Path) -> None:
    report = load_pairs(WORLD, ESCI, tmp_path)
    assert report.queries == {"train": 30, "dev": 40, "test": 120}
    assert (report.rows_read, report.duplicates, report.skipped) == (1900, 0, {})
    pairs = Pairs.read(tmp_path / "pairs.parquet")
    build_backend(RecordedTeacher(), recorded_judgements(WORLD))
    judged = [json.loads(line) for line in recorded_judgements(WORLD).read_text().splitlines()]
    assert len(judged) == 3 * 700
    assert {f"{row['query_id']}:{row['product_id']}" for row in judged} == {
        pair.pair_id for pair in pairs.split("train", "dev")
    }


def test_processes_that_make_the_same_world_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYLENS_CACHE", str(tmp_path))
    code = (
        "from manylens.config import WorldData; from manylens.data import input_files;"
        "print(input_files(WorldData(loader='world', pairs=100))[0].stat().st_size)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    sizes = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(sizes) == 1
    assert len(list((tmp_path / "worlds").iterdir())) == 1


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = WorldData(loader="world", pairs=100)
    monkeypatch.delenv("MANYLENS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert input_files(config)[0].parents[1] == tmp_path / "xdg/manylens/worlds"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert input_files(config)[0].parents[1] == tmp_path / "home/.cache/manylens/worlds"


def test_the_recorded_judgements_of_the_packaged_recipe_are_curated(tmp_path: Path) -> None:
    config = load_config("world", ["data.pairs=100", "data.teacher_error=0.2"])
    load_pairs(config.data, ESCI, tmp_path)
    pairs = Pairs.read(tmp_path / "pairs.parquet").split("train", "dev")
    backend = build_backend(config.teacher, recorded_judgements(config.data))
    perspectives = [load_perspective(name) for name in config.judge.perspectives]
    with JudgementStore(tmp_path / "store.sqlite") as store:
        judge(pairs, perspectives, ESCI, backend, store)
        judgements = list(judgements_of(pairs, perspectives, ESCI, backend, store))
    rationales = curate(pairs, judgements, ESCI, config.curate, config.seed).rationales
    assert rationales.num_rows == len(pairs) == 500
    assert rationales["consistent"].to_pylist().count(True) / 500 == pytest.approx(0.8, abs=0.06)
    assert None not in {judgement.label for judgement in judgements}
