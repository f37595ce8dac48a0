"""What is kept of a student."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manylens.files import write_json
from manylens.study.job import VECTOR_PAIRS, Places
from study.build import kept, predictions


def test_a_student_lacks_its_states_only_where_they_are_asked_for_and_not_too_many(tmp_path: Path) -> None:
    places = Places(tmp_path)
    (job,) = kept(places, {"bert": [predictions(0.5, seed=1)]})["bert"]
    assert places.kept_whole(job, vectors=False) and not places.kept_whole(job, vectors=True)
    np.savez(places.kept(job) / "vectors.npz", pooled=np.zeros((2, 3)))
    assert places.kept_whole(job, vectors=True)
    (places.kept(job) / "vectors.npz").unlink()
    record = places.record(job)
    assert record is not None
    write_json(places.kept(job) / "job.json", record | {"pairs": {"train": VECTOR_PAIRS, "dev": 1}})
    assert places.kept_whole(job, vectors=True)


def test_a_student_that_is_not_trained_is_not_kept(tmp_path: Path) -> None:
    (job,) = kept(Places(tmp_path / "one"), {"bert": [predictions(0.5, seed=1)]})["bert"]
    assert not Places(tmp_path / "other").kept_whole(job, vectors=False)
