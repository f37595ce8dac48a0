"""Studies whose students were never trained: their predictions are written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.build import random_table
from manylens.config import Config
from manylens.files import write_json
from manylens.recipe import load_config
from manylens.study.arms import Arm, Study
from manylens.study.job import Job, Places, predictions_name

SIZES = {"train": 8, "dev": 4, "test": 12}


def study(*arms: str, **options: object) -> Study:
    """Return a study of arms without overrides; the first is the baseline."""
    fields: dict[str, object] = {"name": "tiny", "title": "Tiny", "baseline": arms[0], **options}
    return Study(arms=tuple(Arm(name=name, title=name.upper()) for name in arms), **fields)  # type: ignore[arg-type]


def config(seed: int = 1) -> Config:
    tree = {"name": "tiny", "data": {"loader": "demo"}, "labels": {"scale": "esci"}}
    return load_config(tree, [f"student.seeds=[{seed}]", "evaluate.bootstrap_samples=100"])


def kept(places: Places, tables: Mapping[str, Sequence[pa.Table]]) -> dict[str, list[Job]]:
    """Write predictions, a table for each seed of every arm, as if students had made them."""
    jobs: dict[str, list[Job]] = {}
    for arm, of_seeds in tables.items():
        for seed, table in enumerate(of_seeds, start=1):
            job = Job(
                config=config(seed), fingerprint=f"{arm}{seed}".ljust(64, "0"), upstream="u" * 64, judged="j" * 64
            )
            folder = places.kept(job)
            folder.mkdir(parents=True)
            pq.write_table(table, folder / predictions_name("as_trained"))
            record = {
                "fingerprint": job.fingerprint,
                "pairs": SIZES,
                "seconds": 1.5 * seed,
                "finished": f"2026-01-0{seed}",
                "machine": {"processors": 2, "accelerator": "GPU of a test"},
                "versions": {"torch": "2.0"},
            }
            write_json(folder / "job.json", record)
            jobs.setdefault(arm, []).append(job)
    return jobs


def predictions(skill: float, seed: int, queries: int = 12) -> pa.Table:
    """Return predictions of test, and of as many dev pairs; the labels are the same for every seed and skill."""
    test = random_table(queries, 4, seed, skill)
    dev = random_table(queries, 4, seed + 1000, skill, labels_seed=7)
    renamed = [f"d{name}" for name in dev["pair_id"].to_pylist()], [f"d{name}" for name in dev["query_id"].to_pylist()]
    for column, values in zip(("pair_id", "query_id"), renamed, strict=True):
        dev = dev.set_column(dev.schema.get_field_index(column), column, pa.array(values))
    return pa.concat_tables([test, dev.set_column(2, "split", pa.array(["dev"] * len(dev)))])


def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "out")
