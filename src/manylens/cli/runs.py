"""Commands that run a recipe and read what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manylens.cli.app import Overrides, Recipe, Run, app, errors, output, quiet_libraries
from manylens.progress import console


@app.command()
def run(
    recipe: Recipe,
    until: Annotated[str | None, typer.Option(help="The last stage to run.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Most that the judgements may cost: 20usd or 5Mtok; sets judge.budget."),
    ] = None,
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Run a recipe: every stage that is not current, in order. Run it again after a stop, and it goes on."""
    with errors():
        from manylens import pipeline, results

        quiet_libraries()
        settings = [*(overrides or []), *([f"judge.budget={budget}"] if budget else [])]
        done = pipeline.run(recipe, settings, folder=folder, until=until)
        if until in (None, "evaluate", "export"):
            for table in results.result_tables(done):
                output.print(table)
            typer.echo(f"model:  {done.model}\nscore:  manylens score {done.path} PAIRS.csv --out SCORES.csv")
        typer.echo(f"run:    {done.path}")


@app.command()
def status(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Show which stages of a run are current, and what each took."""
    with errors():
        from manylens.results import status_table
        from manylens.run_folder import RunFolder

        output.print(status_table(RunFolder.open(folder)))


@app.command()
def check(recipe: Recipe, overrides: Overrides = None) -> None:
    """Check a recipe: its keys, extras, data files, prompts and training options. Nothing costly starts."""
    with errors():
        from manylens import preflight
        from manylens.recipe import load_config

        config = load_config(recipe, overrides or [])
        quiet_libraries()
        preflight.check(config)
        typer.echo(f"{config.name} is ready to run")


@app.command()
def compare(
    treatment: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    baseline: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder to compare it with.")],
) -> None:
    """Compare the students of two runs on the same test pairs, by a paired bootstrap over queries."""
    with errors():
        from manylens.evaluation import comparison_table
        from manylens.results import compare_runs
        from manylens.run_folder import RunFolder

        comparison = compare_runs(RunFolder.open(treatment), RunFolder.open(baseline))
        output.print(comparison_table(comparison, treatment=treatment.name, baseline=baseline.name))


@app.command("show-prompt")
def show_prompt(
    recipe: Recipe,
    pair: Annotated[str, typer.Option(help="A pair's id, such as QUERY_ID:PRODUCT_ID.")],
    perspective: Annotated[str, typer.Option(help="A perspective's name or path, or neutral.")],
    overrides: Overrides = None,
    folder: Run = None,
) -> None:
    """Print exactly what the teacher gets for a pair from one perspective."""
    with errors():
        from manylens.pipeline import load_or_read_pairs
        from manylens.recipe import load_config
        from manylens.teacher import load_perspective, render_prompt

        config, template = load_config(recipe, overrides or []), load_perspective(perspective)
        found, scale = load_or_read_pairs(config, folder).get(pair), config.labels.build()
        for message in render_prompt(template, found, scale, answer_format=config.teacher.answer_format):
            console.print(f"[dim]── {message['role']}[/]")
            typer.echo(message["content"])
