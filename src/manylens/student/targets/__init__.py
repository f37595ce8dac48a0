"""Targets: the vectors that guide the latents, made of rationales or of a control in their place."""

from manylens.student.targets.build import build_targets
from manylens.student.targets.rationales import HallucinationReport, Rationale, hallucinate, read_rationales
from manylens.student.targets.store import Targets
from manylens.student.targets.transform import mean_squared_norm

__all__ = [
    "HallucinationReport",
    "Rationale",
    "Targets",
    "build_targets",
    "hallucinate",
    "mean_squared_norm",
    "read_rationales",
]
