"""Where the outputs of stages lie that other stages and commands read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manylens.data import Pairs
from manylens.run_folder import RunFolder


def judgement_store_path(run: RunFolder) -> Path:
    """Return the file that keeps the teacher's answers."""
    store = run.config.judge.store
    return run.path / "judge" / "judgements.sqlite" if store is None else Path(store)


def rationales_path(run: RunFolder) -> Path:
    """Return the rationales that are distilled: the panel's own, unless the stage annotate makes others."""
    return run.path / ("annotate" if run.config.annotates else "curate") / "rationales.parquet"


def judged_pairs(run: RunFolder) -> Pairs:
    """Return the pairs of the splits that are judged."""
    return Pairs.read(run.path / "data" / "pairs.parquet").split(*run.config.judge.splits)


def predictions_on_test(run: RunFolder, method: str) -> list[pa.Table]:
    """Return a method's predictions on test, a table for each seed."""
    places = [run.path / "evaluate" / student.name for student in run.students() if student.method == method]
    return [pq.read_table(place / "predictions.parquet", filters=pc.field("split") == "test") for place in places]
