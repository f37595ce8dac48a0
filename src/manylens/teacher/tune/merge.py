"""From what was trained to a plain Hugging Face folder that transformers, vLLM and others load."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from manylens.teacher.tune.job import TrainJob
from manylens.teacher.tune.options import load_model_config


def save_whole(job: TrainJob, folder: Path) -> None:
    """Save the trained model whole: weights in the type that the model came in, tokenizer, generation settings.

    A LoRA adapter is merged into the weights that training started from (with QLoRA into the unquantised ones).

    Args:
        job: A job that has been trained.
        folder: Where to; it appears only when it is whole.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    dtype = getattr(load_model_config(job.model), "dtype", None) or torch.float32
    if job.adapter == "none":
        model = AutoModelForCausalLM.from_pretrained(job.trained, dtype=dtype)
    else:
        from peft import PeftModel

        base = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)
        model = PeftModel.from_pretrained(base, str(job.trained)).merge_and_unload(safe_merge=True)
    model.generation_config = GenerationConfig.from_pretrained(job.trained)
    unfinished = _unfinished(folder)
    model.save_pretrained(unfinished)
    AutoTokenizer.from_pretrained(job.trained).save_pretrained(unfinished)
    _replace(unfinished, folder)


def publish(model: Path, folder: Path) -> None:
    """Put a model at a second place, of the same files where the file system can link them.

    Args:
        model: The model's folder.
        folder: The second place; what was there is replaced.
    """
    unfinished = _unfinished(folder)
    shutil.copytree(model, unfinished, copy_function=_link_or_copy)
    _replace(unfinished, folder)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        return str(shutil.copy2(source, target))
    return target


def _unfinished(folder: Path) -> Path:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    return unfinished


def _replace(unfinished: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
