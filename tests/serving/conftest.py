"""A tiny student and its export, and those of a split one with its stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manylens.config import ExportConfig
from manylens.data import Pairs
from manylens.records import ESCI
from manylens.serving.export import export_classifier, export_student
from manylens.serving.layout import VARIANTS, Card
from manylens.serving.precompute import precompute
from manylens.student import Student
from serving.splitting import SPLIT_VARIANTS, TITLES, make_student
from student.build import make_encoder, make_model, make_pairs


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved student with random weights and a Poly-Encoder."""
    folder = tmp_path_factory.mktemp("student")
    make_model(extractor="poly", extractor_options={"codes": 3}).save_pretrained(folder)
    make_encoder(max_length=48).save(folder)
    return folder


@pytest.fixture(scope="session")
def exported(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's export, in every variant."""
    student = Student.load(student_folder, device="cpu")
    folder = tmp_path_factory.mktemp("run") / "export"
    export_classifier(
        student.model,
        student.encoder,
        Card(labels=ESCI.names, gains=ESCI.gain_vector()),
        config=student.model.config.backbone_config,
        calibration=make_pairs(8),
        options=ExportConfig(variants=tuple(VARIANTS), calibration_pairs=8),
        folder=folder,
    )
    return folder


@pytest.fixture(scope="session")
def split_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a split student."""
    folder = tmp_path_factory.mktemp("run") / "export"
    folder.mkdir()
    pairs = Pairs.from_records(make_pairs(48))
    options = ExportConfig(variants=SPLIT_VARIANTS, calibration_pairs=8)
    figures = export_student(
        make_student(),
        pairs,
        pairs,
        ESCI,
        options,
        name="lrkd",
        temperature=1.25,
        ndcg_cutoff=10,
        seed=0,
        folder=folder,
    )
    assert list(figures.variants) == ["onnx_fp32", "onnx_int8", "onnx_fp32_parts", "onnx_int8_parts"]
    return folder


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store in each precision."""
    folder = tmp_path_factory.mktemp("stores")
    lines = [json.dumps({"product_id": name, "title": title, "locale": "us"}) for name, title in TITLES.items()]
    (folder / "products.jsonl").write_text("\n".join(lines))
    for precision in ("fp16", "int8"):
        precompute(make_student(), folder / "products.jsonl", folder / precision, precision=precision)
    return {precision: folder / precision for precision in ("fp16", "int8")}
