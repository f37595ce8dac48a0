"""A controlled world: a catalogue whose labels follow from comparisons that are known, and a teacher that states them.

It is written once, as a table of pairs and a file of recorded judgements, into a folder of the user's cache that goes
by everything the world depends on; from there it is read like any other table. The folder lies in
``$MANYLENS_CACHE/worlds``, else in ``manylens/worlds`` of ``$XDG_CACHE_HOME`` or ``~/.cache``; what is deleted there
comes back the same.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from manylens.config import TableData, WorldData
from manylens.data import table
from manylens.data.raw import RawBatch
from manylens.data.text import digest
from manylens.data.world.rows import judgement_rows, pair_row, world_pairs
from manylens.files import cache_folder
from manylens.progress import meter

#: Raised when the same dials make another world; a test pins what they make.
VERSION = 1
#: What a world depends on.
_DIALS = {"pairs", "products_per_query", "seed", "informativeness", "label_noise", "hidden", "teacher_error"}


def input_files(config: WorldData) -> tuple[Path, ...]:
    """Return the world's table of pairs, which is made if need be; its recorded judgements stand beside it."""
    dials = json.dumps(config.model_dump(include=_DIALS), sort_keys=True)
    folder = cache_folder() / "worlds" / digest(str(VERSION), dials)
    if not folder.exists():
        _make(config, folder)
    return (folder / "pairs.jsonl",)


def read(config: WorldData, folder: Path) -> Iterator[RawBatch]:
    """Yield the pairs of the world.

    Args:
        config: The world's dials.
        folder: Unused: the world needs no temporary disk space.

    Yields:
        Rows by the numbers of its table.
    """
    return table.read(TableData(loader="table", path=str(input_files(config)[0])), folder)


def _make(config: WorldData, folder: Path) -> None:
    """Write the world; it appears whole, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        with (
            (made / "pairs.jsonl").open("w", encoding="utf-8") as pairs,
            (made / "judgements.jsonl").open("w", encoding="utf-8") as judgements,
            meter("making the world", total=None) as progress,
        ):
            for pair in world_pairs(config):
                pairs.write(json.dumps(pair_row(pair, config)) + "\n")
                if pair.split != "test":
                    judgements.writelines(json.dumps(row) + "\n" for row in judgement_rows(pair, config))
                progress.advance(1)
        made.rename(folder)
    except OSError:
        if not folder.exists():  # Else another process was faster, and made the same.
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
