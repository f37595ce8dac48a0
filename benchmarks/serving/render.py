"""From the template and a stored run to the page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages import environment
from benchmarks.serving import figures
from benchmarks.serving.result import STORED, Measured, Result
from benchmarks.serving.workers.batching import BUDGET, ROUNDING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"


def render(stored: Path = STORED) -> str:
    """Return the page; its part on serving is left out where no run is stored."""
    pages = environment(Path(__file__).parent)
    for helper in (table, against_peers, floors, versions):
        pages.globals[helper.__name__] = helper
    pages.globals |= {"budget": BUDGET, "rounding": ROUNDING}
    result = Result.load(stored) if stored.exists() else None
    return pages.get_template("performance.md.jinja").render(result=result)


def table(result: Result) -> str:
    """Return a line a system, as Markdown."""
    sizes = list(result.systems[0].requests)
    header = (
        "system",
        "precision",
        "pairs/s",
        f"times {result.systems[0].title.partition(',')[0]}",
        "of the floor",
        *(f"k = {products}" for products in sizes),
        "same labels",
        "logit difference",
    )
    lines = [_line(header), "| --- |" + " ---: |" * (len(header) - 1)]
    for each in result.systems:
        title = f"**{each.title}**" if each.kind in ("ours", "warm") else each.title
        if each.reason:
            lines.append(_line((title, each.precision, f"not run: {_cell(each.reason)}", *[""] * (len(header) - 3))))
            continue
        first = figures.ratio(each, result.systems[0], figures.all_pairs)
        lines.append(
            _line(
                (
                    title,
                    each.precision,
                    f"{figures.rate(result, each):.0f}",
                    f"{first.median:.1f}",
                    f"{figures.rate(result, each) / figures.floor(result, each.precision):.0%}",
                    *(f"{figures.p50(each, products):.1f}" for products in sizes),
                    "one logit" if each.agreement is None else f"{each.agreement:.3f}",
                    f"{each.difference:.3f}",
                )
            )
        )
    return "\n".join(lines)


def against_peers(result: Result) -> str:
    """Return our best systems against the best peers, as Markdown."""
    lines = [_line(("what", "ours", "best peer", "times faster", "goal")), "| --- | --- | --- | ---: | ---: |"]
    for each in figures.comparisons(result):
        spread = f"{each.ratio.median:.2f} ({each.ratio.low:.2f} to {each.ratio.high:.2f})"
        lines.append(_line((each.what, _name(each.ours), _name(each.peer), spread, f"{each.goal:.1f}")))
    return "\n".join(lines)


def floors(result: Result) -> str:
    """Return the machine's peaks and what they allow, as Markdown."""
    lines = [_line(("precision", "10^9 operations/s", "pairs/s at that peak")), "| --- | ---: | ---: |"]
    for precision in result.peaks:
        peak, pairs = figures.peak(result, precision), figures.floor(result, precision)
        lines.append(_line((precision, f"{peak:.0f}", f"{pairs:.0f}")))
    return "\n".join(lines)


def versions(result: Result) -> str:
    """Return the libraries of each environment, as Markdown."""
    groups: dict[str, list[str]] = {}
    for each in result.systems:
        if each.versions:
            libraries = ", ".join(f"{name} {version}" for name, version in each.versions.items())
            groups.setdefault(libraries, []).append(_name(each))
    if not groups:
        return ""
    most = max(groups, key=lambda libraries: len(groups[libraries]))
    others = [f"- {'; '.join(systems)}: {libraries}" for libraries, systems in groups.items() if libraries != most]
    return "\n".join([f"- all others: {most}" if others else f"- all: {most}", *others])


def _name(system: Measured) -> str:
    return f"{system.title}, {system.precision}"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
