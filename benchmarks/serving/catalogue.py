"""The systems that are compared, and how each comes by its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: ``ours``; ``warm``: ours where it has met the products before; ``tuned``: a bare engine tuned by hand; ``helper``:
#: a library's own way to a faster engine; ``library``: a library as it comes.
Kind = Literal["ours", "warm", "tuned", "helper", "library"]
Precision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that systems share, made from the master.

    Attributes:
        module: The worker that makes it.
        environment: The virtual environment it is made in, a file of `peers`; empty for the Python that runs this.
        one_logit: Whether it is made from the master with one logit.
        options: For the worker's `prepare`.
    """

    module: str
    environment: str = ""
    one_logit: bool = False
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class System:
    """One line of the table.

    Attributes:
        title: What it is called.
        kind: Its sort.
        precision: What it computes in; bf16 is fp32 on a processor that has none.
        module: The worker that runs it.
        model: A name of `MODELS`; empty where it takes the master as it is.
        environment: The virtual environment it runs in, a file of `peers`; empty for the Python that runs this.
        options: For the worker's `load`.
    """

    title: str
    kind: Kind
    precision: Precision
    module: str
    model: str = ""
    environment: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


MODELS: dict[str, Model] = {
    "manylens_onnx": Model(module="manylens", options={"variants": ["onnx_fp32", "onnx_int8"]}),
    "manylens_openvino": Model(
        module="manylens", options={"variants": ["onnx_fp32", "openvino_bf16", "openvino_int8"]}
    ),
    "onnxruntime": Model(module="onnxruntime"),
    "openvino": Model(module="openvino"),
    "sentence_transformers_onnx": Model(
        module="sentence_transformers", environment="sentence-transformers-onnx", options={"backend": "onnx"}
    ),
    "sentence_transformers_openvino": Model(
        module="sentence_transformers", environment="sentence-transformers-openvino", options={"backend": "openvino"}
    ),
    "one_logit": Model(module="plain_onnx", one_logit=True),
    "ctranslate2": Model(module="ctranslate2", environment="ctranslate2"),
}


def _ours(variant: str, title: str, precision: Precision, *, warm: bool = False) -> System:
    return System(
        title=f"manylens, {title}" + (", products met before" if warm else ""),
        kind="warm" if warm else "ours",
        precision=precision,
        module="manylens",
        model=f"manylens_{variant.partition('_')[0]}",
        options={"variant": variant, "cache_products": 50_000 if warm else 0},
    )


#: By name; the first is what the others are measured against.
SYSTEMS: dict[str, System] = {
    "transformers": System(
        title="transformers, arrival order, batches of 32",
        kind="library",
        precision="fp32",
        module="transformers",
        options={"by_length": False},
    ),
    "transformers_sorted": System(
        title="transformers, sorted by length",
        kind="library",
        precision="fp32",
        module="transformers",
        options={"by_length": True},
    ),
    "sentence_transformers": System(
        title="sentence-transformers CrossEncoder, torch",
        kind="library",
        precision="fp32",
        module="sentence_transformers",
        options={"backend": "torch"},
    ),
    "sentence_transformers_onnx": System(
        title="sentence-transformers, its ONNX int8 helper",
        kind="helper",
        precision="int8",
        module="sentence_transformers",
        model="sentence_transformers_onnx",
        environment="sentence-transformers-onnx",
        options={"backend": "onnx"},
    ),
    "sentence_transformers_openvino": System(
        title="sentence-transformers, its OpenVINO int8 helper",
        kind="helper",
        precision="int8",
        module="sentence_transformers",
        model="sentence_transformers_openvino",
        environment="sentence-transformers-openvino",
        options={"backend": "openvino"},
    ),
    "flashrank": System(
        title="FlashRank",
        kind="library",
        precision="int8",
        module="flashrank",
        model="one_logit",
        environment="flashrank",
    ),
    "fastembed": System(
        title="fastembed",
        kind="library",
        precision="fp32",
        module="fastembed",
        model="one_logit",
        environment="fastembed",
    ),
    "ctranslate2": System(
        title="CTranslate2, tuned by hand",
        kind="tuned",
        precision="int8",
        module="ctranslate2",
        model="ctranslate2",
        environment="ctranslate2",
    ),
    "onnxruntime_fp32": System(
        title="ONNX Runtime, tuned by hand",
        kind="tuned",
        precision="fp32",
        module="onnxruntime",
        model="onnxruntime",
        options={"precision": "fp32"},
    ),
    "onnxruntime_int8": System(
        title="ONNX Runtime, tuned by hand",
        kind="tuned",
        precision="int8",
        module="onnxruntime",
        model="onnxruntime",
        options={"precision": "int8"},
    ),
    "openvino_bf16": System(
        title="OpenVINO, tuned by hand",
        kind="tuned",
        precision="bf16",
        module="openvino",
        model="openvino",
        options={"precision": "bf16"},
    ),
    "openvino_int8": System(
        title="OpenVINO, tuned by hand",
        kind="tuned",
        precision="int8",
        module="openvino",
        model="openvino",
        options={"precision": "int8"},
    ),
    "manylens_onnx_fp32": _ours("onnx_fp32", "ONNX Runtime", "fp32"),
    "manylens_onnx_int8": _ours("onnx_int8", "ONNX Runtime", "int8"),
    "manylens_openvino_bf16": _ours("openvino_bf16", "OpenVINO", "bf16"),
    "manylens_openvino_int8": _ours("openvino_int8", "OpenVINO", "int8"),
    "manylens_warm": _ours("openvino_int8", "OpenVINO", "int8", warm=True),
}
