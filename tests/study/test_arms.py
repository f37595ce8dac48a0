from __future__ import annotations

from pathlib import Path

import pytest

from manylens.errors import ConfigError, UnknownNameError
from manylens.study import load_study

from .build import study

OWN = """
name: mine
title: My study
question: Which pooling?
arms:
  - {name: bert, title: BERT, method: bert}
  - {name: cls, title: "[CLS] alone", overrides: [student.extractor_options.pooling=cls], settings: {width: 2}}
  - {name: zeroed, title: latents zeroed, inference: zero_latents}
baseline: bert
slices: [locale]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_of_ones_own(tmp_path: Path) -> None:
    own = load_study(write(tmp_path, OWN))
    assert [arm.method for arm in own.arms] == ["bert", "lrkd", "lrkd"]
    assert own.arm("cls").overrides == ("student.extractor_options.pooling=cls",)
    assert own.arm("cls").settings == {"width": 2}
    assert own.comparisons() == (("cls", "bert"), ("zeroed", "bert"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not valid YAML"),
        ("name: mine", "title: Field required"),
        (OWN.replace("baseline: bert", "baseline: vert"), "'vert' is no arm; the arms: bert, cls, zeroed"),
        (OWN.replace("name: cls", "name: bert"), "arms must differ in name"),
        (OWN + "family: [f1]\n", "'f1' is no metric"),
        (OWN.replace("question", "query"), "query: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_study_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml") as raised:
        load_study(write(tmp_path, text))
    assert message in str(raised.value)


def test_comparisons_that_are_named_stand_for_themselves() -> None:
    assert study("a", "b", "c", contrasts=(("c", "b"),)).comparisons() == (("c", "b"),)
    assert study("a", "b", baseline=None).comparisons() == ()


def test_an_unknown_arm_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown arm 'd'; known: a, b"):
        study("a", "b").arm("d")
