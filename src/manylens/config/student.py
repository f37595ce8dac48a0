"""Acting fast: target vectors, the student and its training, and what is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from manylens.config.base import Options, Section


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
