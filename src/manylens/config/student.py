"""Acting fast: the student and its training, and what is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from manylens.config.base import Options, Section


class GuideConfig(Section):
    """The guide loss, which aligns the latent to the rationale's vector.

    Attributes:
        loss: A name of `manylens.student.losses.GUIDE_LOSSES`.
        weight: lambda of ``L = L_cls + lambda * L_guide``.
        warmup_ratio: Share of the steps over which lambda rises linearly from 0.
        align_ratio: Share of the steps, at the start, that train the guide alone: first align, then classify.
        temperature: Of the loss ``info_nce``.
        orthogonality: Weight of the squared cosines between the latents of a pair, where it has several.
        weigh_by: ``agreement`` weighs a pair's guide by the share of the panel that agrees with its majority.
        balance: ``gradient_norm`` scales lambda at each step so that on the backbone's last layer the guide's
            gradient is `weight` times as long as the classifier's.
    """

    loss: str = "squared_distance"
    weight: float = Field(default=0.02, ge=0.0)
    warmup_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    align_ratio: float = Field(default=0.0, ge=0.0, lt=1.0)
    temperature: float = Field(default=0.05, gt=0.0)
    orthogonality: float = Field(default=0.0, ge=0.0)
    weigh_by: Literal["agreement"] | None = None
    balance: Literal["gradient_norm"] | None = None


class EarlierConfig(Section):
    """What the earlier distillations, which are the baselines, need to know.

    Attributes:
        temperature: Of the soft labels (logit_kd, mkd); the loss is scaled by its square.
        soft_label_weight: Share of the soft labels in ``(1 - a) L_cls + a T^2 L_soft`` (logit_kd, mkd).
        smoothing: Mass that the panel's votes share with all classes, so that three equal votes are no certainty.
        rationale_weight: Weight of the auxiliary loss on the rationale's vector (mkd, ced_kd).
        contrast_weight: Weight of InfoNCE between the plain and the reasoning-augmented input (crsd).
        contrast_temperature: Its temperature.
        augmented_length: Tokens of query, product and rationale together (crsd).
    """

    temperature: float = Field(default=2.0, gt=0.0)
    soft_label_weight: float = Field(default=0.5, ge=0.0, le=1.0)
    smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    rationale_weight: float = Field(default=0.1, ge=0.0)
    contrast_weight: float = Field(default=0.1, ge=0.0)
    contrast_temperature: float = Field(default=0.05, gt=0.0)
    augmented_length: int = Field(default=192, ge=8)


class StudentConfig(Section):
    """The student and its training.

    Attributes:
        backbone: ``minilm`` (embedded), or any BERT-like model by id or path.
        backbone_options: Passed word for word to `AutoModel.from_pretrained`, such as ``attn_implementation``,
            ``num_hidden_layers`` (the first ones are kept) or dropout probabilities.
        pooling: What the classifier reads of the encoder beside the latents: the state of ``[CLS]``, or the ``mean``
            over the real tokens, which suits backbones that were trained as sentence encoders.
        method: The student that is wanted: a name of `manylens.student.methods.METHODS`.
        baselines: Methods trained beside it, on the same data, steps and seeds.
        seeds: One student per method and seed.
        extractor: A name of `manylens.student.extractors.EXTRACTORS`.
        extractor_options: Keyword arguments of the extractor.
        guide: The guide loss.
        earlier: Options of the earlier distillations.
        product_template: Jinja text that renders a product; saved with the model.
        max_length: Tokens of query and product together; only the product is ever cut.
        split_layers: In so many first layers query and product do not attend to each other, so that a product's states
            can be stored (`manylens.student.split`).
        new_layers_learning_rate: Learning rate of extractor and head; ``None`` means the backbone's.
        clip: One gradient norm over ``all`` parameters, or one ``per_group`` (backbone, extractor,
            head), so that a large guide gradient cannot shrink the classifier's step.
        class_weights: ``balanced`` weighs classes by inverse frequency.
        early_stopping_patience: Evaluations without a better dev macro-F1 before training ends;
            ``None`` trains to the end.
        training: Passed word for word to `transformers.TrainingArguments`.
    """

    backbone: str = "minilm"
    backbone_options: Options = {}
    pooling: Literal["cls", "mean"] = "cls"
    method: str = "lrkd"
    baselines: tuple[str, ...] = ()
    seeds: tuple[int, ...] = Field(default=(13,), min_length=1)
    extractor: str = "mlp"
    extractor_options: Options = {}
    guide: GuideConfig = GuideConfig()
    earlier: EarlierConfig = EarlierConfig()
    product_template: str = (
        "{{ title }}{% if brand %} | {{ brand }}{% endif %}"
        "{% for name, value in attributes.items() %} | {{ name }}: {{ value }}{% endfor %}"
        "{% if description %} | {{ description }}{% endif %}"
    )
    max_length: int = Field(default=128, ge=8)
    split_layers: int = Field(default=0, ge=0)
    new_layers_learning_rate: float | None = Field(default=None, gt=0.0)
    clip: Literal["all", "per_group"] = "per_group"
    class_weights: Literal["balanced"] | None = None
    early_stopping_patience: int | None = Field(default=None, ge=1)
    training: Options = {}

    def substance(self) -> dict[str, Any]:
        """Return the section as plain values; `split_layers`, which came later, only where it is used."""
        tree = super().substance()
        return tree if self.split_layers else {name: value for name, value in tree.items() if name != "split_layers"}

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
