"""Tuning a sentence encoder on the verdict: which label does this rationale argue for?

    folder/
      started               the fingerprint of what is being trained
      checkpoints/          Trainer's, removed at the end
      modules.json, ...     the encoder, a sentence-transformers folder
      verdict.json          the fingerprint and `VerdictReport`, written last

A finished encoder is not trained again; one that was killed goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments, set_seed

from manylens.config import VerdictTuning
from manylens.errors import StudentError
from manylens.files import write_json, write_text
from manylens.records import LabelScale
from manylens.student.checkpoints import discard, last_checkpoint
from manylens.student.embed import load_encoder
from manylens.student.train import hardware_precision
from manylens.text import well_formed
from manylens.trainer_progress import ProgressMeter

#: Length of the vectors that the head reads. A longer one lets the head tell verdicts apart while the vectors move
#: less.
_SCALE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictReport:
    """How an encoder was tuned.

    Attributes:
        rationales: Distinct training rationales.
        accuracy: Share of them whose label the tuned encoder and its head name.
        majority: Share of the commonest label, which knows nothing.
        steps: Optimiser steps.
    """

    rationales: int
    accuracy: float
    majority: float
    steps: int


class VerdictClassifier(nn.Module):
    """A sentence encoder under a linear head.

    Args:
        encoder: A `SentenceTransformer`: its pooling is the one that rationales are embedded with later.
        dim: Dimension of its vectors.
        classes: Labels.
    """

    def __init__(self, encoder: nn.Module, dim: int, classes: int) -> None:
        """Put a new head on the encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, classes)

    def forward(self, labels: Tensor | None = None, **features: Tensor) -> dict[str, Tensor]:
        """Return the logits (batch, classes) and, with `labels` (batch), the cross-entropy."""
        vectors = nn.functional.normalize(self.encoder(features)["sentence_embedding"].float(), dim=-1)
        logits = self.head(_SCALE * vectors)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return loss | {"logits": logits}


def tune_encoder(
    rationales: Sequence[tuple[str, str]],
    scale: LabelScale,
    encoder: str,
    config: VerdictTuning,
    *,
    batch_size: int,
    seed: int,
    folder: Path,
) -> VerdictReport:
    """Tune a sentence encoder to tell the labels that rationales argue for, and save it.

    Args:
        rationales: Texts and labels, of training pairs alone.
        scale: The labels.
        encoder: What sentence-transformers loads, as for `embed.RationaleEncoder`.
        config: Epochs, learning rate and batch size.
        batch_size: Texts in one forward pass without gradient, for the accuracy.
        seed: Of the head, dropout and order.
        folder: Where the tuned encoder goes. What another call's arguments left there is removed.

    Returns:
        The report, also in ``folder/verdict.json``.

    Raises:
        StudentError: If there is no rationale, or the encoder cannot be loaded.
        MissingExtraError: If sentence-transformers is not installed.
    """
    rows = sorted({(well_formed(text), label) for text, label in rationales})
    if not rows:
        raise StudentError("embed.verdict_tuning needs rationales of training pairs, got none; see curate/report.json")
    wanted = _fingerprint(rows, scale, encoder, config, seed)
    finished = folder / "verdict.json"
    if finished.exists():
        record = json.loads(finished.read_text(encoding="utf-8"))
        if record["fingerprint"] == wanted:
            return VerdictReport(**record["report"])
    started = folder / "started"
    if folder.exists() and not (started.exists() and started.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(folder)  # Checkpoints of other texts or options must not be taken up again.
    folder.mkdir(parents=True, exist_ok=True)
    write_text(started, wanted)

    set_seed(seed)
    model = load_encoder(encoder)
    classifier = VerdictClassifier(model, len(model.encode(rows[0][0])), len(scale.names))
    encoded = model.tokenizer([text for text, _ in rows], truncation=True, max_length=model.max_seq_length)
    dataset = Dataset.from_dict({**encoded, "labels": [scale.index(label) for _, label in rows]})
    trainer = _trainer(classifier, model.tokenizer, dataset, config, batch_size, seed, folder / "checkpoints")
    with closing(ProgressMeter(f"tune {Path(encoder).name} on {len(rows):,} verdicts")) as progress:
        trainer.add_callback(progress)
        trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    prediction = trainer.predict(dataset)  # In an order of its own, labels and all.
    labels = np.asarray(prediction.label_ids)
    report = VerdictReport(
        rationales=len(rows),
        accuracy=float((np.asarray(prediction.predictions).argmax(axis=-1) == labels).mean()),
        majority=float(np.bincount(labels).max() / len(labels)),
        steps=trainer.state.global_step,
    )
    model.save(str(folder), create_model_card=False)
    write_json(finished, {"fingerprint": wanted, "report": asdict(report)})
    discard(folder / "checkpoints")
    return report


def _trainer(
    model: VerdictClassifier,
    tokenizer: Any,  # noqa: ANN401 - sentence-transformers is optional
    dataset: Dataset,
    config: VerdictTuning,
    batch_size: int,
    seed: int,
    checkpoints: Path,
) -> Trainer:
    precision: dict[str, Any] = dict(hardware_precision())
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        seed=seed,
        data_seed=seed,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=batch_size,
        warmup_steps=0.1,
        train_sampling_strategy="group_by_length",
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="epoch",
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        optim="adamw_torch_fused",
        **precision,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=dataset, data_collator=DataCollatorWithPadding(tokenizer)
    )
    trainer.remove_callback(PrinterCallback)  # The progress bar shows what it prints.
    return trainer


def _fingerprint(
    rows: Sequence[tuple[str, str]], scale: LabelScale, encoder: str, config: VerdictTuning, seed: int
) -> str:
    parts = [rows, scale.names, encoder, config.model_dump(mode="json"), seed]
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()
