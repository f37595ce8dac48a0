"""Progress of long work: one bar, with rate, remaining time and what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

#: Progress, tables and notes go to standard error, so that standard output stays the command's result.
console = Console(stderr=True)


class _Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Return the rate of `task`, or dashes before there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "--/s", style="progress.data.speed")


class Meter:
    """A handle on one bar: call `advance` as work gets done."""

    def __init__(self, progress: Progress, task_id: int) -> None:
        """Wrap the task `task_id` of a rich progress."""
        self._progress, self._task = progress, progress.tasks[task_id].id

    def advance(self, steps: float = 1) -> None:
        """Count `steps` more as done."""
        self._progress.advance(self._task, steps)

    def note(self, text: str) -> None:
        """Show `text` behind the bar."""
        self._progress.update(self._task, note=text)


@contextmanager
def meter(description: str, total: int | None) -> Iterator[Meter]:
    """Show a progress bar while the block runs.

    Args:
        description: What is being done, in a few words.
        total: How many steps there are, or ``None`` where nobody knows.

    Yields:
        The handle to advance.
    """
    whole = Column(no_wrap=True)  # A long note wraps; figures cut short would say nothing.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=5, max_width=40)),
        MofNCompleteColumn(table_column=whole),
        _Rate(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield Meter(progress, progress.add_task(description, total=total, note=""))
