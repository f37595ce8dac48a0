"""Measures: figures of a study beyond those of its students' predictions."""

from __future__ import annotations

from manylens.study.measures.explanations import measure_explanations
from manylens.study.measures.latency import measure_latency
from manylens.study.measures.lines import Measure
from manylens.study.measures.probe import measure_probe

MEASURES: dict[str, Measure] = {
    "probe": measure_probe,
    "explanations": measure_explanations,
    "latency": measure_latency,
}
