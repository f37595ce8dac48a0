"""The base teacher: a small Qwen3 trained from random weights on flawed rationales, of pairs that no study uses."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from benchmarks.tiny_teacher.catalogue import LOOKS_AT, Rates, make_listings, write_rationale
from tests.tiny_teacher import make_teacher

from manylens.records import ESCI
from manylens.teacher.answers import format_thought
from manylens.teacher.perspectives import Prompt, load_perspective

#: Options of `trl.SFTConfig`.
TRAINING: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 50,
    "adam_beta2": 0.98,
    "gradient_checkpointing": False,
    "max_length": None,
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 100,
}
_HIDDEN = 128


def prompt_path(name: str) -> str:
    """Return the template of a perspective, or of the ``neutral`` prompt."""
    return str(Path(__file__).parent / "prompts" / f"{name}.jinja")


def train_base(folder: Path, *, rows: int, seed: int, taken: set[str]) -> Path:
    """Train the base teacher, on the completions alone; where there is one, it is taken as it is.

    Args:
        folder: Where it goes.
        rows: Rows that it learns from.
        seed: Of the rows, their order and the weights.
        taken: Queries that it must not see.

    Returns:
        The model's folder.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = folder / "model"
    if model.exists():
        return model
    texts = base_rows(seed, rows, Rates(), taken)
    trainer = SFTTrainer(
        _random_model(folder / "random", texts, seed),
        args=SFTConfig(output_dir=str(folder / "checkpoints"), seed=seed, **TRAINING),
        train_dataset=Dataset.from_list(texts),
        processing_class=AutoTokenizer.from_pretrained(folder / "random"),
    )
    trainer.train()
    trainer.save_model(str(folder / "unfinished"))
    os.replace(folder / "unfinished", model)
    return model


def base_rows(seed: int, count: int, rates: Rates, taken: set[str]) -> list[dict[str, Any]]:
    """Write what the base teacher learns from, as rows of TRL's conversational prompt-completion format.

    Each row has a query of its own. Under a perspective's prompt stands that perspective's rationale; under the neutral
    prompt, which every fourth row has, that of any. Here wishes are broken as often as kept, or the model would never
    learn to compare: it would take each product for what was asked.
    """
    rng = random.Random(f"base:{seed}")
    prompts = {name: Prompt(load_perspective(prompt_path(name)), ESCI) for name in (*LOOKS_AT, "neutral")}
    rows = []
    for listing in make_listings(seed, count, per_query=1, wrong=0.5, taken=set(taken)):
        name = rng.choice(list(prompts))
        manner = rng.choice(list(LOOKS_AT)) if name == "neutral" else name
        answer = format_thought(*write_rationale(rng, listing.findings, manner, rates))
        completion = [{"role": "assistant", "content": answer}]
        rows.append({"prompt": prompts[name].messages(listing.pair), "completion": completion})
    return rows


def _random_model(folder: Path, rows: list[dict[str, Any]], seed: int) -> Any:  # noqa: ANN401 - a PreTrainedModel
    """Save a tokenizer that knows the rows' words, and return a model with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    texts = [message["content"] for row in rows[:4000] for message in (*row["prompt"], *row["completion"])]
    texts += ["system\nuser\nassistant\n"] * len(texts)
    make_teacher(folder, texts=texts, vocabulary=2000, hidden=_HIDDEN, layers=3, positions=256)
    # Qwen3's 0.02 suits wide models; one as narrow as this learns to copy several times faster with 1 / sqrt(width).
    config = AutoConfig.from_pretrained(folder, initializer_range=_HIDDEN**-0.5)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)
