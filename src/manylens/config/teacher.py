"""Thinking broad: judging, curating, tuning and annotating."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from manylens.config.backends import TransformersOptions, VllmOptions
from manylens.config.base import Options, Section
from manylens.records import Split


class JudgeConfig(Section):
    """What is judged, and from where.

    Attributes:
        perspectives: Packaged names, or paths of .jinja files.
        samples: Judgements per pair and perspective.
        retry_unparsed: Further attempts, each with another seed, at an answer that holds no label.
        splits: The splits whose pairs are judged.
        budget: Most that the judgements may cost, such as ``20usd`` or ``5Mtok``, those that the store holds
            already included; judging stops there, with every answer kept.
        store: The SQLite file that keeps every answer; ``None`` means one in the run folder. Several recipes
            may share a store, so that none pays for what another has asked.
    """

    operational = frozenset({"budget", "store"})

    perspectives: tuple[str, ...] = ("user_intent", "structured_analysis", "business_rules")
    samples: int = Field(default=1, ge=1)
    retry_unparsed: int = Field(default=0, ge=0)
    splits: tuple[Split, ...] = ("train", "dev")
    budget: str | None = None
    store: str | None = None

    @field_validator("perspectives", "splits")
    @classmethod
    def _at_least_one_and_none_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("expected at least one and none twice")
        return value


class PreferenceConfig(Section):
    """How preference pairs are made of right and wrong judgements.

    Attributes:
        perspectives: Names of the perspectives whose judgements are used; ``None`` means all.
        between: Chosen and rejected come from ``different_perspectives``, or from different samples of the
            ``same_perspective`` (perspective-aligned preferences).
        max_per_pair: Most preference pairs made of one query-product pair.
    """

    perspectives: tuple[str, ...] | None = None
    between: Literal["different_perspectives", "same_perspective"] = "different_perspectives"
    max_per_pair: int = Field(default=4, ge=1)


class CurateConfig(Section):
    """What is kept of the judgements.

    Attributes:
        filter: ``consistent`` keeps a judgement only where its label equals the gold label;
            ``none`` keeps every judgement that has a label.
        prompt: The prompt under which the teacher is tuned and then annotates: the packaged ``neutral``, or a
            perspective's name or path.
        sft_perspectives: Names of the perspectives whose rationales the teacher is tuned on; ``None`` means all.
        preferences: The preference pairs.
    """

    filter: Literal["consistent", "none"] = "consistent"
    prompt: str = "neutral"
    sft_perspectives: tuple[str, ...] | None = None
    preferences: PreferenceConfig = PreferenceConfig()


GenerateConfig = Annotated[TransformersOptions | VllmOptions, Field(discriminator="backend")]


class TuneConfig(Section):
    """Tuning the teacher: supervised fine-tuning, then direct preference optimisation, both by TRL.

    Attributes:
        model: The model to tune, by id or path; ``None`` means the teacher's own.
        teachers: One ``unified`` teacher, or one ``per_perspective``, whose labels are averaged.
        adapter: ``lora``; ``qlora``, with 4-bit base weights, on a GPU; or ``none`` for full fine-tuning.
        lora: Passed word for word to `peft.LoraConfig`.
        sft: Passed word for word to `trl.SFTConfig`; ``None`` leaves the phase out.
        dpo: Passed word for word to `trl.DPOConfig`; ``None`` leaves the phase out.
        max_length: Most tokens of a row; ``None`` fits the longest row.
        too_long: ``fail`` on a longer row, or ``drop`` and count it; a row is never cut, because its label stands last.
        processes: Processes that train, one a GPU; more than one go through ``accelerate launch``.
        measure_pairs: Dev pairs on which the teacher is measured before and after each phase; ``None`` means all.
        generate: How the tuned teacher's answers are generated, for measuring and annotating.
    """

    operational = frozenset({"processes"})

    model: str | None = None
    teachers: Literal["unified", "per_perspective"] = "unified"
    adapter: Literal["lora", "qlora", "none"] = "lora"
    lora: Options = {}
    sft: Options | None = {}
    dpo: Options | None = {}
    max_length: int | None = Field(default=None, ge=8)
    too_long: Literal["fail", "drop"] = "fail"
    processes: int = Field(default=1, ge=1)
    measure_pairs: int | None = Field(default=None, ge=1)
    generate: GenerateConfig = TransformersOptions()

    @model_validator(mode="after")
    def _some_phase(self) -> TuneConfig:
        if self.sft is None and self.dpo is None:
            raise ValueError("sft and dpo are both left out; give options for one of them, or leave tune out")
        return self


class AnnotateConfig(Section):
    """The rationales that are distilled, where the panel's own are not enough.

    Attributes:
        splits: The splits whose pairs the tuned teacher judges.
        samples: Judgements per pair.
        rationalize: For train pairs of which no judgement reached the gold label, ask once more with that label
            given (STaR, arXiv 2203.14465); such rationales are marked.
    """

    splits: tuple[Split, ...] = ("train",)
    samples: int = Field(default=1, ge=1)
    rationalize: bool = False
