from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from manylens import progress
from manylens.progress import meter


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, force_terminal=True, width=120, color_system=None))
    return stream


def last_line(screen: io.StringIO) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    return [line for line in text.replace("\r", "\n").splitlines() if line.strip()][-1]


def test_a_bar_shows_what_is_done_of_what_and_how_fast(screen: io.StringIO) -> None:
    with meter("judge", 4) as bar:
        bar.advance(3)
        bar.advance()
        bar.note("loss 0.5")
    line = last_line(screen)
    assert line.startswith("judge") and "4/4" in line and line.rstrip().endswith("loss 0.5")
    assert re.search(r"[\d,.]+/s", line)


def test_a_bar_without_a_total_counts_on(screen: io.StringIO) -> None:
    with meter("reading pairs", None) as bar:
        bar.advance(7)
    assert "7/?" in last_line(screen)


def test_a_bar_before_its_first_step_has_no_rate(screen: io.StringIO) -> None:
    with meter("judge", 4):
        pass
    assert "0/4" in last_line(screen) and "--/s" in last_line(screen)


def test_brackets_in_a_description_are_not_markup(screen: io.StringIO) -> None:
    with meter("score pairs[bold].csv", 1) as bar:
        bar.note("[red]loss")
    assert "score pairs[bold].csv" in last_line(screen) and "[red]loss" in last_line(screen)


def test_the_bar_ends_with_its_block_also_when_it_fails(screen: io.StringIO) -> None:
    with pytest.raises(ValueError, match="no"), meter("judge", 4) as bar:
        bar.advance()
        raise ValueError("no")
    with meter("embed", 1) as bar:
        bar.advance()
    assert last_line(screen).startswith("embed")


def test_progress_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with meter("judge", 1) as bar:
        bar.advance()
    out, err = capfd.readouterr()
    assert out == "" and "judge" in err
