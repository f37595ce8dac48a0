"""One phase of one teacher: prepared, trained, saved whole, and marked as done."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from manylens.config import TuneConfig
from manylens.errors import TeacherError
from manylens.files import write_json
from manylens.teacher.backends import canonical_json
from manylens.teacher.backends.local import model_identity
from manylens.teacher.tune.job import TrainJob
from manylens.teacher.tune.launch import launch
from manylens.teacher.tune.lengths import Lengths, fit, row_lengths
from manylens.teacher.tune.merge import save_whole
from manylens.teacher.tune.options import Phase, load_model_config, phases_of, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Raised when what a phase leaves behind changes its form or meaning.
_VERSION = 1
#: `TrainJob.max_length` is a multiple of it, where the recipe does not set it.
_MULTIPLE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseReport:
    """How the training of a phase went.

    Attributes:
        rows: Rows trained on.
        lengths: Tokens of the rows, and how many were too long.
        max_length: What TRL was given; no row is longer.
        steps: Optimiser steps.
        epochs: Passes over the rows.
        processes: Processes that shared the work.
        trainable_parameters: Parameters that the optimiser moved.
        loss: The last that TRL logged; ``None`` where it logged none.
    """

    rows: int
    lengths: Lengths
    max_length: int
    steps: int
    epochs: float
    processes: int
    trainable_parameters: int
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class PhaseRows:
    """A phase that can be trained: its rows have been counted and fit.

    Attributes:
        config: The section of the recipe.
        phase: Which phase.
        rows: The rows to train on.
        lengths: Their tokens.
        folder: The phase's folder.
        seed: Of the training.
    """

    config: TuneConfig
    phase: Phase
    rows: pa.Table
    lengths: Lengths
    folder: Path
    seed: int


def prepare(config: TuneConfig, phase: Phase, rows: pa.Table, *, model: str, folder: Path, seed: int) -> PhaseRows:
    """Count the tokens of a phase's rows, and see that they fit.

    Args:
        config: The section of the recipe.
        phase: Which phase.
        rows: Its rows.
        model: The model to tune; its tokenizer counts.
        folder: The teacher's folder.
        seed: Of the training.

    Raises:
        TeacherError: If no row is left, one is too long, or the chat template does not fit.
    """
    tokenizer, description = load_tokenizer(model), f"{phase} {folder.name}"
    lengths = row_lengths(
        rows,
        tokenizer,
        _stops(model, tokenizer, config),
        description=description,
        template_options=config.generate.chat_template_kwargs,
    )
    positions = positions_of(load_model_config(model))
    limit = min((most for most in (config.max_length, positions) if most is not None), default=None)
    kept, found = fit(rows, lengths, limit=limit, too_long=config.too_long, description=description)
    return PhaseRows(config=config, phase=phase, rows=kept, lengths=found, folder=folder / phase, seed=seed)


def train_phase(prepared: PhaseRows, model: str) -> PhaseReport:
    """Train a phase, unless it is done; a killed training goes on from its last checkpoint.

    Args:
        prepared: The phase.
        model: The model that it starts from, by id or path.

    Returns:
        The report.

    Raises:
        TeacherError: If a training process failed.
    """
    folder, config = prepared.folder, prepared.config
    settings = {
        "phase": prepared.phase,
        "options": dict(phases_of(config))[prepared.phase],
        "adapter": config.adapter,
        "lora": config.lora,
        "max_length": _max_length(prepared),
        "seed": prepared.seed,
    }
    job = TrainJob(
        description=f"{prepared.phase} {folder.parent.name}",
        model=model,
        rows=str(folder / "rows.parquet"),
        folder=str(folder),
        **settings,
    )
    template = config.generate.chat_template_kwargs
    parts = [_VERSION, settings, template, model_identity(model), _rows_hash(prepared.rows)]
    fingerprint = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    done, started = folder / "done.json", folder / "started"
    if not (done.exists() and json.loads(done.read_text(encoding="utf-8"))["fingerprint"] == fingerprint):
        if folder.exists() and not (started.exists() and started.read_text(encoding="utf-8") == fingerprint):
            shutil.rmtree(folder)  # Checkpoints of another training must not be taken up again.
        folder.mkdir(parents=True, exist_ok=True)
        started.write_text(fingerprint, encoding="utf-8")
        _write_rows(prepared.rows, template, Path(job.rows))
        launch(job, config.processes)
        save_whole(job, folder / "model")
        write_json(done, {"fingerprint": fingerprint})
    _tidy(job)
    return _report(prepared, job)


def _max_length(prepared: PhaseRows) -> int:
    """Return what TRL is given: no row is longer, so that it never cuts one."""
    if prepared.config.max_length is not None:
        return prepared.config.max_length
    longest = min(length for length in (prepared.lengths.longest, prepared.lengths.limit) if length is not None)
    return -(-longest // _MULTIPLE) * _MULTIPLE


def _write_rows(rows: pa.Table, template_options: dict[str, Any], path: Path) -> None:
    if template_options:  # TRL hands this column to the chat template, as generation will.
        rows = rows.append_column("chat_template_kwargs", pa.array([template_options] * rows.num_rows))
    pq.write_table(rows, path)


def _tidy(job: TrainJob) -> None:
    """Remove what a finished phase needs no more; full weights are in the model's folder."""
    shutil.rmtree(job.checkpoints, ignore_errors=True)
    if job.adapter == "none":
        for weights in job.trained.glob("*.safetensors"):
            weights.unlink()


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, which must have a chat template.

    Raises:
        TeacherError: If it is not to be had, or has none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise TeacherError(f"the tokenizer of {model!r} is not to be had: {error}") from error
    if tokenizer.chat_template is None:
        raise TeacherError(f"the tokenizer of {model!r} has no chat template; tune an instruction model")
    return tokenizer


def _stops(model: str, tokenizer: PreTrainedTokenizerBase, config: TuneConfig) -> set[int]:
    """Return the tokens that will end a generation of the tuned model."""
    from transformers import GenerationConfig

    own = (config.sft or {}).get("eos_token")
    stops: set[Any] = {tokenizer.eos_token_id if own is None else tokenizer.convert_tokens_to_ids(own)}
    try:
        configured = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:  # A model need not have generation settings.
        configured = None
    return stops.union(configured if isinstance(configured, list) else [configured])


def _rows_hash(rows: pa.Table) -> str:
    digest = hashlib.sha256()
    for batch in rows.to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pylist()).encode())
    return digest.hexdigest()


def _report(prepared: PhaseRows, job: TrainJob) -> PhaseReport:
    trained: dict[str, Any] = json.loads((job.trained / "training.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in trained["history"] if "loss" in entry]
    return PhaseReport(
        rows=prepared.rows.num_rows,
        lengths=prepared.lengths,
        max_length=job.max_length,
        steps=trained["steps"],
        epochs=trained["epochs"],
        processes=trained["processes"],
        trainable_parameters=trained["trainable_parameters"],
        loss=losses[-1] if losses else None,
    )
