"""Compare the scorer with its peers, and render docs/performance.md.

python -m benchmarks.serving --prepare     make the peers' virtual environments, about 5 GB in the cache folder
python -m benchmarks.serving               compare, store the run, print it and render the page
python -m benchmarks.serving --render      render the page from the stored run
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving import render, workload
from benchmarks.serving.catalogue import SYSTEMS
from benchmarks.serving.environments import environments, prepare
from benchmarks.serving.result import STORED, Result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prepare", action="store_true", help="make the virtual environments of the peers, and end")
    parser.add_argument("--render", action="store_true", help="render the page from the stored run, and end")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="JSON lines of query and product; else made up")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pairs")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep models here, and take those that are there")
    parser.add_argument("--out", type=Path, default=STORED, metavar="FILE", help="another place for the run")
    options = parser.parse_args(arguments)
    if options.prepare:
        failed = [name for name in environments() if not prepare(name)]
        if failed:
            raise SystemExit(f"could not be made: {', '.join(failed)}")
        return
    if not options.render:
        with tempfile.TemporaryDirectory() as temporary:
            result = _compare(options, options.models or Path(temporary))
        result.save(options.out)
        for part in (render.table, render.against_peers, render.floors):
            print(part(result), end="\n\n")
        print(f"wrote {options.out}")
    if options.out == STORED:
        render.PAGE.write_text(render.render(), encoding="utf-8")
        print(f"wrote {render.PAGE}")


def _compare(options: argparse.Namespace, folder: Path) -> Result:
    from benchmarks.serving.measure import run

    if options.pairs is None:
        scored, source = workload.pairs()[: options.limit], "made up by benchmarks/serving/workload.py"
    else:
        scored, source = workload.read_pairs(options.pairs, options.limit), options.pairs.name
    return run(scored, source, names=options.systems, rounds=options.rounds, folder=folder)


if __name__ == "__main__":
    main()
