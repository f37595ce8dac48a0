from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manylens.errors import StudentError
from manylens.student import pretrained
from manylens.student.pretrained import resolve_pretrained


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    resolve_pretrained.cache_clear()
    yield
    resolve_pretrained.cache_clear()


def test_minilm_is_the_embedded_folder() -> None:
    folder = Path(resolve_pretrained("minilm"))
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer.json").is_file()


@pytest.mark.parametrize("name", ["google-bert/bert-base-multilingual-cased", "models/own", "MiniLM"])
def test_any_other_name_comes_back_unchanged(name: str) -> None:
    assert resolve_pretrained(name) == name


def test_other_weights_than_the_tested_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "0" * 64
    monkeypatch.setattr(pretrained, "MINILM_SHA256", expected)
    with pytest.raises(StudentError, match=rf"model\.safetensors: expected sha256 {expected}, got 53aa5117.*reinstall"):
        resolve_pretrained("minilm")
