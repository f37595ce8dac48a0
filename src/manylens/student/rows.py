"""Training rows: tokenised pairs with their labels and rationale vectors, memory-mapped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from manylens.errors import StudentError
from manylens.records import LabelScale, Pair
from manylens.student.encoding import PairEncoder
from manylens.student.losses import IGNORED_LABEL
from manylens.student.targets import Targets

_ROWS_PER_BATCH = 1024


def write_rows(
    pairs: Iterable[Pair], encoder: PairEncoder, scale: LabelScale, path: Path, targets: Targets | None = None
) -> Dataset:
    """Tokenise pairs into an Arrow file and open it memory-mapped.

    Args:
        pairs: Any pairs; one without a label gets the label that the loss ignores.
        encoder: The student's way to token ids.
        scale: The label scale.
        path: The file to write.
        targets: The rationales' vectors; a pair without one is masked, not dropped.

    Returns:
        One row a pair: input_ids, attention_mask and, where the backbone has them, token_type_ids;
        length; labels; and with `targets` rationale_embedding (latents, dim) and rationale_mask (latents).

    Raises:
        StudentError: If there is no pair.
    """
    index = {} if targets is None else {pair_id: row for row, pair_id in enumerate(targets.pair_ids)}
    writer: pa.RecordBatchStreamWriter | None = None
    with pa.OSFile(str(path), "wb") as sink:
        for batch in _batches(pairs):
            columns: dict[str, Any] = dict(encoder.encode(batch))
            columns["length"] = [len(ids) for ids in columns["input_ids"]]
            columns["labels"] = [IGNORED_LABEL if pair.label is None else scale.index(pair.label) for pair in batch]
            if targets is not None:
                columns |= _target_columns(batch, targets, index)
            table = pa.table(columns)
            writer = writer or pa.ipc.new_stream(sink, table.schema)
            writer.write_table(table)
        if writer is None:
            raise StudentError(f"{path.name}: expected at least one pair to tokenise, got none; see the split's counts")
        writer.close()
    return Dataset.from_file(str(path))


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    iterator = iter(pairs)
    while batch := list(itertools.islice(iterator, _ROWS_PER_BATCH)):
        yield batch


def _target_columns(batch: Sequence[Pair], targets: Targets, index: Mapping[str, int]) -> dict[str, pa.Array[Any]]:
    rows = [index.get(pair.pair_id, -1) for pair in batch]
    found = np.array([row >= 0 for row in rows])
    vectors = np.where(found[:, None, None], targets.vectors[rows], 0.0).astype(np.float32)
    mask = targets.mask[rows] & found[:, None]
    latents = len(targets.names)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), targets.dim)
    return {
        "rationale_embedding": pa.FixedSizeListArray.from_arrays(flat, latents),
        "rationale_mask": pa.FixedSizeListArray.from_arrays(pa.array(mask.ravel()), latents),
    }


@dataclass(frozen=True)
class StudentCollator:
    """Turns rows into a batch of tensors, padded to its longest row.

    Attributes:
        encoder: The student's way to token ids.
    """

    encoder: PairEncoder

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch."""
        names = self.encoder.tokenizer.model_input_names
        batch = dict(self.encoder.pad([{name: row[name] for name in names if name in row} for row in rows]))
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
        if "rationale_embedding" in rows[0]:
            vectors = np.array([row["rationale_embedding"] for row in rows], dtype=np.float32)
            batch["rationale_embedding"] = torch.from_numpy(vectors)
            batch["rationale_mask"] = torch.tensor([row["rationale_mask"] for row in rows])
        return batch
