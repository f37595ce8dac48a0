from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import BertForSequenceClassification

from manylens.errors import StudentError
from manylens.records import ESCI
from manylens.student import Student

from .build import BACKBONES, DIM, make_encoder, make_model, make_pair, make_pairs, save_backbone

PAIRS = make_pairs(25)


@pytest.fixture(scope="module")
def student(student_folder: Path) -> Student:
    return Student.load(student_folder, device="cpu")


def head(student: Student, features: np.ndarray) -> np.ndarray:
    weight, bias = (parameter.detach().numpy() for parameter in student.model.classifier.parameters())
    return features @ weight.T + bias


def test_predictions_keep_the_order_of_the_pairs(student: Student) -> None:
    together = student.logits(PAIRS)
    alone = np.concatenate([student.logits([pair]) for pair in PAIRS])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(PAIRS))
    np.testing.assert_allclose(student.logits([PAIRS[i] for i in order]), together[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing(student: Student, batch_size: int) -> None:
    np.testing.assert_allclose(student.logits(PAIRS, batch_size), student.logits(PAIRS), rtol=1e-4, atol=1e-5)


def test_a_prediction_is_softmax_argmax_and_expected_gain(student: Student) -> None:
    for prediction, logits in zip(student.predict(PAIRS), student.logits(PAIRS), strict=True):
        probabilities = softmax(logits.astype(float))
        assert tuple(prediction.probabilities) == ESCI.names
        np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities, rtol=1e-4)
        assert prediction.label == ESCI.names[int(logits.argmax())]
        expected = probabilities[0] * 1.0 + probabilities[1] * 0.1 + probabilities[2] * 0.01
        assert prediction.score == pytest.approx(expected, rel=1e-4)


def test_records_titles_and_fields_are_the_same_pair(student: Student) -> None:
    record = make_pair("red shoe", "blue hat", brand="acme")
    as_record, as_fields, as_title = student.predict(
        [
            record,
            ("red shoe", {"title": "blue hat", "brand": "acme", "description": None}),
            ("red shoe", "blue hat | acme"),
        ]
    )
    assert as_record.probabilities == pytest.approx(as_fields.probabilities)
    assert as_record.probabilities == pytest.approx(as_title.probabilities)
    assert student.predict([("red shoe", "blue hat")])[0].score != pytest.approx(as_record.score, abs=1e-6)


def test_states_are_those_of_the_parts_put_together_by_hand(student: Student) -> None:
    states = student.states(PAIRS, batch_size=7)
    assert states.pooled.shape == (25, 32) and states.latents is not None and states.latents.shape == (25, 1, DIM)
    for index, pair in enumerate(PAIRS):
        batch = student.encoder.pad([{key: rows[0] for key, rows in student.encoder.encode([pair]).items()}])
        with torch.no_grad():
            tokens = student.model.backbone(**batch).last_hidden_state
        np.testing.assert_allclose(states.pooled[index], tokens[0, 0].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(states.logits, student.logits(PAIRS), rtol=1e-4, atol=1e-5)
    features = np.hstack([states.pooled, states.latents[:, 0]])
    np.testing.assert_allclose(head(student, features), states.logits, rtol=1e-4, atol=1e-4)


def test_zeroed_latents_leave_the_head_with_cls_alone(student: Student) -> None:
    features = np.hstack([student.states(PAIRS).pooled, np.zeros((25, DIM), np.float32)])
    without = student.logits(PAIRS, zero_latents=True)
    np.testing.assert_allclose(without, head(student, features), rtol=1e-4, atol=1e-4)
    assert np.abs(without - student.logits(PAIRS)).max() > 1e-3, "and the latents are back afterwards"


def test_a_student_without_an_extractor_has_no_latents_to_zero() -> None:
    plain = Student(make_model(extractor=None), make_encoder())
    assert plain.states(PAIRS).latents is None
    np.testing.assert_array_equal(plain.logits(PAIRS, zero_latents=True), plain.logits(PAIRS))


def test_no_pairs_no_states(student: Student) -> None:
    states = student.states([])
    assert states.latents is not None
    assert (states.pooled.shape, states.latents.shape, states.logits.shape) == ((0, 32), (0, 1, DIM), (0, 4))


def test_no_pairs_no_predictions(student: Student) -> None:
    assert student.predict([]) == []
    assert student.logits([]).shape == (0, 4)
    assert student.predict(iter(PAIRS[:2])) == student.predict(PAIRS[:2])


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"expected a student's folder, got 'runs/typo'"):
        Student.load("runs/typo")
    with pytest.raises(StudentError, match=rf"no student at {tmp_path}"):
        Student.load(tmp_path)


def test_another_model_is_no_student(tmp_path: Path) -> None:
    save_backbone(tmp_path)
    BertForSequenceClassification(BACKBONES["bert"]).save_pretrained(tmp_path)
    with pytest.raises(StudentError, match="holds a BertForSequenceClassification, not a student of manylens"):
        Student.load(tmp_path)


def test_damaged_weights_are_named(student_folder: Path, tmp_path: Path) -> None:
    for file in student_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StudentError, match=rf"no student at {tmp_path}"):
        Student.load(tmp_path)
