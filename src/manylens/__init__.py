"""manylens: what a large language model reasons about relevance, kept in a small BERT.

Importing the package imports neither torch nor transformers; names resolve when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from manylens._version import __version__
from manylens.errors import ManylensError
from manylens.records import ESCI, WANDS, Judgement, LabelScale, Pair, Perspective

if TYPE_CHECKING:
    from manylens.config import Config
    from manylens.pipeline import run
    from manylens.recipe import load_config
    from manylens.serving.scorer import Scorer
    from manylens.student.model import LatentReasoningForSequenceClassification
    from manylens.student.predict import Student

__all__ = [
    "ESCI",
    "WANDS",
    "Config",
    "Judgement",
    "LabelScale",
    "LatentReasoningForSequenceClassification",
    "ManylensError",
    "Pair",
    "Perspective",
    "Scorer",
    "Student",
    "__version__",
    "load_config",
    "run",
]

_LAZY = {
    "Config": "manylens.config",
    "LatentReasoningForSequenceClassification": "manylens.student.model",
    "Scorer": "manylens.serving.scorer",
    "Student": "manylens.student.predict",
    "load_config": "manylens.recipe",
    "run": "manylens.pipeline",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attributes have no common type
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
