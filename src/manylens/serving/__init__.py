"""Serving: a student exported, and the scorer that runs it without torch."""

from manylens.serving.scorer import Ranked, Scorer

__all__ = ["Ranked", "Scorer"]
