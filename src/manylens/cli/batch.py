"""Commands that judge through batch jobs: half the price, within a day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from manylens.cli.app import Overrides, Recipe, Run, app, errors

if TYPE_CHECKING:
    from manylens.config import JudgeConfig
    from manylens.data import Pairs
    from manylens.records import LabelScale
    from manylens.teacher import JudgementStore
    from manylens.teacher.backends import Request
    from manylens.teacher.backends.openai import OpenAIBackend

batch = typer.Typer(help="Judge through batch files, as OpenAI's batch API takes them.", no_args_is_help=True)
app.add_typer(batch, name="batch", rich_help_panel="Teacher")


@batch.command()
def write(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .jsonl file; further ones are numbered.")],
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Write the questions that the store cannot answer yet as batch files."""
    with errors(), _work(recipe, overrides, folder) as work:
        from manylens.teacher.backends.batch import requests_due, write_batch

        due = requests_due(work.questions(), work.backend, work.scale, work.store, work.config.retry_unparsed)
        files = write_batch(due, work.backend, out)
        for path, count in files:
            typer.echo(f"{count:,} requests ─► {path}")
        if not files:
            typer.echo("every question is answered; go on with: manylens run")
        else:
            typer.echo(f"hand them in, then: manylens batch read {recipe} RESULTS.jsonl")


@batch.command()
def read(
    recipe: Recipe,
    files: Annotated[list[Path], typer.Argument(help="Result files of the batch jobs, errors too.")],
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Put the answers of batch jobs into the store, from which manylens run goes on."""
    with errors(), _work(recipe, overrides, folder) as work:
        from manylens.teacher.backends.batch import BatchResults, ingest

        results = BatchResults(files)
        answers = results.answers(work.attempts(), work.backend)
        new, report = ingest(answers, work.backend, work.scale, work.store), results.report()
        typer.echo(f"{report.rows:,} rows: {report.answered:,} answers, {new:,} of them new ─► {work.store.path}")
        for what, count in (
            *((f"failed ({reason})", count) for reason, count in report.failed.items()),
            ("duplicates, left out", report.duplicates),
            ("of other questions (another recipe, teacher or prompt)", report.unknown),
        ):
            if count:
                typer.echo(f"{count:,} {what}")


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a recipe has to judge, by whom, and its open store."""

    config: JudgeConfig
    pairs: Pairs
    scale: LabelScale
    backend: OpenAIBackend
    store: JudgementStore

    def questions(self) -> Iterator[Request]:
        """Yield every question of the recipe, at attempt 0, with a progress bar."""
        from manylens.progress import meter
        from manylens.teacher import load_perspective
        from manylens.teacher.questions import requests_of

        panel = [load_perspective(name) for name in self.config.perspectives]
        samples, form = self.config.samples, self.backend.answer_format
        with meter("batch", len(self.pairs) * len(panel) * samples) as bar:
            for request in requests_of(self.pairs, panel, self.scale, samples, answer_format=form):
                yield request
                bar.advance()

    def attempts(self) -> Iterator[Request]:
        """Yield every question at each of its attempts."""
        for question in self.questions():
            for attempt in range(1 + self.config.retry_unparsed):
                yield replace(question, attempt=attempt)


@contextmanager
def _work(recipe: str, overrides: list[str] | None, folder: Path | None) -> Iterator[_Work]:
    """Read a recipe, and hold its run folder."""
    from manylens.artefacts import judgement_store_path
    from manylens.config import OpenAITeacher
    from manylens.errors import ConfigError
    from manylens.pipeline import load_or_read_pairs
    from manylens.recipe import load_config
    from manylens.run_folder import RunFolder
    from manylens.teacher import JudgementStore
    from manylens.teacher.backends import build_backend
    from manylens.teacher.judge import check_sampling

    config = load_config(recipe, overrides or [])
    if not isinstance(config.teacher, OpenAITeacher):
        raise ConfigError(f"batch files are for teacher.backend openai, the recipe has {config.teacher.backend!r}")
    check_sampling(config.teacher, config.judge)
    run, pairs = RunFolder.of(config, folder), load_or_read_pairs(config, folder)
    with run.locked(), JudgementStore(judgement_store_path(run)) as store:
        yield _Work(
            config=config.judge,
            pairs=pairs.split(*config.judge.splits),
            scale=config.labels.build(),
            backend=cast("OpenAIBackend", build_backend(config.teacher)),
            store=store,
        )
