"""Plots of studies, as SVG files that are the same for the same tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.evidence.stored import Stored

from manylens.study.report import metric_title, where


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of points with the standard deviation over seeds; a reference has one value and no x.

    Attributes:
        label: For the legend.
        x: Where the points stand; empty for a reference, which is drawn across.
        y: Means over seeds.
        sd: Standard deviations.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What is drawn."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log: bool = False
    connected: bool = True


def curve(study: Stored, x: str, metric: str, *, split: str, by: str, log: bool) -> Plot:
    """Return a metric over a setting of the arms.

    Args:
        study: The study.
        x: The setting on the x axis; an arm without it is a reference, drawn across.
        metric: The metric.
        split: The split.
        by: The setting that parts the lines; one line by default.
        log: Whether the x axis is logarithmic.
    """
    groups: dict[str, list[tuple[float, float, float]]] = {}
    references = []
    for row in where(study.figures, split=split, slice="all", metric=metric):
        settings, spread = study.head.settings.get(row["arm"], {}), row["sd"] or 0.0
        if x in settings:
            label = str(settings[by]) if by else study.head.title
            groups.setdefault(label, []).append((float(settings[x]), row["mean"], spread))
        else:
            references.append(Line(label=row["title"], x=(), y=(row["mean"],), sd=(spread,)))
    y_label = metric_title(metric, study.head.ndcg_cutoff)
    return Plot(
        title=f"{study.head.title}: {y_label} over {x}, {split}",
        x_label=x,
        y_label=y_label,
        lines=(*(_line(label, points) for label, points in groups.items()), *references),
        log=log,
    )


def trade_off(study: Stored, metric: str, *, split: str, products: int, by: str) -> Plot:
    """Return a metric against the latency of a request of `products` products, relative to the first arm's.

    Args:
        study: A study with the measure ``latency``.
        metric: The metric.
        split: The split.
        products: Products of a request.
        by: The setting that parts the points; an arm without it goes by its title.
    """
    timed = where(study.figures, split="latency", slice=f"products={products}", metric="latency_ratio")
    cost = {row["arm"]: row["mean"] for row in timed}
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in where(study.figures, split=split, slice="all", metric=metric):
        label = str(study.head.settings.get(row["arm"], {}).get(by, row["title"]))
        groups.setdefault(label, []).append((cost[row["arm"]], row["mean"], row["sd"] or 0.0))
    y_label = metric_title(metric, study.head.ndcg_cutoff)
    return Plot(
        title=f"{study.head.title}: {y_label} against latency, {split}",
        x_label=f"latency of the model for {products} products, relative to the first arm",
        y_label=y_label,
        lines=tuple(_line(label, points) for label, points in groups.items()),
        connected=False,
    )


def _line(label: str, points: list[tuple[float, float, float]]) -> Line:
    x, y, sd = zip(*sorted(points), strict=True)
    return Line(label=label, x=x, y=y, sd=sd)


def draw(plot: Plot, path: Path) -> Path:
    """Draw a plot with Matplotlib.

    Args:
        plot: The plot.
        path: The SVG file.

    Returns:
        The file.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.title, "font.family": "sans-serif"}):
        figure, axes = plt.subplots(figsize=(7.0, 4.0), layout="constrained")
        for number, line in enumerate(plot.lines):
            colour = f"C{number}"
            if line.x:
                style = "o-" if plot.connected else "o"
                axes.errorbar(line.x, line.y, line.sd, fmt=style, capsize=3, color=colour, label=line.label)
            else:
                axes.axhline(line.y[0], linestyle="--", color=colour, label=line.label)
        if plot.log:
            axes.set_xscale("log")
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
        axes.legend(frameon=False, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path
