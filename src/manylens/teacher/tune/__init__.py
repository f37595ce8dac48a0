"""Tuning the teacher: SFT, then DPO, through TRL and PEFT."""

from manylens.teacher.tune.options import check_tuning
from manylens.teacher.tune.tuning import TuneReport, tune, tune_table, tuned_backends

__all__ = ["TuneReport", "check_tuning", "tune", "tune_table", "tuned_backends"]
