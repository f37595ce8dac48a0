"""The command that stores what a split student can compute of products beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manylens.cli.app import app, errors, quiet_libraries


@app.command()
def precompute(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or the folder of a split student.")],
    products: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet or JSONL with a product_id and a title.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="STORE", help="The folder of the store.")],
    precision: Annotated[str, typer.Option(help="fp16, or int8: half the size.")] = "fp16",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Where the table names a field otherwise."),
    ] = None,
) -> None:
    """Compute the lower layers of every product once, for a student with split layers. Run it again to go on."""
    with errors():
        from manylens.errors import UnknownNameError
        from manylens.serving.states import PRECISIONS

        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        quiet_libraries()
        from manylens.recipe import parse_columns
        from manylens.run_folder import RunFolder
        from manylens.serving.precompute import precompute as fill
        from manylens.student.predict import Student

        model = folder
        if (folder / "config.yaml").is_file():
            opened = RunFolder.open(folder)
            opened.require("distil")
            model = opened.model
        report = fill(Student.load(model), products, out, columns=parse_columns(columns or []), precision=precision)
        typer.echo(f"{report.computed:,} products computed, {report.products:,} in the store ─► {out}")
        typer.echo(f"{report.bytes_per_product:,.0f} bytes a product")
