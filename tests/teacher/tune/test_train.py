from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from manylens.records import ESCI
from manylens.teacher.perspectives import NEUTRAL, render_prompt
from manylens.teacher.tune.job import WHOLE, TrainJob
from manylens.teacher.tune.lengths import row_lengths
from manylens.teacher.tune.train import build_trainer, train
from tune.build import SHORT, make_pairs, make_rows


def make_job(teacher: Path, rows: pa.Table, folder: Path, **fields: object) -> TrainJob:
    pq.write_table(rows, folder / "rows.parquet")
    known: dict[str, Any] = {
        "phase": "sft",
        "description": "sft unified",
        "model": str(teacher),
        "rows": str(folder / "rows.parquet"),
        "folder": str(folder),
        "options": SHORT,
        "adapter": "none",
        "lora": {},
        "max_length": 1024,
        "seed": 1,
    }
    return TrainJob(**{**known, **fields})


def longest(teacher: Path, rows: pa.Table) -> int:
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    return max(row_lengths(rows, tokenizer, {tokenizer.eos_token_id}, description="x", template_options={}))


def test_sft_learns_the_whole_answer_and_nothing_but_the_answer(teacher: Path, tmp_path: Path) -> None:
    pairs = make_pairs()
    rows = make_rows(pairs).sft
    trainer = build_trainer(make_job(teacher, rows, tmp_path, max_length=longest(teacher, rows)))
    tokenizer: Any = trainer.processing_class
    prompts = {pair.pair_id: render_prompt(NEUTRAL, pair, ESCI) for pair in pairs}
    seen = list(trainer.train_dataset)
    assert len(seen) == rows.num_rows
    for trained, row in zip(seen, rows.to_pylist(), strict=True):
        prompt = tokenizer.apply_chat_template(prompts[row["pair_id"]], tokenize=False, add_generation_prompt=True)
        text = tokenizer.decode(trained["input_ids"])
        learnt = tokenizer.decode([token for token in trained["labels"] if token != -100])
        assert text == prompt + learnt
        rationale = row["completion"][0]["content"].split("\n")[1]
        assert learnt == f"<think>\n{rationale}\n</think>\n\nLabel: exact<|im_end|>\n"


def test_dpo_sees_both_answers_whole(teacher: Path, tmp_path: Path) -> None:
    rows = make_rows(make_pairs()).preferences
    job = make_job(teacher, rows, tmp_path, phase="dpo", max_length=longest(teacher, rows))
    trainer = build_trainer(job)
    tokenizer: Any = trainer.processing_class
    batch = next(iter(trainer.get_train_dataloader()))
    answers = [
        tokenizer.decode(ids[mask == 1]) for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert [answer.rpartition("\n\n")[2] for answer in answers] == [
        *["Label: exact<|im_end|>\n"] * 2, *["Label: irrelevant<|im_end|>\n"] * 2,
    ]  # fmt: skip
    assert all(answer.startswith("<think>\n") for answer in answers)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_dpo_starts_from_its_reference(adapter: str, teacher: Path, tmp_path: Path) -> None:
    rows = make_rows(make_pairs()).preferences
    trainer: Any = build_trainer(make_job(teacher, rows, tmp_path, phase="dpo", adapter=adapter))
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected = AutoModelForCausalLM.from_pretrained(teacher)(**inputs).logits
    trainer.model.eval()
    if adapter == "lora":
        assert trainer.ref_model is None
        with trainer.model.disable_adapter():
            reference = trainer.model.get_base_model().lm_head(trainer.model.get_base_model().model(**inputs)[0])
    else:
        reference = trainer.ref_model.lm_head(trainer.ref_model.model(**inputs)[0])
    torch.testing.assert_close(reference, expected)
    # Nothing has been learnt yet: the implicit rewards are 0, and the loss is log 2 (arXiv 2305.18290, equation 7).
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(math.log(2), abs=1e-5)


def test_options_go_to_trl_and_peft_word_for_word(teacher: Path, tmp_path: Path) -> None:
    rows = make_rows(make_pairs())
    own = {"learning_rate": 3e-4, "beta": 0.25, "loss_type": ["ipo"], "model_init_kwargs": {"dtype": "bfloat16"}}
    job = make_job(
        teacher,
        rows.preferences,
        tmp_path,
        phase="dpo",
        options={**SHORT, **own},
        adapter="lora",
        lora={"r": 3},
        max_length=512,
    )
    trainer: Any = build_trainer(job)
    assert (trainer.args.learning_rate, trainer.args.beta, trainer.args.loss_type) == (3e-4, 0.25, ["ipo"])
    assert (trainer.args.max_length, trainer.args.seed, trainer.args.save_total_limit) == (512, 1, 2)
    found = trainer.model.peft_config["default"]
    assert (found.r, found.lora_alpha, found.lora_dropout) == (3, 32, 0.05)
    assert trainer.model.get_base_model().dtype == torch.bfloat16
    targets = {name.rpartition(".")[2] for name, _ in trainer.model.named_modules() if hasattr(_, "lora_A")}
    assert targets == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_variables_of_the_chat_template_reach_the_training_rows(teacher: Path, tmp_path: Path) -> None:
    rows = make_rows(make_pairs()).sft
    rows = rows.append_column("chat_template_kwargs", pa.array([{"enable_thinking": False}] * rows.num_rows))
    trainer = build_trainer(make_job(teacher, rows, tmp_path))
    tokenizer: Any = trainer.processing_class
    row = next(iter(trainer.train_dataset))
    # TRL takes the answer from where the prompt for generation, with its closed thinking, departs from the row.
    assert tokenizer.decode([token for token in row["labels"] if token != -100]).startswith("a0")


def test_a_training_goes_on_from_its_last_whole_checkpoint(teacher: Path, tmp_path: Path) -> None:
    options = {**SHORT, "max_steps": 4, "save_steps": 1, "logging_steps": 1}
    job = make_job(teacher, make_rows(make_pairs()).sft, tmp_path, options=options)

    def log() -> tuple[list[float], float]:
        history = json.loads((job.trained / "training.json").read_text())["history"]
        return [entry["loss"] for entry in history if "loss" in entry], history[-1]["train_loss"]

    train(job)
    losses, mean = log()
    assert mean == pytest.approx(sum(losses) / 4, abs=1e-3) != pytest.approx(losses[3], abs=1e-3)
    weights = (job.trained / "model.safetensors").read_bytes()
    assert {path.name for path in job.checkpoints.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}
    (job.checkpoints / "checkpoint-4" / WHOLE).unlink()
    (job.checkpoints / "checkpoint-4" / "model.safetensors").write_bytes(b"cut off by a kill")
    train(job)
    # Trainer averages the losses of the steps that it takes itself: the fourth alone.
    assert log() == (losses, pytest.approx(losses[3], abs=1e-6))
    assert (job.trained / "model.safetensors").read_bytes() == weights
    train(job)  # Killed after the last step: there is nothing left to train.
    assert (job.trained / "model.safetensors").read_bytes() == weights
