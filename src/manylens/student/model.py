"""The student: a BERT-like encoder, a latent reasoning extractor and one linear head.

Section 3.3 of arXiv 2601.21611, with token states H and [CLS] state h::

    H      = BERT([CLS] query [SEP] product [SEP])
    r      = Extractor(H)
    logits = W [h ; r] + b
    L      = L_cls + lambda * L_guide(r, e)          e: the rationale's vector

The extractor stays at inference; only the encoder of rationales is dropped. Importing this module
registers the model with transformers' Auto classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.generic import ModelOutput

from manylens.errors import ConfigError, StudentError
from manylens.records import LabelScale
from manylens.student.extractors import build_extractor, masked_mean
from manylens.student.losses import class_loss, guide_loss
from manylens.student.split import check_split, split_states


class LatentReasoningConfig(PreTrainedConfig):
    """Configuration of `LatentReasoningForSequenceClassification`.

    Args:
        backbone_config: The encoder's own configuration, as a configuration or its dictionary.
        gains: Gain of each class, best first; the expected gain is the served score.
        extractor: A name of `EXTRACTORS`; ``None`` is a plain BERT classifier on [CLS].
        extractor_options: The extractor's keyword arguments.
        latent_dim: Dimension of a latent: the rationale encoder's.
        latent_names: One name a latent, such as the perspectives'.
        guide_loss: A name of `GUIDE_LOSSES`.
        guide_weight: lambda.
        guide_temperature: Of the guide loss ``info_nce``.
        head_reads_latents: Whether the head reads [h ; r]; else it reads h alone.
        pooling: h is the state of [CLS] (``cls``), or the mean over the real tokens (``mean``), which suits backbones
            that were trained as sentence encoders.
        class_weights: Weight of each class in the cross-entropy.
        dropout: Dropout in front of the head.
        split_layers: In so many first layers query and product do not attend to each other (`manylens.student.split`).
        separator_token_id: The tokenizer's [SEP], which ends the query.
        **kwargs: For the base class, such as ``id2label``.
    """

    model_type = "latent_reasoning"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["latents", "pooled", "class_loss", "guide_loss"]

    def __init__(
        self,
        backbone_config: PreTrainedConfig | dict[str, Any] | None = None,
        gains: Sequence[float] | None = None,
        extractor: str | None = "poly",
        extractor_options: dict[str, Any] | None = None,
        latent_dim: int = 384,
        latent_names: Sequence[str] = ("rationale",),
        guide_loss: str = "squared_distance",
        guide_weight: float = 0.1,
        guide_temperature: float = 0.05,
        head_reads_latents: bool = True,
        pooling: Literal["cls", "mean"] = "cls",
        class_weights: Sequence[float] | None = None,
        dropout: float = 0.1,
        split_layers: int = 0,
        separator_token_id: int = 102,
        **kwargs: Any,  # noqa: ANN401 - the base class's own
    ) -> None:
        """Store the values."""
        if isinstance(backbone_config, Mapping):
            values = dict(backbone_config)
            backbone_config = AutoConfig.for_model(values.pop("model_type"), **values)
        self.backbone_config = backbone_config if backbone_config is not None else AutoConfig.for_model("bert")
        self.gains = None if gains is None else list(gains)
        self.extractor = extractor
        self.extractor_options = dict(extractor_options or {})
        self.latent_dim = latent_dim
        self.latent_names = list(latent_names)
        self.guide_loss = guide_loss
        self.guide_weight = guide_weight
        self.guide_temperature = guide_temperature
        self.head_reads_latents = head_reads_latents
        self.pooling = pooling
        self.class_weights = None if class_weights is None else list(class_weights)
        self.dropout = dropout
        self.split_layers = split_layers
        self.separator_token_id = separator_token_id
        super().__init__(**kwargs)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names in the order of the logits, best first."""
        names: dict[Any, str] = dict(self.id2label or {})
        return tuple(names[index] for index in sorted(names))


