from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manylens.errors import StudentError
from manylens.student.targets import Targets

TARGETS = Targets(
    pair_ids=("q1:p1", "q1:p2"),
    names=("votes", "pair_id"),  # Perspectives may be called what they like.
    vectors=np.arange(12, dtype=np.float32).reshape(2, 2, 3),
    mask=np.array([[True, False], [True, True]]),
    votes=np.array([[0.25, 0.75, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32),
    texts=("one\ntwo", ""),
)


def test_saving_and_loading(tmp_path: Path) -> None:
    TARGETS.save(tmp_path)
    loaded = Targets.load(tmp_path)
    assert (loaded.pair_ids, loaded.names, loaded.texts, loaded.dim) == (
        TARGETS.pair_ids,
        TARGETS.names,
        TARGETS.texts,
        3,
    )
    for name in ("vectors", "mask", "votes"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(TARGETS, name))
        assert getattr(loaded, name).dtype == getattr(TARGETS, name).dtype
    assert isinstance(loaded.vectors, np.memmap)


def test_files_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    TARGETS.save(tmp_path)
    np.save(tmp_path / "targets.npy", np.zeros((3, 2, 2), dtype=np.float32))
    with pytest.raises(StudentError, match=r"targets\.npy has shape \(3, 2, 2\), targets\.parquet \(2, 2\); run embed"):
        Targets.load(tmp_path)
