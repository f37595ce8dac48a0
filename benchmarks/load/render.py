"""From the template and the stored runs to the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import figures
from benchmarks.load.result import SOAK, STORED, Result, Soak, Window
from benchmarks.pages import environment
from benchmarks.serving.figures import Ratio

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "load.md"
_MIB = 2**20


def render(stored: Path = STORED, soaked: Path = SOAK) -> str:
    """Return the page; what is not stored is left out."""
    pages = environment(Path(__file__).parent)
    for helper in (*PARTS, memory, client_share):
        pages.globals[helper.__name__] = helper
    result = Result.load(stored) if stored.exists() else None
    soak = Soak.load(soaked) if soaked.exists() else None
    return pages.get_template("load.md.jinja").render(result=result, soak=soak)


def closed(result: Result) -> str:
    """Return a line a server and number of clients, as Markdown."""
    lines = _header("server", "precision", "clients", "requests/s", "pairs/s", "p50 ms", "p99 ms", "not 200", text=2)
    for each in result.servers:
        title = f"**{each.title}**" if each.kind == "ours" else each.title
        if each.reason:
            lines.append(_line(title, each.precision, f"not run: {_cell(each.reason)}", *[""] * 5))
            continue
        for clients, windows in each.closed.items():
            rate = figures.median(figures.rates(windows))
            failed = sum(window.sent - window.accepted for window in windows)
            numbers = f"{rate:.1f}", f"{rate * result.products:.0f}", *_percentiles(windows), f"{failed}"
            lines.append(_line(title, each.precision, f"{clients}", *numbers))
    return "\n".join(lines)


def servers(result: Result) -> str:
    """Return the scorers without HTTP, the memory and the differences of scores, as Markdown."""
    together = next((tuple(each.in_process) for each in result.servers if each.in_process), ())
    shares = [f"share of scorer, {_together(count)}" for count in together]
    lines = _header("server", "precision", *shares, "memory MiB", "score difference", text=2)
    for each in result.servers:
        if each.reason:
            continue
        rate = figures.rates(each.closed[figures.clients_of(each)])
        found = [_ratio(figures.paired(rate, each.in_process[count])) if each.in_process else "" for count in together]
        difference = "" if each.difference is None else f"{each.difference:.3f}"
        lines.append(_line(each.title, each.precision, *found, f"{each.memory / _MIB:.0f}", difference))
    return "\n".join(lines)


def against(result: Result) -> str:
    """Return our best server against its scorer and the peers, as Markdown."""
    lines = _header("against", "times as many requests/s", "goal")
    for each in figures.comparisons(result):
        lines.append(_line(each.what, _ratio(each.ratio), f"{each.goal:.2f}"))
    return "\n".join(lines)


def opened(result: Result) -> str:
    """Return a line a server and rate of arrivals, as Markdown."""
    lines = _header(
        "server", "arrivals", "requests/s sent", "accepted/s", "429", "503, 504", "late or lost", "p50 ms", "p99 ms"
    )
    for each in result.servers:
        for multiple, window in each.open.items():
            shares = [_share(window, "429"), _share(window, "503", "504"), _others(window)]
            sent = figures.capacity(each) * multiple
            lines.append(
                _line(
                    *(f"{each.title}, {each.precision}", f"{multiple:g} x", f"{sent:.0f}", f"{window.rate:.1f}"),
                    *(*shares, *_percentiles([window])),
                )
            )
    return "\n".join(lines)


def beside(result: Result) -> str:
    """Return what large requests do to small ones, as Markdown."""
    lines = _header("server", "p50 ms alone", "p99 ms alone", "p50 ms beside", "p99 ms beside", "small/s beside")
    for each in result.servers:
        if each.beside:
            rate = figures.median(figures.rates(each.beside))
            numbers = *_percentiles(each.alone), *_percentiles(each.beside), f"{rate:.1f}"
            lines.append(_line(f"{each.title}, {each.precision}", *numbers))
    return "\n".join(lines)


def memory(soak: Soak) -> str:
    """Return the memory of a soak, as Markdown."""
    lines = _header("after requests", "memory MiB")
    places = {0, soak.every, soak.base, soak.requests // 4, soak.requests // 2, soak.requests}
    for requests in sorted(places):
        place = min(math.ceil(requests / soak.every), len(soak.memory) - 1)
        lines.append(_line(f"{requests:,}", f"{soak.memory[place] / _MIB:.1f}"))
    lines.append(_line(f"{soak.requests:,} over {soak.base:,}", f"{soak.growth:.3f}"))
    return "\n".join(lines)


def client_share(result: Result) -> str:
    """Return the processor's share that the clients took of one core, from the least to the most."""
    shares = [window.client for each in result.servers for windows in each.closed.values() for window in windows]
    return f"{min(shares):.0%} to {max(shares):.0%}"


#: The parts of a comparison.
PARTS = (closed, against, servers, opened, beside)


def _percentiles(windows: Sequence[Window]) -> tuple[str, str]:
    return _milliseconds(windows, "p50"), _milliseconds(windows, "p99")


def _milliseconds(windows: Sequence[Window], percentile: str) -> str:
    found = figures.milliseconds(windows, percentile)
    return "" if found is None else f"{found:.1f}"


def _share(window: Window, *statuses: str) -> str:
    share = sum(window.statuses.get(status, 0) for status in statuses) / max(1, window.sent)
    return f"{share:.1%}"


def _others(window: Window) -> str:
    return _share(window, *(window.statuses.keys() - {"200", "429", "503", "504"}))


def _together(count: int) -> str:
    return "one by one" if count == 1 else f"{count} together"


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _header(*cells: str, text: int = 1) -> list[str]:
    return [_line(*cells), "|" + " --- |" * text + " ---: |" * (len(cells) - text)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
