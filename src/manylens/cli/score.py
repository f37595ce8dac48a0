"""The command that scores a table of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manylens.cli.app import app, errors, quiet_libraries
from manylens.progress import console


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="An export, a run folder, or the folder of a student.")],
    pairs: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet or JSONL with a query and a title.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A folder for Parquet shards, or a .csv or .parquet file.")
    ] = Path("scores.csv"),
    variant: Annotated[str | None, typer.Option(help="Such as onnx_int8 or torch; the fastest one by default.")] = None,
    states: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="What precompute stored of the products, for a split student's export."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Where the table names a field otherwise."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that score, each with the model in memory.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Cores of a worker; by default they share all.", min=1)] = None,
    rows_per_shard: Annotated[int, typer.Option(help="Most rows of a shard.", min=1)] = 100_000,
) -> None:
    """Score a table of pairs of any size: class probabilities and the expected gain. Run it again to go on."""
    with errors():
        from manylens.recipe import parse_columns
        from manylens.serving.catalogue import score_catalogue

        report = score_catalogue(
            # States are for an export, so that there is no falling back on the student.
            _folder(model, variant) if states is None else model,
            pairs,
            out,
            columns=parse_columns(columns or []),
            variant=variant,
            states=states,
            workers=workers,
            threads=threads,
            rows_per_shard=rows_per_shard,
        )
        before = report.rows - report.scored
        typer.echo(f"{report.rows:,} pairs ─► {out}" + (f" ({before:,} of them scored before)" if before else ""))


def _folder(model: Path, variant: str | None) -> Path:
    """Return what `Scorer.load` takes: of a run without an export its student."""
    from manylens.run_folder import RunFolder
    from manylens.serving.layout import CARD, CLASSES, EXPORT, TORCH

    exported = (model / EXPORT / CLASSES / CARD).is_file()
    if (model / "config.yaml").is_file() and (variant == TORCH or not (variant or exported)):
        run = RunFolder.open(model)
        run.require("distil")
        if variant is None:
            console.print(
                f"scoring with PyTorch; on a CPU an export is several times faster: manylens export {model}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        model = run.model
    if (model / "config.json").is_file() and not (model / CARD).is_file():
        quiet_libraries()
    return model
