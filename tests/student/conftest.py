from __future__ import annotations

import os
from pathlib import Path

# Before transformers is imported: a name that is no folder must fail at once, not ask the hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from .build import make_encoder, make_model, save_backbone


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny pretrained BERT with its tokenizer."""
    return save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved student with random weights and a Poly-Encoder."""
    folder = tmp_path_factory.mktemp("student")
    make_model(extractor="poly", extractor_options={"codes": 3}).save_pretrained(folder)
    make_encoder().save(folder)
    return folder
