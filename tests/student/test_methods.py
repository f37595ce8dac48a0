from __future__ import annotations

import pytest
import torch

from manylens.config import StudentConfig
from manylens.errors import UnknownNameError
from manylens.student.methods import METHODS, get_method
from manylens.student.parts import Shapes

SHAPES = Shapes(hidden=8, latents=2, dim=5)


def test_every_method_says_what_it_is() -> None:
    assert list(METHODS) == [
        "bert",
        "logit_kd",
        "mkd",
        "ced_kd",
        "crsd",
        "lrkd",
        "lrkd_no_guide",
        "cls_guided",
        "lrkd_dropped",
    ]
    assert all(
        method.title and method.source and "L_cls" in method.definition
        for name, method in METHODS.items()
        if name != "mkd"
    )
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize(
    ("name", "needs", "sections", "extractor"),
    [
        ("bert", set(), set(), False),
        ("logit_kd", {"votes"}, {"earlier"}, False),
        ("mkd", {"votes", "vectors"}, {"earlier"}, False),
        ("ced_kd", {"vectors"}, {"earlier"}, False),
        ("crsd", {"texts"}, {"earlier"}, False),
        ("lrkd", {"vectors"}, {"guide"}, True),
        ("lrkd_no_guide", set(), set(), True),
        ("cls_guided", {"vectors"}, {"guide"}, False),
        ("lrkd_dropped", {"vectors"}, {"guide"}, True),
    ],
)
def test_what_a_method_reads(name: str, needs: set[str], sections: set[str], extractor: bool) -> None:
    method = get_method(name)
    assert (method.needs, method.sections, method.extractor) == (needs, sections, extractor)
    assert method.reads_targets == (name != "bert")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", {"class_loss": 1.0}),
        ("logit_kd", {"class_loss": 0.75, "soft_label_loss": 0.25}),
        ("mkd", {"class_loss": 0.75, "soft_label_loss": 0.25, "rationale_loss": 0.3}),
        ("ced_kd", {"class_loss": 1.0, "rationale_loss": 0.3}),
        ("crsd", {"class_loss": 1.0, "augmented_class_loss": 1.0, "contrast_loss": 0.4}),
        ("lrkd", {"class_loss": 1.0, "guide_loss": 0.6, "orthogonality": 0.7}),
        ("lrkd_no_guide", {"class_loss": 1.0}),
        ("cls_guided", {"class_loss": 1.0, "guide_loss": 0.6}),
        ("lrkd_dropped", {"class_loss": 1.0, "guide_loss": 0.6, "orthogonality": 0.7}),
    ],
)
def test_weights_come_from_the_recipe(name: str, expected: dict[str, float]) -> None:
    config = StudentConfig(
        guide={"weight": 0.6, "orthogonality": 0.7},
        earlier={"soft_label_weight": 0.25, "rationale_weight": 0.3, "contrast_weight": 0.4},
    )
    objective = get_method(name).objective(config, SHAPES)
    assert {part: objective.parts[part].weight for part in objective.parts} == pytest.approx(expected)


def test_a_part_of_weight_zero_is_left_out() -> None:
    config = StudentConfig(guide={"weight": 0.0}, earlier={"soft_label_weight": 1.0})
    assert list(get_method("lrkd").objective(config, SHAPES).parts) == ["class_loss"]
    assert list(get_method("logit_kd").objective(config, SHAPES).parts) == ["soft_label_loss"]
    one = Shapes(hidden=8, latents=1, dim=5)
    config = StudentConfig(guide={"orthogonality": 1.0})
    assert list(get_method("lrkd").objective(config, one).parts) == ["class_loss", "guide_loss"]


@pytest.mark.parametrize(
    ("name", "shapes", "expected"),
    [
        ("bert", SHAPES, 0),
        ("lrkd", SHAPES, 0),
        ("ced_kd", SHAPES, 8 * 10 + 10),  # One linear map of [CLS] onto both targets.
        ("mkd", SHAPES, 8 * 10 + 10),
        ("cls_guided", SHAPES, 8 * 5 + 5),  # One onto each target, as [CLS] is one.
        ("cls_guided", Shapes(hidden=5, latents=2, dim=5), 0),
    ],
)
def test_heads_that_exist_in_training_only(name: str, shapes: Shapes, expected: int) -> None:
    torch.manual_seed(0)
    parameters = get_method(name).objective(StudentConfig(), shapes).parameters()
    assert sum(parameter.numel() for parameter in parameters) == expected


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'lrdk' \(did you mean 'lrkd'\?\); known: bert, logit"):
        get_method("lrdk")
