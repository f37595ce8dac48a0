import json
from pathlib import Path

import pytest

from manylens.errors import StudentError
from manylens.serving.layout import CARD, CLASSES, EXPORT, RANKING, Card, classes_folder

SAVED = Card(
    labels=("exact", "irrelevant"),
    gains=(1.0, 0.0),
    temperature=1.5,
    inputs=("input_ids", "attention_mask"),
    max_length=48,
    product_template="{{ title }}",
    model="lrkd",
    versions={"torch": "2"},
    variants=("onnx/model.onnx",),
)


def test_a_card_is_read_as_it_was_saved_and_newer_keys_are_left_aside(tmp_path: Path) -> None:
    SAVED.save(tmp_path)
    assert Card.load(tmp_path) == SAVED
    values = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps(values | {"of_tomorrow": 1}))
    assert Card.load(tmp_path) == SAVED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 2}', r"manylens\.json: expected format 1, got 2; export the student again"),
        ("{", r"manylens\.json is damaged .*; export the student again"),
        ("{}", r"manylens\.json is damaged \(KeyError\('format'\)\)"),
        ('{"format": 1}', r"manylens\.json is damaged .*labels"),
        ("[]", r"manylens\.json is damaged"),
    ],
)
def test_a_card_that_cannot_be_read_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(StudentError, match=message):
        Card.load(tmp_path)


def test_a_folder_without_a_card_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(
        StudentError, match=r"is no export: it has no manylens\.json; make one with: manylens export RUN"
    ):
        Card.load(tmp_path)


def test_the_class_head_is_found_from_a_run_an_export_and_itself(tmp_path: Path) -> None:
    export = tmp_path / EXPORT
    for head in (CLASSES, RANKING):
        (export / head).mkdir(parents=True)
        SAVED.save(export / head)
    for place in (tmp_path, export, export / CLASSES):
        assert classes_folder(place) == export / CLASSES
    with pytest.raises(StudentError, match=r"ranking has one score and no classes; expected the folder beside it"):
        classes_folder(export / RANKING)
    with pytest.raises(StudentError, match=r"nothing is exported there"):
        classes_folder(tmp_path / "elsewhere")


def test_an_export_of_a_run_that_has_another_student_by_now_is_refused(tmp_path: Path) -> None:
    classes = tmp_path / EXPORT / CLASSES
    classes.mkdir(parents=True)
    SAVED.save(classes)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(StudentError, match=r"its export is of an earlier student; export it again: manylens export"):
        classes_folder(tmp_path)
    assert classes_folder(tmp_path / EXPORT) == classes
    (tmp_path / EXPORT / "done.json").touch()
    assert classes_folder(tmp_path) == classes
