"""What a student is worth: figures, their uncertainty, and comparisons.

Definitions stand in ``docs/evaluation.md``.
"""

from manylens.evaluation.compare import Comparison, Difference, compare
from manylens.evaluation.evaluate import Evaluation, SliceReport, SplitReport, evaluate
from manylens.evaluation.predictions import PREDICTION_SCHEMA
from manylens.evaluation.tables import comparison_table, evaluation_table, per_class_table

__all__ = [
    "PREDICTION_SCHEMA",
    "Comparison",
    "Difference",
    "Evaluation",
    "SliceReport",
    "SplitReport",
    "compare",
    "comparison_table",
    "evaluate",
    "evaluation_table",
    "per_class_table",
]
