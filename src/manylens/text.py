"""Text from outside, made fit for what reads it."""

from __future__ import annotations

from hashlib import blake2b


def well_formed(text: str) -> str:
    """Return `text` with ``?`` for each lone surrogate, which no tokenizer, SQLite or Parquet takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def text_digest(text: str) -> bytes:
    """Return 16 bytes that tell a well-formed text from another."""
    return blake2b(text.encode("utf-8"), digest_size=16).digest()
