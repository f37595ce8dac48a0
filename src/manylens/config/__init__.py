"""The configuration: one frozen, typed tree with a section for each stage.

`manylens.recipe.load_config` fills it from a YAML file. Relative paths are relative to the working
directory.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from manylens.config.backends import (
    OpenAITeacher,
    PriceConfig,
    RecordedTeacher,
    SamplingConfig,
    TeacherConfig,
    TransformersOptions,
    TransformersTeacher,
    VllmOptions,
    VllmTeacher,
)
from manylens.config.base import Options, Section
from manylens.config.data import (
    DataConfig,
    DemoData,
    EsciData,
    HubData,
    LabelsConfig,
    TableData,
    WandsData,
    WorldData,
)
from manylens.config.embed import TUNED_TEACHER, EmbedConfig, Hallucination, VerdictTuning
from manylens.config.export import ExportConfig, Tolerance
from manylens.config.student import EarlierConfig, EvaluateConfig, GuideConfig, StudentConfig
from manylens.config.teacher import AnnotateConfig, CurateConfig, JudgeConfig, PreferenceConfig, TuneConfig

__all__ = [
    "TUNED_TEACHER",
    "AnnotateConfig",
    "Config",
    "CurateConfig",
    "DataConfig",
    "DemoData",
    "EarlierConfig",
    "EmbedConfig",
    "EsciData",
    "EvaluateConfig",
    "ExportConfig",
    "GuideConfig",
    "Hallucination",
    "HubData",
    "JudgeConfig",
    "LabelsConfig",
    "OpenAITeacher",
    "Options",
    "PreferenceConfig",
    "PriceConfig",
    "RecordedTeacher",
    "SamplingConfig",
    "Section",
    "StudentConfig",
    "TableData",
    "TeacherConfig",
    "Tolerance",
    "TransformersOptions",
    "TransformersTeacher",
    "TuneConfig",
    "VerdictTuning",
    "VllmOptions",
    "VllmTeacher",
    "WandsData",
    "WorldData",
]


class Config(Section):
    """A whole recipe.

    Attributes:
        name: Names the run folder ``runs/NAME``.
        seed: Seed of what is not a student's training: sampling and bootstrap.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    seed: int = 13
    data: DataConfig
    labels: LabelsConfig
    teacher: TeacherConfig = RecordedTeacher()
    judge: JudgeConfig = JudgeConfig()
    curate: CurateConfig = CurateConfig()
    tune: TuneConfig | None = None
    annotate: AnnotateConfig = AnnotateConfig()
    embed: EmbedConfig = EmbedConfig()
    student: StudentConfig = StudentConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig | None = None

    @field_validator("teacher", mode="before")
    @classmethod
    def _recorded_unless_told(cls, value: object) -> object:
        return {"backend": "recorded", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _scale_holds_together(self) -> Config:
        self.labels.build()
        return self

    @model_validator(mode="after")
    def _tuning_has_a_model(self) -> Config:
        if self.tune is not None and not self.tuned_model:
            raise ValueError(
                f"tune.model is required: the teacher's backend {self.teacher.backend!r} has no local model"
            )
        return self

    @property
    def annotates(self) -> bool:
        """Whether rationales are made beyond those of the panel."""
        return self.tune is not None or self.annotate.rationalize

    @property
    def tuned_model(self) -> str | None:
        """The model that is tuned, by id or path; ``None`` where nothing is tuned."""
        if self.tune is None:
            return None
        if self.tune.model is not None:
            return self.tune.model
        return self.teacher.model if isinstance(self.teacher, TransformersTeacher | VllmTeacher) else None
