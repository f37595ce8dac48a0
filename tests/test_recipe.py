from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from manylens.config import Config
from manylens.errors import ConfigError, MissingExtraError
from manylens.recipe import check_options, dump_config, load_config, parse_columns, recipe_path

LEAST: dict[str, Any] = {"name": "x", "data": {"loader": "table", "path": "pairs.csv"}, "labels": {"scale": "esci"}}
ARGUMENTS = "transformers:TrainingArguments"
OPTION_CLASSES = [ARGUMENTS, "trl:SFTConfig", "trl:DPOConfig"]


def refused(*overrides: str, tree: object = LEAST) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(tree, overrides)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_recipe_is_a_file_a_name_a_mapping_or_a_config(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(LEAST))
    config = load_config(LEAST)
    assert load_config(file) == load_config(str(file)) == load_config(config) == config
    assert load_config("demo").name == "demo"


def test_an_unknown_recipe_names_the_nearest_and_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe at dmeo \(did you mean 'demo'\?\).+one of demo"):
        recipe_path("dmeo")
    with pytest.raises(ConfigError, match="no recipe at"):
        recipe_path(tmp_path)  # A folder is not a recipe.


def test_a_file_goes_before_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()  # A folder of that name does not hide the packaged recipe.
    assert recipe_path("demo").name == "demo.yaml"
    Path("demo").rmdir()
    Path("demo").write_text(yaml.safe_dump({**LEAST, "name": "mine"}))
    assert load_config("demo").name == "mine"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name: [x", "is not valid YAML"),
        (b"name: \xff\xfe\x00", "is not valid YAML"),
        (b"- a\n- b\n", "must hold a mapping of sections, got list"),
        (b"", "must hold a mapping of sections, got NoneType"),
        (b"name: x\n", "data is required; labels is required"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"own\.yaml") as caught:
        load_config(file)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("studnet.extractor=gat", "unknown key studnet (did you mean 'student'?); known here: name, seed, data"),
        ("student.extracter=gat", "unknown key student.extracter (did you mean 'extractor'?)"),
        (
            "student.guide.wieght=1",
            "unknown key student.guide.wieght (did you mean 'weight'?); known here: loss, weight",
        ),
        ("data.colums={}", "unknown key data.colums (did you mean 'columns'?)"),
        ("data.locales=[us]", "unknown key data.locales"),  # A key of another loader.
        ("teacher.zzz=1", "unknown key teacher.zzz; known here: backend, path"),
        (
            "teacher={backend: openai, model: m, price: {inptu: 1}}",
            "unknown key teacher.price.inptu (did you mean 'input'",
        ),
        ("tune={modle: m}", "unknown key tune.modle (did you mean 'model'?)"),
        ("tune={generate: {backend: vllm, modle: m}}", "unknown key tune.generate.modle"),
    ],
)
def test_an_unknown_key_is_refused_by_its_full_path_with_the_nearest_one(override: str, expected: str) -> None:
    assert expected in refused(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.max_length=long", "student.max_length: Input should be a valid integer"),
        ("student.seeds=[1, a]", "student.seeds.1: Input should be a valid integer"),
        ("student=3", "student: Input should be a valid dictionary"),
        ("student=null", "student: Input should be a valid dictionary"),
        ("student.guide.weight=[1]", "student.guide.weight: Input should be a valid number"),
        ("data=demo", "data: Input should be a valid dictionary"),
        ("data.path=null", "data.path: Input should be a valid string, got None"),
        ("data.loader=tabel", "data.loader: unknown loader 'tabel' (did you mean 'table'?); known: demo, esci, wands"),
        ("teacher.backend=opnai", "teacher.backend: unknown backend 'opnai' (did you mean 'openai'?); known: recorded"),
        ("tune={generate: {batch_size: 2}}", "tune.generate.backend is required: one of transformers, vllm"),
        ("data.columns={title: 3}", "data.columns.title: Input should be a valid string, got 3"),
        ("data.columns={title: [a, 3]}", "data.columns.title.1: Input should be a valid string, got 3"),
        ("labels.gains={exact: 1}", "labels: give either scale"),
        ("judge.perspectives=[]", "judge.perspectives: expected at least one and none twice, got []"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(override: str, expected: str) -> None:
    assert expected in refused(override)


def test_what_is_missing_is_named_by_its_full_path() -> None:
    message = refused(tree={"data": {"loader": "esci"}, "labels": {"scale": "esci"}})
    assert "the recipe: name is required; data.path is required" in message
    assert "data.loader is required: one of demo, esci, wands, table, hub" in refused(tree={**LEAST, "data": {}})


def test_keys_that_are_no_texts_are_refused() -> None:
    assert "Keys should be strings" in refused(tree={**LEAST, 1: 2})
    assert "Keys should be strings" in refused(tree={**LEAST, "student": {1: 2}})


def test_labels_that_do_not_fit_together_are_refused_on_reading() -> None:
    labels = {"names": ["a", "b"], "gains": {"a": 2, "b": 0}, "definitions": {"a": "x", "b": "y"}}
    assert "the gain of 'a' must lie in [0, 1], got 2.0" in refused(tree={**LEAST, "labels": labels})


def test_overrides_are_yaml_and_may_be_nested_lists_null_or_new_sections() -> None:
    config = load_config(
        LEAST,
        [
            "student.extractor=gat",
            "student.seeds=[1, 2]",
            "student.guide.weight=0.5",
            "student.early_stopping_patience=3",
            "student.early_stopping_patience=null",
            "student.training.learning_rate=1e-4",
            "student.training.weight_decay=1.5E+2",
            "student.training.run_name='1e-4'",
            "data.columns={title: name, attributes: [size, colour]}",
            "teacher.path=a=b.jsonl",
            "judge.perspectives=[]",
            "judge.perspectives=[neutral]",
        ],
    )
    assert (config.student.extractor, config.student.seeds, config.student.guide.weight) == ("gat", (1, 2), 0.5)
    assert config.student.early_stopping_patience is None
    assert config.student.training == {"learning_rate": 1e-4, "weight_decay": 150.0, "run_name": "1e-4"}
    assert config.data.model_dump()["columns"] == {"title": "name", "attributes": ["size", "colour"]}
    assert config.teacher.path == "a=b.jsonl"
    assert config.judge.perspectives == ("neutral",)


def test_overrides_leave_the_given_tree_as_it_is() -> None:
    tree: dict[str, Any] = {**LEAST, "student": {"guide": {"weight": 1.0}}}
    assert load_config(tree, ["student.guide.weight=2"]).student.guide.weight == 2.0
    assert tree["student"] == {"guide": {"weight": 1.0}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.extractor", "an override looks like student.extractor=gat, got 'student.extractor'"),
        ("=gat", "an override looks like"),
        ("student..extractor=gat", "an override looks like"),
        ("name.first=x", "override name.first: name is a value, not a section"),
        ("data.path.file=x", "override data.path.file: path is a value, not a section"),
        ("student.seeds=[1", "override student.seeds: the value is not valid YAML"),
    ],
)
def test_a_wrong_override_is_refused(override: str, expected: str) -> None:
    assert expected in refused(override)


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP", "/data/shop")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("ABSENT", raising=False)
    tree = {
        **LEAST,
        "data": {
            "loader": "table",
            "path": "${SHOP}/${ABSENT:-pairs}.csv",
            "columns": {"attributes": ["${SHOP}", "b"]},
        },
        "teacher": {"path": "${EMPTY:-default}${ABSENT:-}"},
        "student": {"product_template": "{{ title }} ${{ brand }} $SHOP"},
    }
    config = load_config(tree)
    assert config.data.model_dump()["path"] == "/data/shop/pairs.csv"
    assert config.data.model_dump()["columns"] == {"attributes": ["/data/shop", "b"]}
    assert config.teacher.path == ""  # Set, if to nothing.
    assert config.student.product_template == "{{ title }} ${{ brand }} $SHOP"
    assert load_config(LEAST, ["teacher.path=${SHOP}/j.jsonl"]).teacher.path == "/data/shop/j.jsonl"


@pytest.mark.parametrize("override", ["data.path=${ABSENT}", "data.columns={attributes: [a, '${ABSENT}']}"])
def test_an_unset_variable_is_named_with_its_place(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    message = refused(override)
    assert "environment variable ABSENT is not set; set it, or write ${ABSENT:-default}" in message
    assert message.startswith(("data.path:", "data.columns.attributes[1]:"))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), max_size=20)


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS


