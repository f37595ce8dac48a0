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


def cache_folder() -> Path:
    """Return where what can be made again is kept: ``$MANYLENS_CACHE``, else ``manylens`` of the user's cache."""
    own = os.environ.get("MANYLENS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manylens"
