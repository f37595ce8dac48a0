"""Embedding rationales with a frozen sentence encoder, once a text and safe against kill -9."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import MissingExtraError, StudentError
from manylens.progress import console, meter
from manylens.student.pretrained import resolve_pretrained
from manylens.text import well_formed

#: Batches that are embedded and committed as one.
_BATCHES_PER_COMMIT = 8
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    encoder TEXT, text_hash BLOB, vector BLOB, PRIMARY KEY (encoder, text_hash)
) WITHOUT ROWID
"""


class RationaleEncoder:
    """A frozen sentence encoder with a cache on disk, keyed by encoder and text.

    Args:
        name: ``"minilm"``, or any sentence-transformers model by id or path.
        cache: The cache's file; it is made where it does not exist.
        batch_size: Texts in one forward pass.
    """

    def __init__(self, name: str, cache: Path, batch_size: int = 32) -> None:
        """Remember the encoder; it is loaded when the first text is not in the cache."""
        self.name, self.cache, self.batch_size = name, cache, batch_size

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unit vectors of texts.

        Args:
            texts: Any strings; a repeated one is embedded once, half a surrogate pair is read as ``?``.

        Returns:
            (texts, dim) float32, of unit length.

        Raises:
            StudentError: If the encoder cannot be loaded, or an answer is not finite.
            MissingExtraError: If sentence-transformers is not installed.
        """
        texts = [well_formed(text) for text in texts]
        hashes = [hashlib.sha256(text.encode("utf-8")).digest() for text in texts]
        with closing(sqlite3.connect(self.cache)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_SCHEMA)
            # Sorted by length, ties by hash: batches waste no padding, and a resumed run cuts the same ones.
            distinct = sorted(dict(zip(hashes, texts, strict=True)).items(), key=lambda item: (len(item[1]), item[0]))
            step = self.batch_size * _BATCHES_PER_COMMIT
            chunks = [distinct[start : start + step] for start in range(0, len(distinct), step)]
            self._fill(connection, chunks, len(distinct))
            return np.stack([self._cached(connection, key) for key in hashes])

    def _fill(self, connection: sqlite3.Connection, chunks: Sequence[list[tuple[bytes, str]]], total: int) -> None:
        model: Any = None
        cut = 0
        with meter(f"embed texts with {Path(self.name).name}", total) as bar:
            for chunk in chunks:
                missing = [(key, text) for key, text in chunk if not self._has(connection, key)]
                if missing:
                    model = model or load_encoder(self.name)
                    chunk_texts = [text for _, text in missing]
                    cut += _too_long(model, chunk_texts)
                    vectors = model.encode(
                        chunk_texts,
                        batch_size=self.batch_size,
                        normalize_embeddings=True,
                        show_progress_bar=False,
                        convert_to_numpy=True,
                    ).astype(np.float32)
                    if not np.isfinite(vectors).all():
                        raise StudentError(f"embed.encoder {self.name!r} gave vectors that are not finite")
                    rows = [
                        (self.name, key, vector.tobytes()) for (key, _), vector in zip(missing, vectors, strict=True)
                    ]
                    with connection:
                        connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
                bar.advance(len(chunk))
        if cut:
            console.print(
                f"[yellow]{cut:,} of {total:,} rationales are longer than the {model.max_seq_length} tokens that "
                f"{self.name} reads: their ends, where the verdict stands, are cut[/]"
            )

    def _has(self, connection: sqlite3.Connection, key: bytes) -> bool:
        query = "SELECT 1 FROM vectors WHERE encoder = ? AND text_hash = ?"
        return connection.execute(query, (self.name, key)).fetchone() is not None

    def _cached(self, connection: sqlite3.Connection, key: bytes) -> NDArray[np.float32]:
        query = "SELECT vector FROM vectors WHERE encoder = ? AND text_hash = ?"
        (blob,) = connection.execute(query, (self.name, key)).fetchone()
        return np.frombuffer(blob, dtype=np.float32)


def load_encoder(name: str) -> Any:  # noqa: ANN401 - sentence-transformers is optional
    """Return a `SentenceTransformer`; a folder without its modules gets mean pooling over the last hidden states.

    Args:
        name: ``"minilm"``, or any sentence-transformers or transformers model by id or path.

    Raises:
        StudentError: If it cannot be loaded.
        MissingExtraError: If sentence-transformers is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from sentence_transformers.util import is_sentence_transformer_model
    except ModuleNotFoundError:
        raise MissingExtraError("sentence-transformers", "train") from None
    place = resolve_pretrained(name)
    try:
        if is_sentence_transformer_model(place):
            model = SentenceTransformer(place)
        else:  # Of a language model, sentence-transformers itself would take the last token.
            states = Transformer(place)
            model = SentenceTransformer(modules=[states, Pooling(states.get_embedding_dimension(), "mean")])
    except (OSError, ValueError) as error:
        raise StudentError(f"embed.encoder {name!r} cannot be loaded: {error}") from error
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token  # Language models often have none; it is masked anyway.
    return model


def _too_long(model: Any, texts: Sequence[str]) -> int:  # noqa: ANN401 - sentence-transformers is optional
    if model.max_seq_length is None:
        return 0
    encoded = model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    return sum(len(ids) > model.max_seq_length for ids in encoded)
