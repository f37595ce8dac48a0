from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from manylens.teacher.tune.job import TrainJob
from manylens.teacher.tune.merge import publish, save_whole
from manylens.teacher.tune.train import train
from tune.build import SHORT, make_pairs, make_rows
from tune.test_train import make_job

IDS = torch.tensor([[5, 80, 300, 7, 12]])


def logits(model: Any) -> torch.Tensor:  # noqa: ANN401
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def trained(teacher: Path, folder: Path, **fields: object) -> TrainJob:
    options = {**SHORT, "learning_rate": 0.05}
    job = make_job(teacher, make_rows(make_pairs()).sft, folder, **{"options": options, **fields})
    train(job)
    save_whole(job, folder / "model")
    return job


def test_a_merged_model_is_its_base_with_the_adapter(teacher: Path, tmp_path: Path) -> None:
    job = trained(teacher, tmp_path, adapter="lora")
    base = AutoModelForCausalLM.from_pretrained(teacher)
    before = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, str(job.trained)))
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    assert not torch.allclose(merged, before, atol=1e-3)
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_saved_model_keeps_type_template_and_generation_settings(adapter: str, teacher: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(teacher), AutoTokenizer.from_pretrained(teacher)
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, do_sample=True, temperature=0.6)
    model.to(torch.bfloat16).save_pretrained(source)
    tokenizer.save_pretrained(source)
    trained(source, tmp_path, adapter=adapter)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert saved.dtype == torch.bfloat16
    assert not torch.equal(logits(saved), logits(AutoModelForCausalLM.from_pretrained(source)))
    assert (saved.generation_config.eos_token_id, saved.generation_config.temperature) == (ends, 0.6)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == tokenizer.chat_template
    files = {file.name for file in (tmp_path / "model").iterdir()}
    assert files == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip


def test_a_published_model_takes_no_room_and_replaces_the_old_one(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").touch()
    publish(teacher, tmp_path / "model")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {file.name for file in teacher.iterdir()}
    if teacher.stat().st_dev == tmp_path.stat().st_dev:
        assert os.path.samefile(teacher / "model.safetensors", tmp_path / "model" / "model.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
