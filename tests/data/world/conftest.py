"""Worlds are made in a folder of the test session, never in the user's cache."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
