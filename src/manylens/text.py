"""Text from outside, made fit for what reads it."""

from __future__ import annotations


def well_formed(text: str) -> str:
    """Return `text` with ``?`` for each lone surrogate, which no tokenizer, SQLite or Parquet takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