@given(
    path=TEXTS | st.sampled_from(["1e-4", "1e5", "0x1F", "no", "null", "12:30", "2024-01-01", "{a: b}", "- a", "# a"]),
    template=TEXTS,
    rate=st.floats(min_value=1e-300, max_value=1e300),
    training=st.dictionaries(TEXTS, VALUES, max_size=4),
)
def test_a_config_is_read_back_as_it_was_dumped(
    tmp_path_factory: pytest.TempPathFactory, path: str, template: str, rate: float, training: dict[str, Any]
) -> None:
    student = {"product_template": template, "new_layers_learning_rate": rate, "training": training}
    config = Config.model_validate({**LEAST, "data": {"loader": "table", "path": path}, "student": student})
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(file) == config


@pytest.mark.parametrize("target", OPTION_CLASSES)
def test_good_options_pass(target: str) -> None:
    check_options(
        {"learning_rate": 1e-4, "num_train_epochs": 3, "bf16": False, "lr_scheduler_type": "cosine"},
        target,
        "student.training",
        defaults={"use_cpu": True},
    )


@pytest.mark.parametrize("target", OPTION_CLASSES)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"learning_rte": 1e-4}, "unknown key tune.sft.learning_rte (did you mean 'learning_rate'?)"),
        ({"lr_scheduler_type": "zigzag"}, "tune.sft: "),
        ({"load_best_model_at_end": True, "eval_strategy": "no"}, "tune.sft: "),
        ({"output_dir": "here"}, "tune.sft.output_dir is set by manylens itself; remove it"),
        ({"learning_rate": "fast"}, "tune.sft.learning_rate: "),
        ({"learning_rate": "fast"}, "expects float, got 'fast'"),
        ({"num_train_epochs": None}, "expects float, got None"),
        ({"per_device_train_batch_size": 0.5}, "expects int, got 0.5"),
        ({"per_device_train_batch_size": True}, "expects int, got True"),
        ({"max_grad_norm": [1.0]}, "expects float, got [1.0]"),
        ({"use_cpu": "no"}, "expects bool, got 'no'"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(target: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options(options, target, "tune.sft", defaults={"use_cpu": True}, reserved=("output_dir", "seed"))
    assert expected in str(caught.value)


@pytest.mark.parametrize(("target", "option"), [("trl:SFTConfig", "max_length"), ("trl:DPOConfig", "beta")])
def test_options_of_trl_are_known_to_its_classes_alone(target: str, option: str) -> None:
    check_options({option: 1}, target, "tune", defaults={"use_cpu": True})
    with pytest.raises(ConfigError, match=f"unknown key tune.{option}"):
        check_options({option: 1}, ARGUMENTS, "tune")


def test_checking_options_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_options({}, ARGUMENTS, "student.training", defaults={"use_cpu": True})
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_installed_names_the_extra() -> None:
    with pytest.raises(
        MissingExtraError, match=r"no_such_library is not installed; run: pip install 'manylens\[train\]'"
    ):
        check_options({}, "no_such_library:Class", "x")


def test_columns() -> None:
    assert parse_columns(["title=name", "attributes=size,colour"]) == {
        "title": "name",
        "attributes": ["size", "colour"],
    }
    for wrong in ("title", "=name", "title="):
        with pytest.raises(ConfigError, match=f"a column mapping looks like title=product_name, got '{wrong}'"):
            parse_columns([wrong])


def test_a_recipe_extends_another_and_sections_are_merged(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**LEAST, "student": {"extractor": "gat", "seeds": [1, 2]}}))
    (tmp_path / "heir.yaml").write_text("extends: base.yaml\nname: heir\nstudent: {seeds: [3]}\n")
    (tmp_path / "second.yaml").write_text("extends: heir.yaml\nseed: 5\n")
    config = load_config(tmp_path / "second.yaml", ["student.max_length=64"])
    assert (config.name, config.seed, config.student.max_length) == ("heir", 5, 64)
    assert (config.student.extractor, config.student.seeds) == ("gat", (3,))
    assert load_config({"extends": "demo", "name": "mine"}).student == load_config("demo").student


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("extends: self.yaml", "extends goes round in a circle"),
        ("extends: [demo]", "extends must name one recipe"),
        ("extends: demmo", "did you mean 'demo'"),
    ],
)
def test_a_wrong_extends_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "self.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        load_config(tmp_path / "self.yaml")


def test_an_option_that_takes_a_list_takes_one() -> None:
    check_options({"loss_type": ["sigmoid", "sft"]}, "trl:DPOConfig", "tune.dpo", defaults={"use_cpu": True})
