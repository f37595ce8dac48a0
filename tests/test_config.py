from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from manylens.config import Config, DemoData, EsciData, LabelsConfig, Section, StudentConfig, TableData, WandsData
from manylens.records import ESCI

LEAST: dict[str, Any] = {"name": "x", "data": {"loader": "demo"}, "labels": {"scale": "esci"}}
OWN = {"names": ["a", "b"], "gains": {"a": 1.0, "b": 0.0}, "definitions": {"a": "yes", "b": "no"}}


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for part in model.__subclasses__():
        yield from sections(part)


def test_name_data_and_labels_are_all_that_is_required() -> None:
    config = Config.model_validate(LEAST)
    required = {name for name, field in Config.model_fields.items() if field.is_required()}
    assert required == set(LEAST)
    assert config.judge.perspectives == ("user_intent", "structured_analysis", "business_rules")


@pytest.mark.parametrize("section", sorted(sections(Section), key=lambda kind: kind.__name__))
def test_every_section_is_frozen_and_has_no_room_for_unknown_keys(section: type[BaseModel]) -> None:
    assert section.model_config.get("frozen") and section.model_config.get("extra") == "forbid"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        section.model_validate({"no_such_key": 1})


def test_a_config_is_immutable_all_the_way_down() -> None:
    config = Config.model_validate(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        config.student.guide.weight = 2.0
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1


def test_each_loader_has_the_section_of_its_name() -> None:
    for name, section in {"demo": DemoData, "esci": EsciData, "wands": WandsData, "table": TableData}.items():
        tree = {"loader": name, **({"path": "x"} if "path" in section.model_fields else {})}
        assert type(Config.model_validate({**LEAST, "data": tree}).data) is section


def test_labels_are_a_built_in_scale_or_parts() -> None:
    assert LabelsConfig(scale="esci").build() is ESCI
    assert LabelsConfig.model_validate(OWN).build().gain_vector() == (1.0, 0.0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": ""}, "pattern"),
        ({"name": "a/b"}, "pattern"),
        ({"name": ".."}, "pattern"),
        ({"labels": {}}, "give scale"),
        ({"labels": {"scale": "esic"}}, "unknown label scale 'esic' .did you mean 'esci'"),
        ({"labels": {"scale": "esci", **OWN}}, "not both"),
        ({"data": {"loader": "demo", "dev_fraction": 1.0}}, "less than 1"),
        ({"data": {"loader": "demo", "dev_fraction": -0.1}}, "greater than or equal to 0"),
        ({"judge": {"perspectives": []}}, "at least one and none twice"),
        ({"judge": {"perspectives": ["a", "a"]}}, "at least one and none twice"),
        ({"judge": {"splits": []}}, "at least one and none twice"),
        ({"judge": {"splits": ["train", "train"]}}, "at least one and none twice"),
        ({"judge": {"splits": ["val"]}}, "'train', 'dev' or 'test'"),
        ({"judge": {"samples": 0}}, "greater than or equal to 1"),
        ({"curate": {"filter": "strict"}}, "'consistent' or 'none'"),
        ({"embed": {"target": "max"}}, "'mean', 'per_perspective' or 'concat_text'"),
        ({"student": {"baselines": ["lrkd"]}}, "method and baselines must differ"),
        ({"student": {"baselines": ["bert", "bert"]}}, "method and baselines must differ"),
        ({"student": {"seeds": []}}, "at least 1 item"),
        ({"student": {"seeds": [1, 1]}}, "seeds must differ"),
        ({"student": {"max_length": 4}}, "greater than or equal to 8"),
        ({"student": {"guide": {"weight": -1}}}, "greater than or equal to 0"),
        ({"student": {"guide": {"warmup_ratio": 1.5}}}, "less than or equal to 1"),
        ({"student": {"new_layers_learning_rate": 0}}, "greater than 0"),
        ({"evaluate": {"confidence": 1.0}}, "less than 1"),
        ({"evaluate": {"bootstrap_samples": 10}}, "greater than or equal to 100"),
        ({"export": {"variants": []}}, "must have onnx_fp32 among them and none twice"),
        ({"export": {"variants": ["onnx_int8"]}}, "must have onnx_fp32 among them and none twice, got .'onnx_int8'."),
        ({"export": {"variants": ["onnx_fp32", "onnx_fp32"]}}, "must have onnx_fp32 among them and none twice"),
        ({"export": {"variants": ["onnx_fp32", "onnx_int4"]}}, "'onnx_fp32', 'onnx_int8', 'openvino_bf16'"),
        ({"export": {"calibration_pairs": 0}}, "greater than or equal to 1"),
        ({"export": {"opset": 17}}, "greater than or equal to 18"),
        ({"export": {"fp32": {"logit_max": 0}}}, "greater than 0"),
        ({"export": {"low_precision": {"labels": 1.1}}}, "less than or equal to 1"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Config.model_validate({**LEAST, **change})


@pytest.mark.parametrize("section", sorted({*sections(Section)} - {Config}, key=lambda kind: kind.__name__))
def test_every_option_of_a_section_is_documented(section: type[BaseModel]) -> None:
    documented = (section.__doc__ or "").partition("Attributes:")[2]
    if documented:
        own = set(section.__annotations__) - {"loader", "backend", "name", "path"}
        assert [name for name in sorted(own) if f"{name}:" not in documented] == []


def test_split_layers_change_the_students_fingerprint_only_where_they_are_used() -> None:
    plain, split = StudentConfig(), StudentConfig(split_layers=2)
    assert "split_layers" not in plain.substance()
    assert split.substance() == plain.substance() | {"split_layers": 2}
    assert plain.model_dump()["split_layers"] == 0


def test_nothing_is_exported_unless_asked_and_low_precision_has_no_limit_on_logits() -> None:
    assert Config.model_validate(LEAST).export is None
    export = Config.model_validate({**LEAST, "export": {}}).export
    assert export is not None and export.variants == ("onnx_fp32", "onnx_int8")
    limits = [(each.logit_max, each.logit_mean) for each in (export.fp32, export.low_precision)]
    assert limits == [(1e-3, 1e-4), (None, None)]
    lifted = Config.model_validate({**LEAST, "export": {"fp32": {"logit_max": None}}}).export
    assert lifted is not None and lifted.fp32.logit_max is None
