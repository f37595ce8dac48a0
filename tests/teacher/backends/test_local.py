from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from manylens.errors import TeacherError
from manylens.teacher.backends.local import model_identity


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "qwen"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def adapter(folder: Path, weights: bytes) -> str:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return str(folder)


def test_a_hub_id_is_its_own_name() -> None:
    assert model_identity("Qwen/Qwen3-14B") == "Qwen/Qwen3-14B"
    assert model_identity("Qwen/Qwen3-14B", "shop/lora") == "Qwen/Qwen3-14B+shop/lora"


def test_a_moved_folder_is_the_same_model(model: Path, tmp_path: Path) -> None:
    before = model_identity(str(model))
    moved = shutil.move(model, tmp_path / "there" / "qwen")
    assert model_identity(str(moved)) == before
    assert before.startswith("qwen@") and len(before) == len("qwen@") + 16


def test_a_folder_is_named_alike_however_it_is_written(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    assert model_identity(".") == model_identity(str(model)) == model_identity("../qwen/")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_other_content_under_the_same_path_is_another_model(model: Path, file: str) -> None:
    before = model_identity(str(model))
    (model / file).write_bytes(b"another")
    assert model_identity(str(model)) != before


def test_weights_of_the_same_length_are_seen_to_differ(model: Path) -> None:
    weights = model / "model.safetensors"
    os.utime(weights, (1, 1))
    before = model_identity(str(model))
    weights.write_bytes(b"WEIGHTS")
    assert model_identity(str(model)) != before


def test_what_no_library_reads_does_not_matter(model: Path) -> None:
    before = model_identity(str(model))
    (model / "README.md").write_text("a note")
    (model / "checkpoint-10").mkdir()
    (model / "checkpoint-10" / "model.safetensors").write_bytes(b"half-trained")
    assert model_identity(str(model)) == before


def test_an_adapter_is_part_of_the_teacher(model: Path, tmp_path: Path) -> None:
    one, other = adapter(tmp_path / "a" / "lora", b"one"), adapter(tmp_path / "b" / "lora", b"other")
    names = {model_identity(str(model)), model_identity(str(model), one), model_identity(str(model), other)}
    assert len(names) == 3
    assert model_identity(str(model), one).startswith(f"{model_identity(str(model))}+lora@")


@pytest.mark.parametrize("name", ["/nowhere/qwen", "./qwen", "runs/one/tune/model"])
def test_a_path_without_a_folder_is_refused(name: str) -> None:
    with pytest.raises(TeacherError, match="where there is no folder"):
        model_identity(name)


def test_a_folder_without_a_model_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"expected a folder with config\.json"):
        model_identity(adapter(tmp_path / "lora", b"one"))
    with pytest.raises(TeacherError, match=r"expected a folder with adapter_config\.json"):
        model_identity(str(model), str(model))
