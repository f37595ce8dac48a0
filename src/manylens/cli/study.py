"""The command that trains many students and says which is better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manylens.cli.app import Overrides, Recipe, app, errors, quiet_libraries


@app.command(rich_help_panel="Evidence")
def study(
    name: Annotated[str, typer.Argument(help="A study, such as methods or controls, or a YAML file of your own.")],
    recipe: Recipe,
    seeds: Annotated[
        str, typer.Option(metavar="N|LIST", help="So many training seeds, from 1 up; or a list, such as 3,7,11.")
    ] = "5",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one for each core by default.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The output folder; studies/RECIPE by default.")
    ] = None,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Keep the students' models.")] = False,
    overrides: Overrides = None,
) -> None:
    """Train every arm of a study over seeds, and compare. Run it again after a stop, and it goes on."""
    with errors():
        from manylens.recipe import load_config
        from manylens.study.catalogue import get_study
        from manylens.study.runner import run_study

        wanted = get_study(name)
        if wanted.measures:
            quiet_libraries()  # Measures load models in this process.
        done = run_study(
            wanted,
            recipe,
            overrides or [],
            seeds=parse_seeds(seeds),
            out=out or Path("studies") / load_config(recipe, overrides or []).name,
            workers=workers,
            keep_models=keep_models,
            named=name,
        )
        typer.echo(done.page.read_text(encoding="utf-8"))
        typer.echo(f"tables: {done.page.with_suffix('')}.md, .parquet, -contrasts.parquet")


def parse_seeds(text: str) -> list[int]:
    """Return training seeds: 1 to N for ``"N"``, else the list that a comma parts; ``"7,"`` is seed 7 alone.

    Raises:
        ConfigError: If the text is neither.
    """
    from manylens.errors import ConfigError

    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or numbers == [0]:
        raise ConfigError(f"seeds are a number of them, such as 5, or a list, such as 3,7,11; got {text!r}")
    return numbers if "," in text else list(range(1, numbers[0] + 1))
