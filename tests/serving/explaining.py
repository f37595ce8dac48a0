"""An export with rationales beside it, made without training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from manylens.config import EmbedConfig
from manylens.data import Pairs
from manylens.records import ESCI, Pair
from manylens.serving.indexing import write_rationales
from manylens.serving.layout import CLASSES
from manylens.student import Student
from manylens.student.targets import Targets
from student.build import DIM, make_pairs

PERSPECTIVES = ("user_intent", "business_rules")
TRAIN, DEV = 20, 12


def shop() -> Pairs:
    """Return pairs of train and dev."""
    pairs = make_pairs(TRAIN + DEV)
    return Pairs.from_records(
        [replace(pair, split="train" if place < TRAIN else "dev") for place, pair in enumerate(pairs)]
    )


def judge(pairs: Pairs) -> pa.Table:
    """Return rationales: of every pair one of each perspective, but of the third pair the first perspective alone."""
    rows = [
        {
            "pair_id": pair.pair_id,
            "perspective": perspective,
            "label": pair.label,
            "rationale": f"{perspective} of {pair.pair_id}",
            "consistent": (place, perspective) != (2, PERSPECTIVES[1]),
            "rationalized": False,
        }
        for place, pair in enumerate(pairs)
        for perspective in PERSPECTIVES
    ]
    return pa.Table.from_pylist(rows)


def aim(pairs: Pairs, names: tuple[str, ...] = ("rationale",)) -> Targets:
    """Return random targets; two pairs have the same one, of another length."""
    ids = tuple(pair.pair_id for pair in pairs)
    vectors = np.random.default_rng(3).normal(size=(len(ids), len(names), DIM)).astype(np.float32)
    vectors[9] = 2 * vectors[5]
    mask = np.ones(vectors.shape[:2], dtype=bool)
    if len(names) > 1:
        mask[2, 1] = False
        vectors[2, 1] = 0
    votes = np.zeros((len(ids), len(ESCI.names)), dtype=np.float32)
    return Targets(pair_ids=ids, names=names, vectors=vectors, mask=mask, votes=votes, texts=("",) * len(ids))


def add_rationales(student: Student, folder: Path, **changes: object) -> Targets:
    """Write an index of `shop` into an export folder, and return its targets."""
    pairs = shop()
    targets = aim(pairs, tuple(student.model.config.latent_names))
    values = {"config": EmbedConfig(), "name": "tiny", "seed": 0, "table": judge(pairs), "targets": targets, **changes}
    write_rationales(student, pairs, **values, folder=folder)  # type: ignore[arg-type]
    return targets


def copy_with_rationales(exported: Path, student_folder: Path, folder: Path) -> Path:
    """Copy the class head of an export, and write rationales beside it."""
    shutil.copytree(exported / CLASSES, folder / CLASSES)
    add_rationales(Student.load(student_folder, device="cpu"), folder)
    return folder


def of_train(pairs: Pairs) -> list[Pair]:
    """Return the training pairs."""
    return list(pairs.split("train"))
