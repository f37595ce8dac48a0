"""Studies: many students, trained over seeds in parallel processes, and one tidy table of what they are worth."""

from manylens.study.arms import Arm, Study, load_study
from manylens.study.catalogue import STUDIES
from manylens.study.runner import StudyResult, run_study

__all__ = ["STUDIES", "Arm", "Study", "StudyResult", "load_study", "run_study"]