@dataclass
class LatentReasoningOutput(ModelOutput):
    """What the model returns.

    Attributes:
        loss: ``class_loss + lambda * guide_loss``; given labels.
        logits: (batch, classes).
        latents: (batch, latents, dim); ``None`` without an extractor.
        pooled: (batch, hidden) h: the state of [CLS], or the mean over the tokens.
        class_loss: Cross-entropy; given labels.
        guide_loss: Unweighted guide loss; given rationale vectors.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    latents: Tensor | None = None
    pooled: Tensor | None = None
    class_loss: Tensor | None = None
    guide_loss: Tensor | None = None


class LatentReasoningForSequenceClassification(PreTrainedModel):
    """A cross-encoder that keeps the teacher's reasoning as a latent vector.

    Attributes:
        objective: What `manylens.student.objectives` trains it by. Its auxiliary heads are parameters of the model
            as long as it is trained, so that checkpoints hold them; ``None`` in a finished student.
    """

    config_class = LatentReasoningConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    # To Trainer, **kwargs in `forward` mean a loss that divides by the items of all accumulated batches.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: LatentReasoningConfig) -> None:
        """Create the model with random weights; see `from_backbone` for a pretrained encoder.

        Raises:
            ConfigError: If an option of the extractor is wrong, or the backbone cannot be split as wanted.
        """
        super().__init__(config)
        check_split(config.backbone_config, config.split_layers)
        self.objective: nn.Module | None = None
        self.backbone = AutoModel.from_config(config.backbone_config)
        # [CLS] and the extractor read token states: BERT's own pooler would be dead weight.
        if hasattr(self.backbone, "pooler"):
            self.backbone.pooler = None
        hidden_size = config.backbone_config.hidden_size
        latents_size = 0
        self.extractor = None
        if config.extractor is not None:
            self.extractor = build_extractor(
                config.extractor, hidden_size, len(config.latent_names), config.latent_dim, config.extractor_options
            )
            latents_size = len(config.latent_names) * config.latent_dim if config.head_reads_latents else 0
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(hidden_size + latents_size, len(config.labels))
        weights = None if config.class_weights is None else torch.tensor(config.class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # transformers calls this for modules without loaded weights; torch's own initialisation suits the new layers.
        backbone = getattr(self, "backbone", None)
        if backbone is not None and any(module is part for part in backbone.modules()):
            backbone._init_weights(module)

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        scale: LabelScale,
        separator_token_id: int,
        backbone_options: Mapping[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> LatentReasoningForSequenceClassification:
        """Return a student on a pretrained encoder, its new layers random.

        Args:
            backbone: A model id or a folder for `AutoModel`.
            scale: The label scale: names and gains of the classes.
            separator_token_id: The tokenizer's [SEP].
            backbone_options: Passed word for word to `AutoModel.from_pretrained`.
            **options: Further fields of `LatentReasoningConfig`.

        Raises:
            StudentError: If the encoder cannot be loaded.
            ConfigError: If it does not take one of the options.
        """
        try:
            # Trained in full precision, whatever precision the backbone was saved in.
            encoder = AutoModel.from_pretrained(backbone, **{"dtype": torch.float32, **(backbone_options or {})})
        except TypeError as error:
            raise ConfigError(f"student.backbone_options do not fit {backbone!r}: {error}") from None
        except (OSError, ValueError) as error:
            raise StudentError(f"student.backbone {backbone!r} cannot be loaded: {error}") from error
        config = LatentReasoningConfig(
            backbone_config=encoder.config,
            gains=scale.gain_vector(),
            id2label=dict(enumerate(scale.names)),
            label2id={name: index for index, name in enumerate(scale.names)},
            separator_token_id=separator_token_id,
            # The student's own default would override the backbone's.
            attn_implementation=encoder.config._attn_implementation,
            **options,
        )
        model = cls(config)
        if hasattr(encoder, "pooler"):
            encoder.pooler = None
        model.backbone.load_state_dict(encoder.state_dict())
        return model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        rationale_embedding: Tensor | None = None,
        rationale_mask: Tensor | None = None,
        **kwargs: Any,  # noqa: ANN401 - Trainer and pipelines pass more than a model needs
    ) -> LatentReasoningOutput:
        """Classify pairs and, in training, compare the latents with the rationales.

        Args:
            input_ids: (batch, tokens).
            attention_mask: (batch, tokens); all ones if not given.
            token_type_ids: (batch, tokens), for backbones that have them; with split layers they follow from the
                first [SEP].
            labels: (batch,) class indices; -100 is ignored.
            rationale_embedding: (batch, latents, dim), or (batch, dim) for one latent.
            rationale_mask: (batch, latents) or (batch,), true where there is a rationale; all if not given.
            **kwargs: Ignored.

        Raises:
            StudentError: If `rationale_embedding` does not have the latents' shape.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        segments = self.segments(input_ids)
        if self.config.split_layers:
            states = split_states(self.backbone, input_ids, attention_mask, segments, self.config.split_layers)
        else:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            states = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        logits, latents, pooled = self.classify(states, attention_mask, segments)

        class_part = guide = loss = None
        if labels is not None:
            loss = class_part = class_loss(logits, labels, self.class_weights)
        if latents is not None and rationale_embedding is not None:
            guide = self._guide_loss(latents, rationale_embedding, rationale_mask)
            loss = self.config.guide_weight * guide + (0.0 if loss is None else loss)
        return LatentReasoningOutput(
            loss=loss,
            logits=logits,
            latents=latents,
            pooled=pooled,
            class_loss=class_part,
            guide_loss=guide,
        )

    def classify(self, states: Tensor, mask: Tensor, segments: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Read the encoder's last states: extractor and head.

        Args:
            states: (batch, tokens, hidden) token states, [CLS] first.
            mask: (batch, tokens), true or 1 for real tokens.
            segments: (batch, tokens) int, 0 for the query and 1 for the product.

        Returns:
            Logits (batch, classes), latents (batch, latents, dim) or ``None``, and h (batch, hidden).
        """
        pooled = features = states[:, 0] if self.config.pooling == "cls" else masked_mean(states, mask)
        latents = None
        if self.extractor is not None:
            latents = self.extractor(states, mask.bool(), segments)
            if self.config.head_reads_latents:
                features = torch.cat([features, latents.flatten(1)], dim=-1)
        return self.classifier(self.dropout(features)), latents, pooled

    def _guide_loss(self, latents: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        if targets.ndim == 2:
            targets = targets[:, None]
        if targets.shape != latents.shape:
            raise StudentError(
                f"rationale_embedding must have the latents' shape {tuple(latents.shape)}, got {tuple(targets.shape)}; "
                "embed the rationales with the encoder and target that the student was built for"
            )
        if mask is None:
            mask = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        mask = mask.reshape(latents.shape[:2]).bool()
        return guide_loss(self.config.guide_loss, latents, targets, mask, temperature=self.config.guide_temperature)

    def segments(self, input_ids: Tensor) -> Tensor:
        """Return 0 for a token of the query and 1 for one of the product, which begins behind the first [SEP].

        Args:
            input_ids: (batch, tokens).
        """
        # Found from [SEP], not token_type_ids, which many backbones do not have.
        is_separator = (input_ids == self.config.separator_token_id).long()
        return torch.clamp(is_separator.cumsum(dim=1) - is_separator, max=1)


AutoConfig.register(LatentReasoningConfig.model_type, LatentReasoningConfig, exist_ok=True)
AutoModelForSequenceClassification.register(
    LatentReasoningConfig, LatentReasoningForSequenceClassification, exist_ok=True
)
