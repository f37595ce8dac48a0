"""Commands that find new perspectives and measure what they add."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from manylens.cli.app import Overrides, Recipe, Run, app, errors, output
from manylens.progress import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manylens.data import Pairs
    from manylens.run_folder import RunFolder
    from manylens.teacher.backends import Backend

perspectives = typer.Typer(help="Find new perspectives, and measure what they add.", no_args_is_help=True)
app.add_typer(perspectives, name="perspectives", rich_help_panel="Teacher")

Measured = Annotated[int, typer.Option("--measure", min=1, help="Dev pairs to measure on, at most.")]


@perspectives.command()
def propose(
    recipe: Recipe,
    count: Annotated[int, typer.Option("-n", min=1, help="Perspectives to ask for.")] = 3,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the .jinja files.")] = Path("perspectives"),
    pairs: Annotated[int, typer.Option(min=1, help="Train pairs to show, half of them errors of the panel.")] = 24,
    most: Measured = 200,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Only write the files.")] = False,
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Ask the teacher for new perspectives, write them as files to edit, and measure on dev what each adds."""
    with errors():
        from manylens.artefacts import judgement_store_path
        from manylens.pipeline import load_or_read_pairs
        from manylens.recipe import load_config
        from manylens.run_folder import RunFolder
        from manylens.teacher import JudgementStore, build_backend, load_perspective
        from manylens.teacher.propose import KEPT, proposing_teacher
        from manylens.teacher.propose import propose as ask

        config = load_config(recipe, overrides or [])
        proposing = proposing_teacher(config.teacher)
        backend = build_backend(config.teacher)
        # One backend where it can be: a local model is loaded once.
        proposer = backend if proposing == config.teacher else build_backend(proposing)
        run, found = RunFolder.of(config, folder), load_or_read_pairs(config, folder)
        with run.locked(), JudgementStore(judgement_store_path(run)) as store:
            proposed = ask(
                found.split("train"),
                [load_perspective(name) for name in config.judge.perspectives],
                config.labels.build(),
                backend,
                proposer,
                store,
                out,
                count=count,
                shown=pairs,
                seed=config.seed,
            )
        console.print(f"[dim]shown: {proposed.shown} train pairs, on {proposed.errors} of them the panel is wrong[/]")
        files = [str(file) for file in proposed.files]
        for file in files:
            typer.echo(f"{file}: {load_perspective(file).description}")
        if len(files) < count or proposed.refused:
            note = f"asked for {count}, got {len(files)}; {proposed.refused} without a name or an instruction"
            console.print(f"[yellow]{note}; the raw answer is in {escape(str(out / KEPT))}[/]", soft_wrap=True)
        if not no_measure:
            _print_additions(run, found, backend, files, most)
        typer.echo("Edit the files, measure them again, and add those that help to judge.perspectives.")


@perspectives.command()
def measure(
    recipe: Recipe,
    files: Annotated[list[str], typer.Argument(metavar="FILES", help="Perspectives: .jinja files, or names.")],
    most: Measured = 200,
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Judge dev pairs with the panel and further perspectives, and show what each adds to the oracle."""
    with errors():
        from manylens.data import recorded_judgements
        from manylens.pipeline import load_or_read_pairs
        from manylens.recipe import load_config
        from manylens.run_folder import RunFolder
        from manylens.teacher import build_backend

        config = load_config(recipe, overrides or [])
        backend = build_backend(config.teacher, recorded_judgements(config.data))
        run = RunFolder.of(config, folder)
        _print_additions(run, load_or_read_pairs(config, folder), backend, files, most)


def _print_additions(run: RunFolder, pairs: Pairs, backend: Backend, files: Sequence[str], most: int) -> None:
    from manylens.artefacts import judgement_store_path
    from manylens.teacher import JudgementStore, load_perspective
    from manylens.teacher.additions import additions_table, judge_additions

    config = run.config
    panel, candidates = ([load_perspective(name) for name in part] for part in (config.judge.perspectives, files))
    with run.locked(), JudgementStore(judgement_store_path(run)) as store:
        additions = judge_additions(
            pairs.split("dev"),
            panel,
            candidates,
            config.labels.build(),
            backend,
            store,
            most=most,
            seed=config.seed,
            retry_unparsed=config.judge.retry_unparsed,
        )
    output.print(additions_table(additions))
