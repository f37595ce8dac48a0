"""From the template and the stored tables to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.evidence.plots import Plot, curve, draw, trade_off
from benchmarks.evidence.stored import TABLES, Stored
from benchmarks.pages import environment

from manylens.errors import DataError
from manylens.study.report import (
    contrast_lines,
    difference_words,
    figure_lines,
    machine_words,
    spread_words,
    titles_of,
    where,
)
from manylens.study.rows import ALL

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evidence.md"
#: Where plots lie, as the page sees it.
IMAGES = "img/evidence"


class Evidence:
    """The page, and the plots that it asks for.

    Args:
        tables: Where the tables lie.

    Attributes:
        plots: The plots that were asked for, by name.
    """

    def __init__(self, tables: Path = TABLES) -> None:
        """Remember where the tables lie; they are read when the template asks for them."""
        self._tables, self.plots = tables, dict[str, Plot]()
        self._study = cache(lambda name: Stored.load(name, tables))

    def render(self) -> str:
        """Return the page."""
        pages = environment(Path(__file__).parent)
        helpers = (
            self.has,
            self.made,
            self.notes,
            self.table,
            self.contrasts,
            self.contrast,
            self.value,
            self.curve,
            self.trade_off,
        )
        pages.globals |= {helper.__name__: helper for helper in helpers}
        return pages.get_template("evidence.md.jinja").render()

    def draw(self, docs: Path = PAGE.parent) -> list[Path]:
        """Draw the plots that the page asked for, and return their files."""
        return [draw(plot, docs / IMAGES / f"{name}.svg") for name, plot in self.plots.items()]

    def has(self, *studies: str) -> bool:
        """Return whether studies were taken, all of them."""
        return all((self._tables / f"{study}.json").exists() for study in studies)

    def made(self, study: str) -> str:
        """Return the command of a study, and what it was run on."""
        head = self._study(study).head
        sizes = ", ".join(f"{count:,} {split}" for split, count in head.pairs.items())
        seeds = f"{len(head.seeds)} seeds" if len(head.seeds) > 1 else "one seed"
        return f"`{head.command}`: {seeds}; pairs: {sizes}. {machine_words(head)}"

    def notes(self, study: str) -> str:
        """Return what the measures of a study say beside its tables."""
        return "\n\n".join(self._study(study).head.notes)

    def table(
        self,
        study: str,
        *,
        split: str = "test",
        part: str = ALL,
        metrics: Sequence[str] = (),
        arms: Sequence[str] = (),
    ) -> str:
        """Return the figures of a study as Markdown: mean and standard deviation over seeds."""
        found = self._study(study)
        rows = [row for row in where(found.figures, split=split, slice=part) if not arms or row["arm"] in arms]
        return "\n".join(figure_lines(rows, found.head.ndcg_cutoff, metrics))

    def contrasts(
        self, study: str, *, split: str = "test", part: str = ALL, metrics: Sequence[str] = (), treatment: str = ""
    ) -> str:
        """Return the comparisons of a study as Markdown, those of one treatment or all."""
        found = self._study(study)
        rows = where(found.contrasts, split=split, slice=part, **({"treatment": treatment} if treatment else {}))
        return "\n".join(contrast_lines(rows, titles_of(found.figures), found.head.ndcg_cutoff, metrics))

    def contrast(
        self, study: str, treatment: str, baseline: str, metric: str, *, split: str = "test", part: str = ALL
    ) -> str:
        """Return one comparison in words: difference, interval, p value, verdict."""
        wanted = {"treatment": treatment, "baseline": baseline, "metric": metric, "split": split, "slice": part}
        return difference_words(_one(where(self._study(study).contrasts, **wanted), study, wanted))

    def value(self, study: str, arm: str, metric: str, *, split: str = "test", part: str = ALL) -> str:
        """Return one figure, mean and standard deviation over seeds."""
        wanted = {"arm": arm, "metric": metric, "split": split, "slice": part}
        return spread_words(_one(where(self._study(study).figures, **wanted), study, wanted))

    def curve(self, study: str, x: str, metric: str, *, split: str = "test", by: str = "", log: bool = False) -> str:
        """Return the Markdown of a plot: a metric over a setting of the arms, a line for each value of another."""
        plot = curve(self._study(study), x, metric, split=split, by=by, log=log)
        return self._plot(f"{study.replace('/', '-')}-{metric}-over-{x}", plot)

    def trade_off(self, study: str, metric: str, *, split: str = "test", products: int = 10, by: str = "") -> str:
        """Return the Markdown of a plot: a metric against latency."""
        plot = trade_off(self._study(study), metric, split=split, products=products, by=by)
        return self._plot(f"{study.replace('/', '-')}-{metric}-against-latency", plot)

    def _plot(self, name: str, plot: Plot) -> str:
        self.plots[name] = plot
        return f"![{plot.title}]({IMAGES}/{name}.svg)"


def _one(rows: Sequence[Mapping[str, Any]], study: str, wanted: Mapping[str, str]) -> Mapping[str, Any]:
    if len(rows) != 1:
        raise DataError(f"{study}: expected one row with {dict(wanted)}, got {len(rows)}")
    return rows[0]
