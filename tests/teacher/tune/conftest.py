from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="the extra [teacher] is not installed")

from tiny_teacher import make_teacher


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Sums of floats depend on how many threads make them."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teachers") / "base")
