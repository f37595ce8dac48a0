"""Running a study: every student that is not there yet, in parallel processes, then its tables."""

from __future__ import annotations

import multiprocessing
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
from filelock import FileLock, Timeout
from rich.markup import escape

from manylens.config import Config
from manylens.errors import ConfigError, StageError, UnknownNameError
from manylens.progress import Meter, console, meter
from manylens.recipe import Recipe
from manylens.study import worker
from manylens.study.arms import Study
from manylens.study.job import Job, Places, jobs_of
from manylens.study.measures import MEASURES
from manylens.study.report import head_of, write_study
from manylens.study.tables import study_tables

#: What went wrong, or ``None``.
_Task = Callable[[], str | None]


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished study.

    Attributes:
        figures: In `FIGURE_SCHEMA`.
        contrasts: In `CONTRAST_SCHEMA`.
        page: The Markdown file.
    """

    figures: pa.Table
    contrasts: pa.Table
    page: Path


def run_study(
    study: Study,
    recipe: Recipe,
    overrides: Sequence[str] = (),
    *,
    seeds: Sequence[int],
    out: Path,
    workers: int | None = None,
    keep_models: bool = False,
    named: str | None = None,
) -> StudyResult:
    """Train every student of a study that is not there yet, and write its tables.

    It may be killed at any moment; the same call goes on. More seeds later train only what is new, and studies in the
    same folder share their students.

    Args:
        study: The study.
        recipe: The recipe that the arms change.
        overrides: ``"path.to.key=value"``, for all arms; an arm's own stand over them.
        seeds: Training seeds.
        out: The output folder.
        workers: Processes; by default one for each core.
        keep_models: Keep the models of the students that are trained now.
        named: What the command calls the study, such as the path of its file; its name by default.

    Returns:
        The tables, also written to ``out/NAME.parquet``, ``NAME-contrasts.parquet``, ``NAME.json`` and ``NAME.md``.

    Raises:
        ConfigError: If the recipe or an arm is wrong; nothing was trained then.
        StageError: If students failed, or another process works in `out`; what is trained is kept.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"expected training seeds that differ from each other, got {list(seeds)}")
    for measure in study.measures:
        if measure not in MEASURES:
            raise UnknownNameError("measure", measure, MEASURES)
    out.mkdir(parents=True, exist_ok=True)
    jobs, places = jobs_of(study, recipe, overrides, seeds), Places(out)
    cores = psutil.cpu_count(logical=False) or 1
    workers = workers or cores
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StageError(f"another study is running in {out}; wait for it, or use --out DIR") from None
    try:
        due = _due(study, jobs, places)
        console.print(
            f"[bold]study {escape(study.name)}[/] ─► {escape(str(out))}: arms {len(study.arms)}, seeds {len(seeds)}, "
            f"students to train {len(due)}, processes {workers}",
            soft_wrap=True,
        )
        if due:
            _train(study, due, places, workers, max(1, cores // workers), keep_models)
        figures, contrasts, notes = study_tables(study, jobs, places)
        head = head_of(
            study, jobs, places, command=_command(named or study.name, recipe, overrides, seeds), notes=notes
        )
        return StudyResult(figures=figures, contrasts=contrasts, page=write_study(head, figures, contrasts, out))
    finally:
        lock.release()


def _due(study: Study, jobs: Mapping[str, Sequence[Job]], places: Places) -> list[Job]:
    """Return the students to train, the first seed of every arm before any second."""
    by_seed = (job for arms in zip(*jobs.values(), strict=True) for job in arms)
    distinct = {job.fingerprint: job for job in by_seed}
    return [job for job in distinct.values() if not places.kept_whole(job, vectors=study.vectors)]


def _train(study: Study, due: Sequence[Job], places: Places, workers: int, threads: int, keep_models: bool) -> None:
    """Check the recipes, prepare the upstreams, and train."""
    for name in ("work", "upstream", "jobs"):
        (places.out / name).mkdir(exist_ok=True)
    upstreams = [job for job in _distinct(due, lambda job: job.upstream) if not places.prepared(job)]
    context = multiprocessing.get_context("spawn")  # A forked process would share locks of threads that it lacks.
    with ProcessPoolExecutor(
        workers, context, initializer=worker.start, initargs=(threads, places.out / "workers.log")
    ) as pool:
        try:
            _check(pool, [job.config for job in _distinct(due, _but_the_seed)])
            with meter(f"study {study.name}", len(upstreams) + len(due)) as bar:
                failed = _prepare(pool, due, upstreams, places, bar)
                tasks = {
                    job.fingerprint: partial(
                        worker.train, job, places, threads=threads, vectors=study.vectors, keep_model=keep_models
                    )
                    for job in due
                    if job.upstream not in failed
                }
                failed |= _all(pool, tasks, bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        names = {job.fingerprint: f"{job.config.student.method}, seed {job.seed}" for job in due}
        names |= {job.upstream: "the stages up to embed" for job in due}
        lines = [f"{names[key]}: {problem}" for key, problem in failed.items()]
        missing = sum(places.record(job) is None for job in due)
        raise StageError(
            f"{missing} of {len(due)} students are not there, so no table is written: {'; '.join(lines)}; what "
            f"libraries said is in {places.out / 'workers.log'}; the same command tries them again"
        )


def _check(pool: ProcessPoolExecutor, configs: Iterable[Config]) -> None:
    problems = sorted({problem for problem in pool.map(worker.check, configs) if problem is not None})
    if problems:
        raise ConfigError("; ".join(problems))


def _prepare(
    pool: ProcessPoolExecutor, due: Sequence[Job], upstreams: Sequence[Job], places: Places, bar: Meter
) -> dict[str, str]:
    """Prepare upstreams: one for each set of judgements, then those that only differ in targets."""
    done = {job.judged: job for job in due if places.prepared(job)}
    first = [job for job in _distinct(upstreams, lambda job: job.judged) if job.judged not in done]
    failed = _all(pool, {job.upstream: partial(worker.prepare, job, places, None) for job in first}, bar)
    done |= {job.judged: job for job in first if job.upstream not in failed}
    others = [job for job in upstreams if job not in first]
    tasks = {job.upstream: partial(worker.prepare, job, places, done.get(job.judged)) for job in others}
    return failed | _all(pool, tasks, bar)


def _all(pool: ProcessPoolExecutor, tasks: Mapping[str, _Task], bar: Meter) -> dict[str, str]:
    """Run tasks, and return what went wrong with those that failed."""
    futures = {pool.submit(task): key for key, task in tasks.items()}
    failed = {}
    for future in as_completed(futures):
        error = future.exception()
        problem = future.result() if error is None else f"{type(error).__name__}: {error}"
        if problem is not None:
            failed[futures[future]] = problem
            console.print(f"[bold red]failed[/] {escape(problem)}", soft_wrap=True)
        bar.advance()
    return failed


def _distinct(jobs: Iterable[Job], key: Callable[[Job], str]) -> list[Job]:
    """Return the first job of every key."""
    found: dict[str, Job] = {}
    for job in jobs:
        found.setdefault(key(job), job)
    return list(found.values())


def _but_the_seed(job: Job) -> str:
    student = job.config.student.model_copy(update={"seeds": (0,)})
    return job.config.model_copy(update={"student": student}).model_dump_json()


def _command(study: str, recipe: Recipe, overrides: Sequence[str], seeds: Sequence[int]) -> str:
    """Return the command that runs a study."""
    name = str(recipe) if isinstance(recipe, str | Path) else "RECIPE"
    counted = list(seeds) == list(range(1, len(seeds) + 1))
    told = str(len(seeds)) if counted else ",".join(map(str, seeds)) + "," * (len(seeds) == 1)
    words = ["manylens", "study", study, name, "--seeds", told]
    return shlex.join([*words, *(word for override in overrides for word in ("--set", override))])
