"""Acting fast: a small BERT with a latent reasoning extractor.

Importing this package registers the student with transformers' Auto classes, so that
`AutoModelForSequenceClassification`, `pipeline` and sentence-transformers' `CrossEncoder` load its folder.
"""

from manylens.student.extractors import EXTRACTORS
from manylens.student.losses import GUIDE_LOSSES
from manylens.student.methods import METHODS
from manylens.student.model import LatentReasoningConfig, LatentReasoningForSequenceClassification
from manylens.student.predict import Student

__all__ = [
    "EXTRACTORS",
    "GUIDE_LOSSES",
    "METHODS",
    "LatentReasoningConfig",
    "LatentReasoningForSequenceClassification",
    "Student",
]
