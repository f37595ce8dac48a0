"""What is exported of a student, and how near it must stay to PyTorch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from manylens.config.base import Section

Variant = Literal["onnx_fp32", "onnx_int8", "openvino_bf16", "openvino_int8"]


class Tolerance(Section):
    """How far a variant may be from PyTorch in fp32 on dev pairs; over one of them, the export fails.

    Attributes:
        logit_max: Largest difference of a logit; ``null`` for no limit.
        logit_mean: Mean absolute difference of the logits; ``null`` for no limit.
        labels: Least share of pairs that get the same label.
        macro_f1: Most that macro-F1 may fall.
        ndcg: Most that nDCG may fall.
    """

    logit_max: float | None = Field(default=1e-3, gt=0.0)
    logit_mean: float | None = Field(default=1e-4, gt=0.0)
    labels: float = Field(default=0.999, ge=0.0, le=1.0)
    macro_f1: float = Field(default=0.001, ge=0.0, le=1.0)
    ndcg: float = Field(default=0.001, ge=0.0, le=1.0)


class ExportConfig(Section):
    """What is exported.

    Attributes:
        variants: Precisions and formats; ``onnx_fp32`` is always among them. OpenVINO's need the extra
            ``openvino``.
        calibration_pairs: Training pairs that int8 is calibrated on.
        opset: Version of ONNX's standard operators.
        fp32: What ``onnx_fp32`` must keep to.
        low_precision: What the other variants must keep to.
    """

    variants: tuple[Variant, ...] = ("onnx_fp32", "onnx_int8")
    calibration_pairs: int = Field(default=300, ge=1)
    opset: int = Field(default=18, ge=18)
    fp32: Tolerance = Tolerance()
    low_precision: Tolerance = Tolerance(logit_max=None, logit_mean=None, labels=0.9, macro_f1=0.02, ndcg=0.02)

    @model_validator(mode="after")
    def _plain_onnx_and_none_twice(self) -> ExportConfig:
        if "onnx_fp32" not in self.variants or len(set(self.variants)) != len(self.variants):
            raise ValueError(f"variants must have onnx_fp32 among them and none twice, got {list(self.variants)}")
        return self
