"""Fixtures of the tests at the top level: a tiny shop, and a finished run of its recipe."""

from __future__ import annotations

import os
import shutil
import sys

# Before anything imports huggingface_hub: tests never leave the machine.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:  # One process a core, before anything imports torch.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

import manylens
from manylens.run_folder import RunFolder
from tiny import TinyShop, make_models


@pytest.fixture(scope="session", autouse=True)
def worlds_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep made worlds out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    """Give torch its threads back: sums, and so trained weights, depend on their number."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def shop(models: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyShop:
    return TinyShop.make(tmp_path_factory.mktemp("shop"), models)


@pytest.fixture(scope="session")
def finished(shop: TinyShop, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that came to its end; a test that runs it again takes a copy."""
    return manylens.run(shop.recipe(), folder=tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def exported_run(shop: TinyShop, finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy of that run whose recipe exports, in fp32 alone; a test that runs it again takes a copy."""
    folder = shutil.copytree(finished.path, tmp_path_factory.mktemp("exported") / "tiny")
    return manylens.run({**shop.recipe(), "export": {"variants": ["onnx_fp32"]}}, folder=folder)
