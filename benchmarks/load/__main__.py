"""Compare servers under load, and render docs/load.md.

python -m benchmarks.load --prepare        make the peers' virtual environments, about 5 GB in the cache folder
python -m benchmarks.load                  compare, store the run, print it and render the page
python -m benchmarks.load --soak 100000    send that many requests to a tiny student's server, and watch its memory
python -m benchmarks.load --render         render the page from what is stored
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import render
from benchmarks.load.catalogue import MODELS, SERVERS
from benchmarks.load.result import SOAK, STORED, Soak
from benchmarks.serving.environments import prepare

#: How much a server may grow between the two measurements of a soak.
MOST_GROWTH = 1.05


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prepare", action="store_true", help="make the virtual environments of the peers, and end")
    parser.add_argument("--render", action="store_true", help="render the page from what is stored, and end")
    parser.add_argument("--soak", type=int, metavar="N", help="send N requests to one server, instead of comparing")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a closed loop")
    parser.add_argument("--open-seconds", type=float, default=6.0, help="of each rate of an open loop")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64], metavar="N")
    parser.add_argument("--servers", nargs="+", choices=list(SERVERS), default=list(SERVERS), metavar="NAME")
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep models here, and take those that are there")
    parser.add_argument("--out", type=Path, metavar="FILE", help="another place for the run")
    options = parser.parse_args(arguments)
    if options.prepare:
        wanted = {each.environment for each in (*SERVERS.values(), *MODELS.values())} - {""}
        failed = [name for name in sorted(wanted) if not prepare(name)]
        if failed:
            raise SystemExit(f"could not be made: {', '.join(failed)}")
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # Or servers would be left behind.
    growth = 1.0
    if not options.render:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.models or Path(temporary)
            if options.soak is None:
                _compare(options, folder)
            else:
                growth = _soak(options, folder)
        print(f"wrote {options.out or (STORED if options.soak is None else SOAK)}")
    if options.out is None:
        render.PAGE.write_text(render.render(), encoding="utf-8")
        print(f"wrote {render.PAGE}")
    if growth > MOST_GROWTH:
        raise SystemExit(f"the server grew by {growth - 1:.1%}, more than {MOST_GROWTH - 1:.0%}")


def _compare(options: argparse.Namespace, folder: Path) -> None:
    from benchmarks.load.measure import Plan, run

    plan = Plan(
        names=options.servers,
        clients=options.clients,
        rounds=options.rounds,
        seconds=options.seconds,
        open_seconds=options.open_seconds,
    )
    result = run(plan, folder=folder)
    result.save(options.out or STORED)
    for part in render.PARTS:
        print(part(result), end="\n\n")


def _soak(options: argparse.Namespace, folder: Path) -> float:
    from benchmarks.load.soak import soak

    found: Soak = soak(options.soak, folder=folder)
    found.save(options.out or SOAK)
    print(render.memory(found), end="\n\n")
    if found.unexpected:
        raise SystemExit(f"unexpected answers: {dict(found.unexpected)}")
    return found.growth


if __name__ == "__main__":
    main()
