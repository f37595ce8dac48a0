"""Imports of the libraries that the `train` extra brings."""

from __future__ import annotations

import importlib
from typing import Any

from manylens.errors import MissingExtraError


def optional(module: str) -> Any:  # noqa: ANN401 - the libraries asked for carry no types
    """Import a module of an optional library.

    Args:
        module: Dotted name, such as ``"sklearn.metrics"``.

    Returns:
        The module.

    Raises:
        MissingExtraError: If the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, "train") from None
