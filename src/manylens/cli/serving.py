"""The command that exports a run's student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manylens.cli.app import app, errors, output, quiet_libraries


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose students are evaluated.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as export.calibration_pairs=500."),
    ] = None,
) -> None:
    """Export a run's student as ONNX or OpenVINO graphs, each compared with PyTorch before it is handed out."""
    with errors():
        from manylens import pipeline, results

        quiet_libraries()
        done = pipeline.export(folder, overrides or [])
        output.print(results.parity_of(done))
        typer.echo(f"export: {done.path / 'export'}")
