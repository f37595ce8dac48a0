"""A tiny student, and its export."""

from __future__ import annotations

from pathlib import Path

import pytest

from manylens.config import ExportConfig
from manylens.records import ESCI
from manylens.serving.export import export_classifier
from manylens.serving.layout import VARIANTS, Card
from manylens.student import Student
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
