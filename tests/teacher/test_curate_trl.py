"""The curated rows go into TRL's own trainers unchanged: their data preparation and one training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manylens.config import CurateConfig
from manylens.records import ESCI, Judgement, Pair
from manylens.teacher.curate import Curated, curate

pytest.importorskip("trl", reason="the extra [teacher] is not installed")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def curated(make_pair: Callable[..., Pair], make_judgement: Callable[..., Judgement]) -> Curated:
    pairs = [make_pair(number, "exact") for number in range(2)]
    judgements = [
        make_judgement(pair, name, label)
        for pair in pairs
        for name, label in (("user_intent", "exact"), ("business_rules", "irrelevant"))
    ]
    return curate(pairs, judgements, ESCI, CurateConfig(), seed=1)


@pytest.fixture
def tokenizer(curated: Curated) -> Any:  # noqa: ANN401 - TRL's own types are too wide to name
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    texts = [message["content"] for row in curated.sft.to_pylist() for message in row["prompt"] + row["completion"]]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    byte_level.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level, pad_token="<pad>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )


@pytest.fixture
def model(tokenizer: Any, tmp_path: Path) -> Any:  # noqa: ANN401
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    # DPO loads its reference model from the folder that the model came from.
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return LlamaForCausalLM.from_pretrained(tmp_path / "model")


def dataset(table: pa.Table, path: Path) -> Any:  # noqa: ANN401
    from datasets import Dataset

    pq.write_table(table, path)
    return Dataset.from_parquet(str(path), cache_dir=str(path.parent / "cache"))


def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def test_sft_trainer_masks_the_prompt_and_learns_the_label(
    curated: Curated, tokenizer: Any, model: Any, tmp_path: Path  # noqa: ANN401
) -> None:  # fmt: skip
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings(tmp_path), max_length=2048),
        train_dataset=dataset(curated.sft, tmp_path / "sft.parquet"),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        learnt = tokenizer.decode(ids[labels != -100])
        assert learnt == "<think>\nuser_intent says exact\n</think>\n\nLabel: exact<|end|>"
        assert "Labels, best first" in tokenizer.decode(ids[labels == -100])
    assert math.isfinite(trainer.train().training_loss)


def test_dpo_trainer_sees_one_prompt_and_two_different_answers(
    curated: Curated, tokenizer: Any, model: Any, tmp_path: Path  # noqa: ANN401
) -> None:  # fmt: skip
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(**settings(tmp_path), max_length=2048),
        train_dataset=dataset(curated.preferences, tmp_path / "preferences.parquet"),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    answers = [
        tokenizer.decode(ids[mask == 1]) for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    # TRL stacks the chosen answers of a batch on the rejected ones.
    assert answers == [
        *["<think>\nuser_intent says exact\n</think>\n\nLabel: exact<|end|>"] * 2,
        *["<think>\nbusiness_rules says irrelevant\n</think>\n\nLabel: irrelevant<|end|>"] * 2,
    ]
    for row in trainer.train_dataset:
        prompt = tokenizer.decode(row["prompt_ids"])
        assert prompt.startswith("<|system|>You judge") and prompt.endswith("<|assistant|>")
    assert math.isfinite(trainer.train().training_loss)
