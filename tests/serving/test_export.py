import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from transformers import AutoConfig, AutoTokenizer

from manylens.config import ExportConfig, Tolerance
from manylens.data import Pairs
from manylens.errors import StudentError
from manylens.records import ESCI, Pair
from manylens.serving import Scorer, export, graphs
from manylens.serving.export import export_student
from manylens.serving.layout import CLASSES, PARITY, RANKING, VARIANTS, Card
from manylens.serving.parity import Parity
from manylens.student import Student
from student.build import make_pairs

TRAIN, DEV = make_pairs(30, seed=1), make_pairs(30, seed=2)
INPUTS, TEMPERATURE = ("input_ids", "attention_mask", "token_type_ids"), 1.6
FP32 = ExportConfig(variants=("onnx_fp32",))
SHARED = ["config.json", "manylens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def student(student_folder: Path) -> Student:
    return Student.load(student_folder, device="cpu")


@pytest.fixture(scope="module")
def traced(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's uncut graph."""
    path = tmp_path_factory.mktemp("traced") / "uncut.onnx"
    card = Card(labels=ESCI.names, gains=ESCI.gain_vector(), temperature=TEMPERATURE)
    graphs.trace(graphs.Heads.of(Student.load(student_folder, device="cpu").model, card), INPUTS, path, opset=18)
    return path


@pytest.fixture(autouse=True)
def traced_once(traced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds, and gives every test the same graph."""

    def copied(heads: graphs.Heads, inputs: Sequence[str], path: Path, *, opset: int) -> None:
        assert (heads.temperature, tuple(inputs), opset) == (TEMPERATURE, INPUTS, 18)
        shutil.copy(traced, path)

    monkeypatch.setattr(export, "trace", copied)


def exporting(
    student: Student, folder: Path, options: ExportConfig = FP32, *, train: list[Pair] = TRAIN, seed: int = 13
) -> Parity:
    train_pairs, dev_pairs = (Pairs.from_records(pairs) for pairs in (train, DEV))
    return export_student(
        student,
        train_pairs,
        dev_pairs,
        ESCI,
        options,
        name="lrkd",
        temperature=TEMPERATURE,
        ndcg_cutoff=10,
        seed=seed,
        folder=folder,
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_folder_holds_two_heads_that_other_libraries_open(student: Student, tmp_path: Path) -> None:
    exporting(student, tmp_path)
    wanted = [*SHARED, "onnx/model.onnx"]
    assert files(tmp_path) == sorted([*(f"{head}/{name}" for head in (CLASSES, RANKING) for name in wanted), PARITY])
    for head, labels in ((CLASSES, list(ESCI.names)), (RANKING, ["relevance"])):
        config = AutoConfig.from_pretrained(str(tmp_path / head))
        assert (config.model_type, config.architectures) == ("bert", ["BertForSequenceClassification"])
        assert [config.id2label[index] for index in range(config.num_labels)] == labels
        assert config.pad_token_id == student.encoder.tokenizer.pad_token_id
        tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / head))
        long = replace(DEV[0], title="red shoe " * 60)
        found = tokenizer(long.query, long.title, truncation="only_second")["input_ids"]
        assert found == student.encoder.encode([long])["input_ids"][0] and len(found) == 48


def test_the_card_says_what_was_exported_and_the_temperature_is_in_the_logits(student: Student, tmp_path: Path) -> None:
    exporting(student, tmp_path)
    card = Card.load(tmp_path / CLASSES)
    assert card == Card.load(tmp_path / RANKING)
    assert (card.labels, card.gains, card.gain_scale) == (ESCI.names, ESCI.gain_vector(), 1.0)
    assert (card.temperature, card.max_length, card.model) == (TEMPERATURE, 48, "lrkd")
    assert card.product_template == student.encoder.template.source
    assert card.inputs == INPUTS
    assert card.variants == (VARIANTS["onnx_fp32"],) and card.versions["torch"]
    plain = student.probabilities(DEV)
    calibrated = plain ** (1 / TEMPERATURE)
    calibrated /= calibrated.sum(axis=1, keepdims=True)
    with Scorer.load(tmp_path) as scorer:
        np.testing.assert_allclose(scorer.probabilities(DEV), calibrated, atol=1e-5)


def test_parity_is_written_as_it_was_measured(student: Student, tmp_path: Path) -> None:
    found = exporting(student, tmp_path)
    stored = TypeAdapter(Parity).validate_json((tmp_path / PARITY).read_bytes())
    assert asdict(stored) == asdict(found)
    assert (found.model, found.pairs, found.temperature) == ("lrkd", 30, TEMPERATURE)


def test_int8_is_calibrated_on_training_pairs_alone(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    quantise = export.quantise_onnx

    def watched(source: Path, batches: list[dict[str, np.ndarray]], path: Path) -> None:
        seen.extend(batch["input_ids"][0].tolist() for batch in batches)
        quantise(source, batches, path)

    monkeypatch.setattr(export, "quantise_onnx", watched)
    exporting(student, tmp_path, ExportConfig(calibration_pairs=9))
    train = student.encoder.encode(TRAIN)["input_ids"]
    assert len(seen) == 9 and all(ids in train for ids in seen)
    assert seen != train[:9]  # A sample, and not the table's beginning.
    assert all((tmp_path / head / VARIANTS["onnx_int8"]).is_file() for head in (CLASSES, RANKING))


def test_too_far_from_pytorch_nothing_is_handed_out_and_the_figures_stay(student: Student, tmp_path: Path) -> None:
    exporting(student, tmp_path)
    strict = Tolerance(logit_max=1e-12, logit_mean=None)
    with pytest.raises(
        StudentError, match=r"lrkd is too far from PyTorch on 30 dev pairs: onnx_fp32: logit_m"
    ) as error:
        exporting(student, tmp_path, FP32.model_copy(update={"fp32": strict}))
    assert f"All figures are in {tmp_path / PARITY}" in str(error.value)
    assert files(tmp_path) == [PARITY]
    stored = json.loads((tmp_path / PARITY).read_text())
    assert "at most 1e-12 is allowed" in stored["variants"]["onnx_fp32"]["problems"][0]


@pytest.mark.parametrize("head", [CLASSES, RANKING])
def test_an_export_that_was_cut_off_is_no_export_and_the_next_one_is_whole(
    head: str, student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == head:
            raise KeyboardInterrupt
        replaced(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", killed)
        exporting(student, tmp_path)
    assert not (tmp_path / PARITY).exists()
    with pytest.raises(StudentError, match="nothing is exported there"):
        Scorer.load(tmp_path)
    (tmp_path / "unfinished" / CLASSES).mkdir(parents=True)  # What kill -9 leaves.
    exporting(student, tmp_path)
    assert not (tmp_path / "unfinished").exists() and (tmp_path / PARITY).is_file()


def test_int8_without_training_pairs_and_a_backbone_without_a_classifier_are_refused(
    student: Student, tmp_path: Path
) -> None:
    with pytest.raises(StudentError, match="calibrated on training pairs, got none"):
        exporting(student, tmp_path, ExportConfig(), train=[])
    assert files(tmp_path) == []
    student.model.config.backbone_config.model_type = "clip"
    with pytest.raises(StudentError, match="transformers has no classifier on a backbone of the type 'clip'"):
        exporting(student, tmp_path)
