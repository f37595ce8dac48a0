"""What a worker process of a study does: prepare an upstream, or train one student and keep what matters of it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from datetime import UTC, datetime
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from manylens import pipeline, preflight
from manylens.config import Config
from manylens.data import Pairs
from manylens.errors import ManylensError
from manylens.files import write_json
from manylens.progress import console, meter
from manylens.records import SPLITS
from manylens.stages import predictions_of
from manylens.study.job import VECTOR_PAIRS, Job, Places, predictions_name

#: Of an upstream, what a student's run folder has no use for or writes itself.
_NOT_LINKED = shutil.ignore_patterns("*.sqlite*", ".lock", "run.json", "config.yaml")


def start(threads: int, log: Path) -> None:
    """Set a worker process up, before it imports anything heavy.

    Args:
        threads: Threads of its matrix products.
        log: Where what libraries print goes, so that it does not garble the progress bar.
    """
    os.environ |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    console.quiet = True
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent is gone: after kill -9 nothing may train on in the same folder."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def check(config: Config) -> str | None:
    """Check a recipe, and return what is wrong with it."""
    try:
        preflight.check(config)
    except ManylensError as error:
        return str(error)
    return None


def prepare(job: Job, places: Places, like: Job | None) -> str | None:
    """Run a student's upstream: every stage up to embed.

    Args:
        job: The student.
        places: The folders.
        like: A student whose upstream is prepared and differs in targets alone: its judgements are taken over, and
            its vectors.

    Returns:
        What went wrong, or ``None``.
    """
    folder = places.upstream(job)
    if like is not None and not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(places.upstream(like), unfinished, ignore=shutil.ignore_patterns(".lock"))
        unfinished.rename(folder)
    try:
        pipeline.run(_with_shared_store(job.config, places), folder=folder, until="embed")
    except ManylensError as error:
        return str(error)
    return None


def _with_shared_store(config: Config, places: Places) -> Config:
    """Return the recipe with one judgement store for all upstreams, where answers may cost something."""
    if config.teacher.backend == "recorded" or config.judge.store is not None:
        return config
    judge = config.judge.model_copy(update={"store": str(places.out / "judgements.sqlite")})
    return config.model_copy(update={"judge": judge})


def train(job: Job, places: Places, *, threads: int, vectors: bool, keep_model: bool) -> str | None:
    """Train a student, or finish its training, and keep what matters of it.

    Args:
        job: The student; its upstream is prepared.
        places: The folders.
        threads: Threads of its matrix products.
        vectors: Keep its states of every pair.
        keep_model: Keep the model's folder as ``model``.

    Returns:
        What went wrong, or ``None``.
    """
    import torch

    torch.set_num_threads(threads)
    started, work, kept = time.monotonic(), places.work(job), places.kept(job)
    if not work.exists():
        unfinished = work.with_name(f"{work.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(places.upstream(job), unfinished, ignore=_NOT_LINKED, copy_function=_link)
        unfinished.rename(work)
    try:
        run = pipeline.run(job.config, folder=work, until="evaluate")
    except ManylensError as error:
        return str(error)
    kept.mkdir(parents=True, exist_ok=True)
    (student,) = run.students()
    shutil.copy(run.path / "evaluate" / student.name / "predictions.parquet", kept / predictions_name("as_trained"))
    shutil.copy(run.model / "training.json", kept / "training.json")
    sizes = _keep_states(run.model, Pairs.read(run.path / "data" / "pairs.parquet"), kept, vectors=vectors)
    if keep_model:
        shutil.copytree(run.model, kept / "model", copy_function=_link, dirs_exist_ok=True)
    record = {
        "fingerprint": job.fingerprint,
        "method": student.method,
        "seed": student.seed,
        "pairs": sizes,
        "seconds": round(time.monotonic() - started, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": run.record()["machine"],
        "versions": run.record()["versions"],
        "config": job.config.model_dump(mode="json"),
    }
    write_json(kept / "job.json", record)
    shutil.rmtree(work)
    return None


def _keep_states(model: Path, pairs: Pairs, kept: Path, *, vectors: bool) -> dict[str, int]:
    """Write the predictions with zeros for the latents, and the states; return the size of every split."""
    from manylens.student.predict import Student

    student = Student.load(model)
    if student.model.extractor is not None:
        measured = pairs.split("dev", "test")
        with meter("evaluate with latents zeroed", len(measured)) as bar:
            zeroed = predictions_of(student, measured, bar, zero_latents=True)
        pq.write_table(zeroed, kept / predictions_name("zero_latents"))
    if vectors and len(pairs) <= VECTOR_PAIRS:
        states = student.states(list(pairs))
        vectors_of = {"pooled": states.pooled} | ({} if states.latents is None else {"latents": states.latents})
        halves: dict[str, Any] = {name: array.astype(np.float16) for name, array in vectors_of.items()}
        np.savez(kept / "vectors.npz", pair_ids=np.array(pairs.table["pair_id"].to_pylist()), **halves)
    return {split: len(pairs.split(split)) for split in SPLITS}


def _link(source: str, target: str) -> str:
    """Link a file, or copy it where the file system has no hard links; upstreams are read, never written."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
