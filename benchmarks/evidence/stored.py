"""The tables that the page is made of: copies of what `manylens study` wrote."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from manylens.errors import DataError
from manylens.study.report import Head, Rows

TABLES = Path(__file__).parent / "tables"
_SUFFIXES = (".parquet", "-contrasts.parquet", ".json")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A study's head and rows."""

    head: Head
    figures: Rows
    contrasts: Rows

    @classmethod
    def load(cls, name: str, tables: Path = TABLES) -> Stored:
        """Read a study, such as ``demo/methods``.

        Raises:
            DataError: If it was never taken.
        """
        figures, contrasts, head = (tables / f"{name}{suffix}" for suffix in _SUFFIXES)
        if not head.exists():
            raise DataError(f"no study {name!r} in {tables}; take it with: python -m benchmarks.evidence --take DIR")
        fields: dict[str, Any] = json.loads(head.read_text(encoding="utf-8"))
        return cls(
            head=TypeAdapter(Head).validate_python(fields),
            figures=pq.read_table(figures).to_pylist(),
            contrasts=pq.read_table(contrasts).to_pylist(),
        )


def take(folder: Path, name: str, tables: Path = TABLES) -> list[Path]:
    """Copy the tables of all studies in the output folder of `manylens study`.

    Args:
        folder: The output folder.
        name: The folder under `tables` that they go to.
        tables: Where tables lie.

    Returns:
        The copies.

    Raises:
        DataError: If there is no study.
    """
    studies = sorted(path.name.removesuffix(_SUFFIXES[1]) for path in folder.glob(f"*{_SUFFIXES[1]}"))
    if not studies:
        raise DataError(f"no finished study in {folder}; run one with: manylens study NAME RECIPE --out {folder}")
    (tables / name).mkdir(parents=True, exist_ok=True)
    return [
        Path(shutil.copyfile(folder / f"{study}{suffix}", tables / name / f"{study}{suffix}"))
        for study in studies
        for suffix in _SUFFIXES
    ]
