"""The application that the commands join, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from manylens._version import __version__
from manylens.errors import BudgetError, ManylensError, MissingExtraError
from manylens.progress import console

app = typer.Typer(
    name="manylens",
    help="Keep what a large language model reasons about query-product relevance in a small BERT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
output = Console()

Recipe = Annotated[str, typer.Argument(help="A YAML file, or the name of a packaged recipe such as demo.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as student.extractor=gat.")
]
Run = Annotated[Path | None, typer.Option("--run", help="The run folder; runs/NAME by default.")]


@contextmanager
def errors() -> Iterator[None]:
    """Show what manylens raises on purpose as one line, and end with status 1; 3 where the budget is spent."""
    try:
        yield
    except ManylensError as error:
        # One line, also where a library's own words run over several.
        console.print(f"[bold red]error[/] {escape(' '.join(str(error).split()))}", soft_wrap=True, highlight=False)
        raise typer.Exit(3 if isinstance(error, BudgetError) else 1) from None


def quiet_libraries() -> None:
    """Leave the terminal to our own progress bars.

    Raises:
        MissingExtraError: If the libraries are not installed.
    """
    try:
        import transformers
        from datasets.utils import logging as datasets_logging
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "transformers", "train") from None

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets_logging.disable_progress_bar()


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Take the options that stand before a command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
