"""The paper's variants: each recipe says what its name says, and runs on the tiny teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, Qwen3Config

import manylens
from manylens.config import Config, VllmTeacher
from manylens.recipe import load_config, recipe_path
from manylens.teacher import PERSPECTIVES
from manylens.teacher.backends.local import model_identity
from manylens.teacher.tune import check_tuning
from manylens.teacher.tune.options import lora_config
from tiny import TinyShop

FOLDER = recipe_path("demo").parent / "teachers"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load(name: str, *overrides: str) -> Config:
    return load_config(f"teachers/{name}", overrides)


def test_there_is_a_recipe_for_every_variant() -> None:
    single = [f"{kind}_{name}" for kind in ("sft", "dpo_aligned", "dpo_multi_on") for name in PERSPECTIVES]
    assert sorted([*single, "sft_multi", "mpcot", "ensemble"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_differs_from_the_papers_teacher_in_what_its_name_says(name: str) -> None:
    config, paper = load(name), load("mpcot")
    assert config.name == f"teacher_{name}"
    assert config.tune is not None and paper.tune is not None
    one = next((perspective for perspective in PERSPECTIVES if name.endswith(perspective)), None)
    assert config.curate.sft_perspectives == (None if one is None else (one,))
    aligned = name.startswith("dpo_aligned")
    assert config.curate.preferences.between == ("same_perspective" if aligned else "different_perspectives")
    assert config.curate.preferences.perspectives == ((one,) if aligned else None)
    assert (config.tune.dpo is None) == name.startswith(("sft", "ensemble"))
    assert config.tune.teachers == ("per_perspective" if name == "ensemble" else "unified")
    # All else is the same, and judged once for all.
    assert (config.judge, config.data, config.teacher) == (paper.judge, paper.data, paper.teacher)
    assert (config.tune.sft, config.tune.lora, config.curate.prompt) == (paper.tune.sft, paper.tune.lora, "neutral")


def test_the_teacher_is_the_papers() -> None:
    config = load("mpcot")
    assert isinstance(config.teacher, VllmTeacher) and config.tuned_model == "Qwen/Qwen3-14B"
    assert config.judge.perspectives == PERSPECTIVES and config.judge.samples == 5
    tune = config.tune
    assert tune is not None and tune.sft is not None and tune.dpo is not None
    assert (tune.adapter, tune.lora["r"]) == ("lora", 16)
    assert (tune.sft["learning_rate"], tune.sft["num_train_epochs"]) == (5e-5, 3)
    assert (tune.dpo["learning_rate"], tune.dpo["num_train_epochs"], tune.dpo["beta"]) == (5e-6, 3, 0.1)


@pytest.mark.parametrize("name", NAMES)
def test_trl_and_peft_take_the_options(name: str, teacher: Path) -> None:
    tune = load(name).tune
    assert tune is not None
    check_tuning(tune, str(teacher))


def test_a_model_of_qwen3_14bs_shape_passes_and_takes_the_adapter(tmp_path: Path) -> None:
    """The shape of Qwen3-14B without its weights, which are not at hand."""
    shape = Qwen3Config(
        vocab_size=151936,
        hidden_size=5120,
        intermediate_size=17408,
        num_hidden_layers=40,
        num_attention_heads=40,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=False,
    )
    shape.save_pretrained(tmp_path)
    tune = load("mpcot").tune
    assert tune is not None
    check_tuning(tune, str(tmp_path))
    with torch.device("meta"):
        model = get_peft_model(AutoModelForCausalLM.from_config(shape), lora_config(tune.lora))
        trainable, everything = model.get_nb_trainable_parameters()
    # r (in + out) of each linear layer: query and output, key and value, gate and up and down.
    assert trainable == 40 * 16 * (2 * (5120 + 5120) + 2 * (5120 + 1024) + 3 * (5120 + 17408)) == 64_225_280
    assert round((everything - trainable) / 1e9, 1) == 14.8


@pytest.fixture(scope="module")
def judgements(shop: TinyShop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every perspective takes each substitute for exact in its second sample, and is right in its first."""
    lines = [json.loads(line) for line in (shop.folder / "judgements.jsonl").read_text().splitlines()]
    for line in lines:
        if line["product_id"].endswith("-s"):
            line["label"] = "exact" if line["sample"] else "substitute"
    file = tmp_path_factory.mktemp("judged") / "judgements.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_variant_runs_on_the_tiny_teacher(
    name: str, shop: TinyShop, judgements: Path, teacher: Path, tmp_path: Path
) -> None:
    short = "{max_steps: 1, per_device_train_batch_size: 2, gradient_checkpointing: false}"
    overrides = [
        f"data={{loader: table, path: '{shop.pairs}'}}",
        f"teacher={{backend: recorded, path: '{judgements}'}}",
        "judge.samples=2",
        f"judge.store={tmp_path / 'judged.sqlite'}",
        f"tune.model={teacher}",
        f"tune.sft={short}",
        "tune.generate={backend: transformers, sampling: {max_tokens: 4}}",
        "tune.measure_pairs=8",
        f"embed.encoder={shop.models / 'encoder'}",
        f"student.backbone={shop.models / 'backbone'}",
        "student.max_length=32",
    ]
    wanted = load(name).tune
    assert wanted is not None
    overrides += [] if wanted.dpo is None else [f"tune.dpo={short}"]
    run = manylens.run(f"teachers/{name}", overrides, folder=tmp_path / "run", until="tune")

    report = json.loads((run.path / "tune" / "report.json").read_text())
    one = next((perspective for perspective in PERSPECTIVES if name.endswith(perspective)), None)
    assert list(report["teachers"]) == (list(PERSPECTIVES) if name == "ensemble" else ["unified"])
    for teacher_name, phases in report["teachers"].items():
        assert list(phases) == (["sft"] if wanted.dpo is None else ["sft", "dpo"])
        assert all(phase["training"]["steps"] == 1 and phase["dev"]["pairs"] == 8 for phase in phases.values())
        model = model_identity(str(run.path / "tune" / teacher_name / "model"))
        assert model.partition("@")[2] != model_identity(str(teacher)).partition("@")[2]
    taught = set(pq.read_table(run.path / "curate" / "sft.parquet")["perspective"].to_pylist())
    assert taught == ({one} if one else set(PERSPECTIVES))
    pairs = pq.read_table(run.path / "curate" / "preferences.parquet").to_pylist()
    sides = {(row["chosen_perspective"], row["rejected_perspective"]) for row in pairs}
    if name.startswith("dpo_aligned"):
        assert sides == {(one, one)}
    else:
        assert len(sides) == 6 and all(chosen != rejected for chosen, rejected in sides)
    assert bool(report["ensemble"]) == (name == "ensemble")
