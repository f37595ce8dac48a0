"""Take the tables of studies, and render docs/evidence.md.

python -m benchmarks.evidence                                 render the page and its plots
python -m benchmarks.evidence --take studies/demo --as demo   first copy the tables of the studies in a folder
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.evidence.render import PAGE, Evidence
from benchmarks.evidence.stored import take


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.partition("\n")[0])
    parser.add_argument("--take", type=Path, metavar="DIR", help="the output folder of manylens study")
    parser.add_argument("--as", dest="name", metavar="NAME", help="what the page calls it, such as demo")
    arguments = parser.parse_args()
    if (arguments.take is None) != (arguments.name is None):
        parser.error("--take and --as go together")
    if arguments.take is not None:
        for path in take(arguments.take, arguments.name):
            print(f"took {path}")
    evidence = Evidence()
    PAGE.write_text(evidence.render(), encoding="utf-8")
    for path in evidence.draw():
        print(f"drew {path}")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
