from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manylens.errors import ManylensError, MissingExtraError
from manylens.preflight import check, check_export
from manylens.recipe import load_config
from tiny import TinyShop


def problem(tree: dict[str, Any], *overrides: str) -> tuple[str, str]:
    with pytest.raises(ManylensError) as caught:
        check(load_config(tree, overrides))
    return type(caught.value).__name__, str(caught.value)


def test_a_good_recipe_passes_and_nothing_is_written(
    shop: TinyShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(load_config(shop.recipe()))
    check(load_config(shop.recipe(), ["student.method=bert", "student.baselines=[]", "student.extractor=none"]))
    assert list(tmp_path.iterdir()) == []


def test_any_transformers_model_may_be_the_encoder(shop: TinyShop) -> None:
    check(load_config(shop.recipe(), [f"embed.encoder={shop.models / 'backbone'}"]))


@pytest.mark.parametrize(
    ("override", "kind", "expected"),
    [
        ("data.path=absent.csv", "BadRowError", "absent.csv"),
        ("teacher.backend=recordd", "ConfigError", "unknown backend 'recordd' (did you mean 'recorded'?)"),
        ("judge.budget=lots", "ConfigError", "a budget is an amount above 0, such as 20usd"),
        ("curate.prompt=neutrl", "UnknownNameError", "(did you mean 'neutral'?)"),
        ("tune={sft: {learnin_rate: 1}}", "ConfigError", "tune.model is required: the teacher's backend"),
        ("tune={model: no/such, sft: {learnin_rate: 1}}", "ConfigError", "unknown key tune.sft.learnin_rate"),
        ("tune={model: no/such}", "ConfigError", "no/such"),
        ("teacher.path=absent.jsonl", "BadRowError", "absent.jsonl: expected a JSONL file of recorded judgements"),
        ("judge.perspectives=[user_intnt]", "UnknownNameError", "(did you mean 'user_intent'?)"),
        ("judge.perspectives=[absent.jinja]", "PromptError", "absent.jinja: expected a UTF-8 text file"),
        ("student.method=lrkdd", "UnknownNameError", "unknown method 'lrkdd' (did you mean 'lrkd'?)"),
        ("student.baselines=[brt]", "UnknownNameError", "unknown method 'brt' (did you mean 'bert'?)"),
        ("student.extractor=gta", "UnknownNameError", "(did you mean 'gat'?)"),
        ("student.extractor_options={width: 0}", "ConfigError", "width must be at least 1, got 0"),
        ("student.extractor_options={cods: 4}", "ConfigError", "cods"),
        ("student.guide.loss=mse_sum", "UnknownNameError", "unknown guide loss 'mse_sum'"),
        ("student.product_template='{{ titel }}'", "ConfigError", "student.product_template: 'titel' is undefined"),
        ("student.product_template='{% if %}'", "ConfigError", "student.product_template"),
        ("student.split_layers=1", "ConfigError", "student.split_layers must lie below the backbone's 1 layers, got 1"),
        ("student.max_length=65", "ConfigError", "student.max_length must be at most the 64 positions"),
        (
            "student.baselines=[crsd]",
            "ConfigError",
            "student.earlier.augmented_length must be at most the 64 positions",
        ),
        ("student.backbone_options={num_hidden_layer: 1}", "ConfigError", "(did you mean 'num_hidden_layers'?)"),
        ("student.backbone_options={num_hidden_layers: many}", "ConfigError", "expected int, got str"),
        ("student.backbone=no/such-model", "StudentError", "student.backbone 'no/such-model' is not to be had"),
        ("embed.encoder=no/such-model", "StudentError", "embed.encoder 'no/such-model' is not to be had"),
        ("export.variant=[onnx_fp32]", "ConfigError", "unknown key export.variant"),
        ("export.variants=[onnx_int8]", "ConfigError", "variants must have onnx_fp32 among them"),
        ("student.training.seed=1", "ConfigError", "student.training.seed is set by manylens itself"),
        ("student.training.learnin_rate=1", "ConfigError", "(did you mean 'learning_rate'?)"),
        (
            "student.training.eval_strategy=no",
            "ConfigError",
            "student.training: TrainingArguments refuses these options",
        ),
    ],
)
def test_a_mistake_is_found(shop: TinyShop, override: str, kind: str, expected: str) -> None:
    found, message = problem(shop.recipe(), override)
    assert (found, expected in message) == (kind, True), message


def test_two_perspectives_of_one_name_are_refused(shop: TinyShop, tmp_path: Path) -> None:
    own = tmp_path / "user_intent.jinja"
    own.write_text('{% extends "perspective.jinja" %}{% block instruction %}Judge.{% endblock %}')
    kind, message = problem(shop.recipe(), f"judge.perspectives=[user_intent, {own}]")
    assert kind == "ConfigError" and "each needs a name of its own" in message


def test_a_prompt_that_cannot_be_rendered_is_found(shop: TinyShop, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text('{% extends "perspective.jinja" %}{% block instruction %}{{ gold_label }}{% endblock %}')
    kind, message = problem(shop.recipe(), f"judge.perspectives=[{own}]")
    assert kind == "PromptError" and "'gold_label' is undefined" in message


@pytest.mark.parametrize("module", ["torch", "transformers", "sentence_transformers", "ir_measures"])
def test_a_missing_extra_is_found(shop: TinyShop, module: str) -> None:
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from manylens.preflight import check; from manylens.recipe import load_config\n"
        "try: check(load_config('demo'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.startswith("MissingExtraError") and "pip install 'manylens[train]'" in told, told


def test_a_missing_library_of_a_backend_is_found_before_it_is_asked(shop: TinyShop) -> None:
    pytest.importorskip("trl", reason="the extra [teacher] is not installed")
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vllm is installed")
    assert problem(shop.recipe(), "teacher={backend: vllm, model: Qwen/Qwen3-14B}") == (
        "MissingExtraError",
        "vllm is not installed; run: pip install 'manylens[vllm]'",
    )


@pytest.mark.parametrize(
    ("variant", "library", "extra"),
    [
        ("onnx_fp32", "onnx", "export"),
        ("onnx_fp32", "onnxscript", "export"),
        ("onnx_fp32", "onnxruntime", "export"),
        ("onnx_int8", "nncf", "export"),
        ("openvino_bf16", "openvino", "openvino"),
        ("openvino_int8", "nncf", "export"),
    ],
)
def test_a_missing_library_of_an_export_is_found(
    shop: TinyShop, variant: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_config(shop.recipe())
    config = load_config(shop.recipe(), [f"export.variants=[{', '.join(dict.fromkeys(('onnx_fp32', variant)))}]"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == library else name)
    check_export(plain)
    with pytest.raises(
        MissingExtraError, match=rf"^{library} is not installed; run: pip install 'manylens\[{extra}\]'$"
    ):
        check_export(config)


def test_an_export_needs_the_libraries_of_its_own_variants_alone(
    shop: TinyShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("openvino", "nncf") else name)
    check_export(load_config(shop.recipe(), ["export.variants=[onnx_fp32]"]))
