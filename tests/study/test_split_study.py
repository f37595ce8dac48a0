"""The study of the split encoder, on a shop and a backbone of four layers."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manylens.study import STUDIES, run_study
from tiny import TinyShop


@pytest.mark.slow
def test_the_split_study_compares_every_depth_with_the_full_student(shop: TinyShop, tmp_path: Path) -> None:
    recipe = shop.recipe(backbone_options={"num_hidden_layers": 4})
    recipe["student"]["training"]["num_train_epochs"] = 1
    run_study(STUDIES["split"], recipe, seeds=[1], out=tmp_path, workers=1)
    contrasts = pq.read_table(tmp_path / "split-contrasts.parquet").to_pylist()
    assert {(row["treatment"], row["baseline"]) for row in contrasts} == {
        (name, "lrkd") for name in ("bert", "split-1", "split-2", "split-3")
    }
    trained = [json.loads(path.read_text())["config"]["student"] for path in tmp_path.glob("jobs/*/job.json")]
    depths = sorted((student["method"], student["split_layers"]) for student in trained)
    assert depths == [("bert", 0), ("lrkd", 0), ("lrkd", 1), ("lrkd", 2), ("lrkd", 3)]
