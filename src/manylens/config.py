"""The configuration: one frozen, typed tree with a section for each stage.

`manylens.recipe.load_config` fills it from a YAML file. Relative paths are relative to the working
directory.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from manylens.errors import nearest
from manylens.records import SCALES, LabelScale, Split

#: Options for a class of another library, passed on word for word.
Options = dict[str, Any]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of the recipe: immutable, and without room for unknown keys."""

    # constants: infinity stays infinity in config.yaml and fingerprints, where JSON's default is null.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class LabelsConfig(Section):
    """The label scale: a built-in one by name, or one's own."""

    scale: str | None = None
    names: tuple[str, ...] = ()
    gains: dict[str, float] = {}
    definitions: dict[str, str] = {}
    aliases: dict[str, str] = {}

    @model_validator(mode="after")
    def _either_name_or_parts(self) -> LabelsConfig:
        own = bool(self.names or self.gains or self.definitions or self.aliases)
        if self.scale is not None and own:
            raise ValueError("give either scale (a built-in name) or names, gains and definitions, not both")
        if self.scale is None and not own:
            raise ValueError("give scale (a built-in name) or names, gains and definitions")
        if self.scale is not None and self.scale not in SCALES:
            raise ValueError(
                f"unknown label scale {self.scale!r}{nearest(self.scale, SCALES)}; known: {', '.join(SCALES)}"
            )
        return self

    def build(self) -> LabelScale:
        """Return the scale that this section describes.

        Raises:
            ConfigError: If its parts do not fit together.
        """
        if self.scale is not None:
            return SCALES[self.scale]
        return LabelScale(names=self.names, gains=self.gains, definitions=self.definitions, aliases=self.aliases)


class _DataBase(Section):
    """What every loader understands.

    Attributes:
        on_bad_row: ``fail`` at the first bad row, or ``skip`` it, count it and write it to a file.
        dev_fraction: Share of the train queries that becomes dev, where the source has no dev split.
        test_fraction: Share of all queries that becomes test, where the source has no splits at all.
        split_seed: Seed of the split; a query's split depends on it and on the query alone, so that
            more rows never move an old query.
    """

    on_bad_row: Literal["fail", "skip"] = "fail"
    dev_fraction: Fraction = 0.15
    test_fraction: Fraction = 0.2
    split_seed: int = 13


class DemoData(_DataBase):
    """The demo store that ships with manylens."""

    loader: Literal["demo"] = "demo"


class EsciData(_DataBase):
    """The Shopping Queries Dataset in its original layout: a folder of Parquet files."""

    loader: Literal["esci"]
    path: str
    version: Literal["small", "large"] = "small"
    locales: tuple[str, ...] = ("us", "es", "jp")


class WandsData(_DataBase):
    """The Wayfair Annotation Dataset in its original layout: a folder of tab-separated files."""

    loader: Literal["wands"]
    path: str


class TableData(_DataBase):
    """One table of pairs: CSV, TSV, Parquet or JSONL.

    Attributes:
        columns: From our field to the table's column, such as ``{"title": "product_name"}``; fields
            that the table names as we do need no entry. ``attributes`` maps to a list of columns.
    """

    loader: Literal["table"]
    path: str
    columns: dict[str, str | list[str]] = {}


class HubData(_DataBase):
    """A dataset of the Hugging Face hub, one row a pair.

    Attributes:
        path: The dataset's id, such as ``tasksource/esci``, or a local dataset folder.
        name: The dataset's configuration, where it has several.
        revision: A branch, tag or commit.
        columns: As for a table.
    """

    loader: Literal["hub"]
    path: str
    name: str | None = None
    revision: str | None = None
    columns: dict[str, str | list[str]] = {}


LOADER_SECTIONS: dict[str, type[_DataBase]] = {
    "demo": DemoData,
    "esci": EsciData,
    "wands": WandsData,
    "table": TableData,
    "hub": HubData,
}
DataConfig = Annotated[DemoData | EsciData | WandsData | TableData | HubData, Field(discriminator="loader")]


class TeacherConfig(Section):
    """Who judges.

    Attributes:
        backend: ``recorded`` reads judgements from a file.
        path: The file; ``None`` means ``judgements.jsonl`` beside the data.
    """

    backend: str = "recorded"
    path: str | None = None


class JudgeConfig(Section):
    """What is judged, and from where.

    Attributes:
        perspectives: Packaged names, or paths of .jinja files.
        samples: Judgements per pair and perspective.
        splits: The splits whose pairs are judged.
    """

    perspectives: tuple[str, ...] = ("user_intent", "structured_analysis", "business_rules")
    samples: int = Field(default=1, ge=1)
    splits: tuple[Split, ...] = ("train", "dev")

    @field_validator("perspectives", "splits")
    @classmethod
    def _at_least_one_and_none_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("expected at least one and none twice")
        return value


