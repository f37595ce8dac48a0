"""The training itself, by TRL: runs in this process, or in each of several that accelerate started."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from manylens.files import write_json
from manylens.teacher.tune.hardware import hardware_options, release_memory
from manylens.teacher.tune.job import WHOLE, TrainJob, last_checkpoint
from manylens.teacher.tune.options import TRAINING_DEFAULTS, Phase, lora_config, quantization_config
from manylens.trainer_progress import ProgressMeter

#: Weights that an adapter is put on stay as they came; weights that are trained themselves are held in fp32.
_DTYPE = {"lora": "auto", "qlora": "bfloat16", "none": "float32"}


class _MarkWhole(TrainerCallback):
    """Marks each checkpoint once it is written whole; a killed training goes on from a marked one."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any  # noqa: ANN401
    ) -> None:  # fmt: skip
        if state.is_world_process_zero:
            assert args.output_dir is not None
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def train(job: TrainJob) -> None:
    """Train, from the last whole checkpoint where there is one.

    The result goes to ``job.trained``: a LoRA adapter, or full weights; the tokenizer; the generation settings;
    and ``training.json`` with steps, epochs, trainable parameters and TRL's log.

    Args:
        job: The job.
    """
    _train(job)
    release_memory()  # What measures the model next needs it.


def _train(job: TrainJob) -> None:
    trainer = build_trainer(job)
    trainer.add_callback(_MarkWhole)
    with closing(ProgressMeter(job.description)) as progress:
        trainer.add_callback(progress)
        trainer.train(resume_from_checkpoint=last_checkpoint(job.checkpoints))
    trainer.save_model(str(job.trained))
    if trainer.is_world_process_zero():
        model: Any = trainer.model
        model.generation_config.save_pretrained(job.trained)
        report = {
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch,
            "processes": trainer.args.world_size,
            "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
            "history": trainer.state.log_history,
        }
        write_json(job.trained / "training.json", report)


def build_trainer(job: TrainJob) -> SFTTrainer | DPOTrainer:
    """Build TRL's trainer for a job.

    With an adapter, DPO's reference is the model without it; without one, TRL loads `job.model` a second time.
    """
    options: dict[str, Any] = {**TRAINING_DEFAULTS, **hardware_options(), **job.options}
    options["model_init_kwargs"] = {"dtype": _DTYPE[job.adapter], **(options.get("model_init_kwargs") or {})}
    options |= {
        "output_dir": str(job.checkpoints),
        "max_length": job.max_length,
        "save_total_limit": 2,
        "seed": job.seed,
    }
    classes: dict[Phase, tuple[Any, Any]] = {"sft": (SFTConfig, SFTTrainer), "dpo": (DPOConfig, DPOTrainer)}
    config, trainer_class = classes[job.phase]
    trainer: SFTTrainer | DPOTrainer = trainer_class(
        model=job.model,
        args=config(**options),
        train_dataset=Dataset.from_parquet(job.rows, cache_dir=str(job.checkpoints / "cache")),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=None if job.adapter == "none" else lora_config(job.lora),
        quantization_config=quantization_config() if job.adapter == "qlora" else None,
    )
    trainer.remove_callback(PrinterCallback)  # The progress bar shows what it prints.
    return trainer
