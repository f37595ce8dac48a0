"""A table that is scored with stored states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manylens.cli import app
from manylens.errors import StudentError
from manylens.records import ESCI
from manylens.serving import Scorer
from manylens.serving.catalogue import score_catalogue
from serving.splitting import PAIRS, make_student
from student.build import make_pair

ROWS = [*PAIRS, make_pair("red", "lamp", product_id="p99")]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "pairs.parquet"
    names = ("query", "product_id", "title")
    pq.write_table(pa.table({name: [getattr(pair, name) for pair in ROWS] for name in names}), path)
    return path


def probabilities(folder: Path) -> np.ndarray:
    scored = pq.read_table(folder)
    return np.stack([scored[f"p_{name}"].to_numpy() for name in ESCI.names], axis=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_table_is_scored_from_the_store(
    split_export: Path, stores: dict[str, Path], table: Path, tmp_path: Path, workers: int
) -> None:
    command = ["score", split_export, table, "-o", tmp_path / "scores", "--variant", "onnx_fp32"]
    done = CliRunner().invoke(
        app, [str(word) for word in (*command, "--states", stores["int8"], "--workers", workers, "--threads", 1)]
    )
    assert done.exit_code == 0, done.output
    with (
        Scorer.load(split_export, variant="onnx_fp32", states=stores["int8"]) as reading,
        Scorer.load(split_export, variant="onnx_fp32") as whole,
    ):
        np.testing.assert_allclose(probabilities(tmp_path / "scores"), reading.probabilities(ROWS), atol=1e-5)
        off = np.abs(whole.probabilities(ROWS) - probabilities(tmp_path / "scores")).max()
    assert 1e-5 < off < 5e-2, "the states were rounded, so that the store was read"


def test_scores_with_and_without_a_store_are_never_mixed(
    split_export: Path, stores: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    options = {"variant": "onnx_fp32", "threads": 1, "rows_per_shard": 100}
    assert score_catalogue(split_export, table, out, states=stores["fp16"], **options).scored == len(ROWS)
    (out / "part-00001.parquet").unlink()
    with pytest.raises(StudentError, match=r"holds scores with another model and states_precision; remove it"):
        score_catalogue(split_export, table, out, **options)
    with pytest.raises(StudentError, match=r"holds scores with another states_precision; remove it"):
        score_catalogue(split_export, table, out, states=stores["int8"], **options)
    assert score_catalogue(split_export, table, out, states=stores["fp16"], **options).scored == 61


def test_a_store_that_does_not_fit_is_one_line(
    split_export: Path, exported: Path, student_folder: Path, stores: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    from manylens.serving.precompute import precompute

    products = tmp_path / "products.csv"
    products.write_text("product_id,title\np1,lamp\n")
    precompute(make_student(seed=1), products, tmp_path / "other")
    for model, store, told in (
        (split_export, tmp_path / "other", "holds states of the student"),
        (split_export, tmp_path / "absent", "is no store of states"),
        (exported, stores["fp16"], "has no split layers"),
        (student_folder, stores["fp16"], "stored states are for an export"),
    ):
        done = CliRunner().invoke(
            app, ["score", str(model), str(table), "-o", str(tmp_path / "scores"), "--states", str(store)]
        )
        assert done.exit_code == 1 and told in " ".join(done.output.split()), done.output
        assert not (tmp_path / "scores").exists()
