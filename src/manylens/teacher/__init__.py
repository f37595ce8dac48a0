"""Thinking broad: a teacher judges every pair from several perspectives."""

from manylens.teacher.backends import build_backend
from manylens.teacher.curate import curate
from manylens.teacher.judge import judge, judgements_of
from manylens.teacher.panel import panel_statistics
from manylens.teacher.perspectives import PERSPECTIVES, load_perspective, render_prompt
from manylens.teacher.store import JudgementStore

__all__ = [
    "PERSPECTIVES",
    "JudgementStore",
    "build_backend",
    "curate",
    "judge",
    "judgements_of",
    "load_perspective",
    "panel_statistics",
    "render_prompt",
]
