from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from manylens.errors import StudentError
from manylens.student.embed import RationaleEncoder
from manylens.student.pretrained import resolve_pretrained

from .build import WORDS, save_backbone

#: Forty texts: more than two commits of batches of two.
TEXTS = [f"{first} {second} " * (1 + index) for index, first in enumerate(WORDS[:8]) for second in WORDS[3:8]]


@pytest.fixture(scope="module")
def encoder(backbone: str) -> str:
    """A plain BERT, to which sentence-transformers adds mean pooling and no normalisation."""
    return backbone


def execute(cache: Path, statement: str) -> int:
    with closing(sqlite3.connect(cache)) as connection, connection:
        return connection.execute(statement).rowcount


def count(cache: Path) -> int:
    with closing(sqlite3.connect(cache)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM vectors").fetchone()
        return int(rows)


def test_vectors_are_sentence_transformers_own_at_unit_length(encoder: str, tmp_path: Path) -> None:
    vectors = RationaleEncoder(encoder, tmp_path / "cache.sqlite").embed(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((40, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    raw = SentenceTransformer(encoder, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)


def test_a_repeated_text_is_embedded_once(encoder: str, tmp_path: Path) -> None:
    vectors = RationaleEncoder(encoder, tmp_path / "cache.sqlite").embed(["red hat", "blue", "red hat"])
    assert count(tmp_path / "cache.sqlite") == 2
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_a_text_that_the_encoder_cannot_read_whole_is_told(
    encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = SentenceTransformer(encoder, device="cpu").max_seq_length
    short, long = "red hat", "red " * longest
    RationaleEncoder(encoder, tmp_path / "cache.sqlite").embed([short])
    assert "are cut" not in " ".join(capsys.readouterr().err.split())
    RationaleEncoder(encoder, tmp_path / "cache.sqlite").embed([short, long])
    assert f"1 of 2 rationales are longer than the {longest} tokens" in " ".join(capsys.readouterr().err.split())


def test_a_full_cache_needs_no_encoder(encoder: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    vectors = RationaleEncoder(encoder, cache).embed(TEXTS)
    gone = str(tmp_path / "gone")
    execute(cache, f"UPDATE vectors SET encoder = '{gone}'")
    np.testing.assert_array_equal(RationaleEncoder(gone, cache).embed(TEXTS[::-1]), vectors[::-1])
    with pytest.raises(StudentError, match=rf"embed\.encoder '{gone}' cannot be loaded"):
        RationaleEncoder(gone, cache).embed([*TEXTS, "one more"])


def test_two_encoders_share_a_cache_without_mixing(encoder: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    RationaleEncoder(encoder, cache).embed(["red hat"])
    assert RationaleEncoder("minilm", cache).embed(["red hat"]).shape == (1, 384)
    assert count(cache) == 2


def test_an_interrupted_run_ends_with_the_same_bits(encoder: str, tmp_path: Path) -> None:
    undisturbed, cache = tmp_path / "undisturbed.sqlite", tmp_path / "cache.sqlite"
    expected = RationaleEncoder(encoder, undisturbed, batch_size=2).embed(TEXTS)
    # A kill leaves the commits that were made: here the first sixteen texts by length and hash.
    first = sorted(
        {hashlib.sha256(text.encode()).digest(): text for text in TEXTS}.items(),
        key=lambda item: (len(item[1]), item[0]),
    )[:16]
    RationaleEncoder(encoder, cache, batch_size=2).embed([text for _, text in first])
    assert count(cache) == 16
    np.testing.assert_array_equal(RationaleEncoder(encoder, cache, batch_size=2).embed(TEXTS), expected)
    assert count(cache) == 40


def test_half_a_surrogate_pair_is_read_as_a_question_mark(encoder: str, tmp_path: Path) -> None:
    vectors = RationaleEncoder(encoder, tmp_path / "cache.sqlite").embed(["red \ud83d", "red ?"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = save_backbone(tmp_path / "broken")
    model = AutoModel.from_pretrained(broken)
    model.embeddings.word_embeddings.weight.data.fill_(float("nan"))
    model.save_pretrained(broken)
    with pytest.raises(StudentError, match="gave vectors that are not finite"):
        RationaleEncoder(broken, tmp_path / "cache.sqlite").embed(["red"])
    assert count(tmp_path / "cache.sqlite") == 0


def test_minilm_sees_meaning(tmp_path: Path) -> None:
    texts = ["The shoe is red, as the query asks.", "The query wants a red shoe and this is one.", "It rains in Paris."]
    first, second, third = RationaleEncoder("minilm", tmp_path / "cache.sqlite").embed(texts)
    assert float(first @ second) > float(first @ third) + 0.3
    raw = SentenceTransformer(resolve_pretrained("minilm"), device="cpu").encode(texts[:1])[0]
    np.testing.assert_allclose(first, raw, atol=1e-5)