class CurateConfig(Section):
    """What is kept of the judgements.

    Attributes:
        filter: ``consistent`` keeps a judgement only where its label equals the gold label;
            ``none`` keeps every judgement that has a label.
        max_pairs_per_item: Most preference pairs made of one query-product pair.
    """

    filter: Literal["consistent", "none"] = "consistent"
    max_pairs_per_item: int = Field(default=4, ge=1)


class EmbedConfig(Section):
    """How rationales become target vectors.

    Attributes:
        encoder: ``minilm`` (embedded), or any sentence-transformers model by id or path.
        use: Rationales that pass the consistency filter, or all.
        target: Of several rationales of a pair: the mean of their vectors, one vector for each
            perspective, or the vector of the joined text.
        centre: Subtract the mean of the training targets, which only says "this is a rationale".
        batch_size: Texts in one forward pass of the encoder.
    """

    encoder: str = "minilm"
    use: Literal["consistent", "all"] = "consistent"
    target: Literal["mean", "per_perspective", "concat_text"] = "mean"
    centre: bool = True
    batch_size: int = Field(default=32, ge=1)


class GuideConfig(Section):
    """The guide loss, which aligns the latent to the rationale's vector.

    Attributes:
        loss: A name of `manylens.student.losses.GUIDE_LOSSES`.
        weight: lambda of ``L = L_cls + lambda * L_guide``.
        warmup_ratio: Share of the steps over which lambda rises linearly from 0.
    """

    loss: str = "squared_distance"
    weight: float = Field(default=0.02, ge=0.0)
    warmup_ratio: float = Field(default=0.0, ge=0.0, le=1.0)


class StudentConfig(Section):
    """The student and its training.

    Attributes:
        backbone: ``minilm`` (embedded), or any BERT-like model by id or path.
        method: The student that is wanted: a name of `manylens.student.methods.METHODS`.
        baselines: Methods trained beside it, on the same data, steps and seeds.
        seeds: One student per method and seed.
        extractor: A name of `manylens.student.extractors.EXTRACTORS`.
        extractor_options: Keyword arguments of the extractor.
        guide: The guide loss.
        product_template: Jinja text that renders a product; saved with the model.
        max_length: Tokens of query and product together; only the product is ever cut.
        new_layers_learning_rate: Learning rate of extractor and head; ``None`` means the backbone's.
        clip: One gradient norm over ``all`` parameters, or one ``per_group`` (backbone, extractor,
            head), so that a large guide gradient cannot shrink the classifier's step.
        class_weights: ``balanced`` weighs classes by inverse frequency.
        early_stopping_patience: Evaluations without a better dev macro-F1 before training ends;
            ``None`` trains to the end.
        training: Passed word for word to `transformers.TrainingArguments`.
    """

    backbone: str = "minilm"
    method: str = "lrkd"
    baselines: tuple[str, ...] = ()
    seeds: tuple[int, ...] = Field(default=(13,), min_length=1)
    extractor: str = "mlp"
    extractor_options: Options = {}
    guide: GuideConfig = GuideConfig()
    product_template: str = (
        "{{ title }}{% if brand %} | {{ brand }}{% endif %}"
        "{% for name, value in attributes.items() %} | {{ name }}: {{ value }}{% endfor %}"
        "{% if description %} | {{ description }}{% endif %}"
    )
    max_length: int = Field(default=128, ge=8)
    new_layers_learning_rate: float | None = Field(default=None, gt=0.0)
    clip: Literal["all", "per_group"] = "per_group"
    class_weights: Literal["balanced"] | None = None
    early_stopping_patience: int | None = Field(default=None, ge=1)
    training: Options = {}

    @model_validator(mode="after")
    def _no_method_twice(self) -> StudentConfig:
        methods = (self.method, *self.baselines)
        if len(set(methods)) != len(methods):
            raise ValueError(f"method and baselines must differ from each other, got {list(methods)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ from each other, got {list(self.seeds)}")
        return self


class EvaluateConfig(Section):
    """What is measured.

    Attributes:
        bootstrap_samples: Resamplings of the queries for each interval.
        confidence: Mass of the interval.
        ndcg_cutoff: Ranks that nDCG looks at.
        calibration_bins: Equal-width bins of the expected calibration error.
    """

    bootstrap_samples: int = Field(default=2000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    ndcg_cutoff: int = Field(default=10, ge=1)
    calibration_bins: int = Field(default=10, ge=2)


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
    teacher: TeacherConfig = TeacherConfig()
    judge: JudgeConfig = JudgeConfig()
    curate: CurateConfig = CurateConfig()
    embed: EmbedConfig = EmbedConfig()
    student: StudentConfig = StudentConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _scale_holds_together(self) -> Config:
        self.labels.build()
        return self
