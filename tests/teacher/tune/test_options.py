from __future__ import annotations

from pathlib import Path

import pytest
import torch

from manylens.config import VllmOptions
from manylens.errors import ConfigError
from manylens.teacher.tune import check_tuning
from manylens.teacher.tune.options import RESERVED_KEYS, lora_config, quantization_config
from tune.build import make_config


def test_a_right_section_passes(teacher: Path) -> None:
    check_tuning(make_config(), str(teacher))
    check_tuning(make_config(adapter="none", dpo=None, max_length=2048), str(teacher))
    check_tuning(make_config(sft={"learning_rate": 5e-5, "packing": False}, dpo={"beta": 0.1}), str(teacher))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sft": {"lerning_rate": 1e-4}}, r"unknown key tune\.sft\.lerning_rate \(did you mean 'learning_rate'\?\)"),
        ({"sft": {"beta": 0.1}}, r"unknown key tune\.sft\.beta"),
        ({"dpo": {"beta": "strong"}}, r"tune\.dpo\.beta: DPOConfig expects float, got 'strong'"),
        ({"lora": {"rank": 8}}, r"tune\.lora: expected the fields of peft\.LoraConfig.*rank"),
        ({"adapter": "none", "lora": {"r": 8}}, r"tune\.lora has no effect with tune\.adapter none"),
        ({"max_length": 4096}, r"tune\.max_length must be at most the 2048 positions .* got 4096"),
        (
            {"generate": VllmOptions(backend="vllm", structured_output=True)},
            r"tune\.generate\.structured_output must be false",
        ),
    ],
)
def test_a_wrong_section_is_explained(fields: dict[str, object], message: str, teacher: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_tuning(make_config(**fields), str(teacher))


@pytest.mark.parametrize("key", RESERVED_KEYS)
def test_what_manylens_sets_itself_is_refused(key: str, teacher: Path) -> None:
    with pytest.raises(ConfigError, match=rf"tune\.sft\.{key} is set by manylens itself"):
        check_tuning(make_config(sft={key: None}), str(teacher))


def test_a_model_that_is_not_to_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tune\.model .*nowhere' is not to be had"):
        check_tuning(make_config(), str(tmp_path / "nowhere"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_qlora_needs_a_gpu(teacher: Path) -> None:
    with pytest.raises(ConfigError, match="qlora needs a GPU and bitsandbytes"):
        check_tuning(make_config(adapter="qlora"), str(teacher))


def test_qlora_is_quantised_as_in_its_paper() -> None:
    found = quantization_config()
    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16


def test_lora_defaults_give_way_to_the_recipe() -> None:
    found = lora_config({"r": 4, "target_modules": ["q_proj"], "use_rslora": True})
    assert (found.r, found.lora_alpha, found.target_modules, found.use_rslora) == (4, 32, {"q_proj"}, True)
    assert found.task_type == "CAUSAL_LM"
