"""Files that appear only when they are whole."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader, or a crash, never sees half of it."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_bytes(text.encode("utf-8"))
    os.replace(unfinished, path)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader, or a crash, never sees half of it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False))
