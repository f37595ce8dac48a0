"""How rationales become the vectors that guide the latents."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from manylens.config.base import Section

#: The encoder that is the run's own tuned teacher.
TUNED_TEACHER = "tuned_teacher"


class VerdictTuning(Section):
    """Tunes the sentence encoder on "which label does this rationale argue for?" before it is frozen.

    It sees the rationales of training pairs alone. A sentence encoder says what a rationale is about, hardly what
    it concludes; this turns its vectors towards the conclusion.

    Attributes:
        epochs: Passes over the training rationales.
        learning_rate: Peak, with linear decay.
        batch_size: Rationales of a step.
    """

    epochs: float = Field(default=2.0, gt=0.0)
    learning_rate: float = Field(default=5e-5, gt=0.0)
    batch_size: int = Field(default=16, ge=1)


class Hallucination(Section):
    """Replaces rationales by wrong ones, to see how much a student bears.

    Attributes:
        rate: Share of the pairs whose rationales are replaced.
        by: ``perspective`` takes a rationale of the same pair, of a perspective that argues for a wrong label, and
            one of another pair where there is none; ``pair`` takes one of another pair that argues for another label.
    """

    rate: float = Field(ge=0.0, le=1.0)
    by: Literal["perspective", "pair"] = "pair"


class EmbedConfig(Section):
    """How rationales become target vectors.

    Attributes:
        encoder: ``minilm`` (embedded), ``tuned_teacher`` (the mean of the tuned teacher's last hidden states over
            the rationale), or any model that sentence-transformers loads, by id or path.
        use: Rationales that pass the consistency filter, or all.
        source: What is embedded. ``rationale``; ``labelled_rationale`` (the gold label's name in front of it); or a
            control with the same number of parameters and steps: ``shuffled`` (the rationale of another pair),
            ``label`` (the gold label's name), ``pair`` (query and product text), ``random`` (a fixed random unit
            vector of the pair).
        target: Of several rationales of a pair: the mean of their vectors, one vector for each
            perspective, or the vector of the joined text.
        transform: ``centre`` subtracts the mean of the training targets, which only says "this is a rationale";
            ``whiten`` also gives their principal components equal variance; ``residual`` subtracts what a linear
            map of the pair's own text vector predicts of them; ``none`` takes them as they are.
        verdict_tuning: Tunes the encoder on rationale and label first; ``null`` leaves it as it is.
        hallucinate: Replaces rationales by wrong ones.
        batch_size: Texts in one forward pass of the encoder.
    """

    encoder: str = "minilm"
    use: Literal["consistent", "all"] = "consistent"
    source: Literal["rationale", "labelled_rationale", "shuffled", "label", "pair", "random"] = "rationale"
    target: Literal["mean", "per_perspective", "concat_text"] = "mean"
    transform: Literal["none", "centre", "whiten", "residual"] = "centre"
    verdict_tuning: VerdictTuning | None = None
    hallucinate: Hallucination | None = None
    batch_size: int = Field(default=32, ge=1)
