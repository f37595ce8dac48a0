"""The command that shows what the teacher's panel is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manylens.cli.app import app, errors, output

if TYPE_CHECKING:
    from rich.table import Table

    from manylens.config import Config
    from manylens.run_folder import RunFolder
    from manylens.teacher.panel import PanelStatistics


@app.command(rich_help_panel="Teacher")
def panel(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose pairs are judged and curated.")],
    confusion: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Show how the labels of two perspectives go together.")
    ] = None,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the panel's vote on every pair as Parquet.")
    ] = None,
) -> None:
    """Show what the teacher's panel is worth: its perspectives, more calls, disagreement, cost, and its votes."""
    with errors():
        import pyarrow.parquet as pq

        from manylens.artefacts import judged_pairs
        from manylens.errors import UnknownNameError
        from manylens.evaluation.votes import score_votes, votes_table
        from manylens.run_folder import RunFolder
        from manylens.teacher.judgements import read_judgements
        from manylens.teacher.panel import label_confusion
        from manylens.teacher.panel_tables import confusion_table
        from manylens.teacher.votes import cast_votes

        run = RunFolder.open(folder)
        run.require("curate")
        config, scale, statistics = run.config, run.config.labels.build(), _statistics(run)
        judgements = run.path / "judge" / "judgements.parquet"
        for table in _tables(statistics, config):
            output.print(table)
        names = list(statistics.by_perspective)
        if confusion is not None:
            if unknown := [name for name in confusion if name not in names]:
                raise UnknownNameError("perspective", unknown[0], names)
            counts = label_confusion(read_judgements(judgements), scale, *confusion)
            output.print(confusion_table(counts, scale, *confusion))
        cast = cast_votes(judged_pairs(run), read_judgements(judgements), scale, names)
        output.print(votes_table(score_votes(cast, scale, config.evaluate, config.seed)))
        if votes is not None:
            pq.write_table(cast.table, votes)
            typer.echo(f"{cast.table.num_rows:,} pairs ─► {votes}")


def _statistics(run: RunFolder) -> PanelStatistics:
    from pydantic import TypeAdapter

    from manylens.teacher.panel import PanelStatistics

    return TypeAdapter(PanelStatistics).validate_json((run.path / "curate" / "panel.json").read_bytes())


def _tables(statistics: PanelStatistics, config: Config) -> list[Table]:
    from manylens.config import PriceConfig, RecordedTeacher
    from manylens.teacher.panel import panel_table
    from manylens.teacher.panel_tables import cost_table, disagreement_table, pass_table

    return [
        panel_table(statistics, config.labels.build()),
        pass_table(statistics.pass_at_k),
        disagreement_table(statistics),
        cost_table(statistics, PriceConfig() if isinstance(config.teacher, RecordedTeacher) else config.teacher.price),
    ]
