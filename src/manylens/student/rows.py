"""Training rows: tokenised pairs with their labels and the place of their targets, memory-mapped."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from numpy.typing import NDArray

from manylens.errors import StudentError
from manylens.records import LabelScale, Pair
from manylens.student.encoding import PairEncoder
from manylens.student.losses import IGNORED_LABEL
from manylens.student.parts import Need
from manylens.student.targets import Targets

#: The tensors of a batch that the model reads as tokens, where the backbone has them.
TOKEN_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
#: In front of the token columns of query, product and rationale together.
AUGMENTED = "augmented_"
_ROWS_PER_BATCH = 1024


def write_rows(
    pairs: Iterable[Pair],
    encoder: PairEncoder,
    scale: LabelScale,
    path: Path,
    targets: Targets | None = None,
    *,
    needs: Collection[Need] = (),
    augmented_length: int | None = None,
) -> Dataset:
    """Tokenise pairs into an Arrow file and open it memory-mapped.

    Args:
        pairs: Any pairs; one that has neither a label nor any target that is needed is left out.
        encoder: The student's way to token ids.
        scale: The label scale.
        path: The file to write.
        targets: What the rationales became; a pair without one is masked, not dropped.
        needs: What the method reads of the targets.
        augmented_length: Most tokens of query, product and rationale together, where ``texts`` are needed.

    Returns:
        One row a pair: input_ids, attention_mask and, where the backbone has them, token_type_ids;
        length; labels; with `targets` target, the row of the targets, -1 for none; and with ``texts`` the token
        columns once more, called ``augmented_``, of the pair with its rationale.

    Raises:
        StudentError: If there is no pair that teaches anything.
    """
    index = {} if targets is None else {pair_id: row for row, pair_id in enumerate(targets.pair_ids)}
    useful = _useful(targets, needs)
    writer: pa.RecordBatchStreamWriter | None = None
    with pa.OSFile(str(path), "wb") as sink:
        taught = (pair for pair in pairs if pair.label is not None or useful[index.get(pair.pair_id, -1)])
        for batch in _batches(taught):
            columns: dict[str, Any] = dict(encoder.encode(batch))
            columns["length"] = [len(ids) for ids in columns["input_ids"]]
            columns["labels"] = [IGNORED_LABEL if pair.label is None else scale.index(pair.label) for pair in batch]
            if targets is not None:
                rows = [index.get(pair.pair_id, -1) for pair in batch]
                columns["target"] = pa.array(rows, pa.int32())
                if "texts" in needs and augmented_length is not None:
                    texts = [targets.texts[row] if row >= 0 else "" for row in rows]
                    columns |= _augmented(batch, texts, encoder, augmented_length)
            table = pa.table(columns)
            writer = writer or pa.ipc.new_stream(sink, table.schema)
            writer.write_table(table)
        if writer is None:
            raise StudentError(
                f"{path.name}: expected at least one pair to learn from, got none; see the split's counts"
            )
        writer.close()
    return Dataset.from_file(str(path))


def _useful(targets: Targets | None, needs: Collection[Need]) -> NDArray[np.bool_]:
    """Return which targets teach something without a label; the last entry, at -1, is for no target."""
    if targets is None:
        return np.zeros(1, dtype=np.bool_)
    useful = np.zeros(len(targets.pair_ids) + 1, dtype=np.bool_)
    if "vectors" in needs:
        useful[:-1] |= targets.mask.any(axis=1)
    if "votes" in needs:
        useful[:-1] |= targets.votes.any(axis=1)
    if "texts" in needs:
        useful[:-1] |= np.array([bool(text) for text in targets.texts], dtype=np.bool_)
    return useful


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    iterator = iter(pairs)
    while batch := list(itertools.islice(iterator, _ROWS_PER_BATCH)):
        yield batch


def _augmented(
    batch: Sequence[Pair], texts: Sequence[str], encoder: PairEncoder, max_length: int
) -> dict[str, list[list[int]]]:
    """Return the token columns of pairs whose product is followed by the rationale."""
    reader = PairEncoder(encoder.tokenizer, "{{ title }}", max_length)
    pairs = [
        replace(pair, title=f"{encoder.template.render(pair)}\n{text}") for pair, text in zip(batch, texts, strict=True)
    ]
    return {AUGMENTED + name: column for name, column in reader.encode(pairs).items()}


@dataclass(frozen=True)
class StudentCollator:
    """Turns rows into a batch of tensors, padded to its longest row.

    Attributes:
        encoder: The student's way to token ids.
        targets: Where the rows' targets are looked up.
    """

    encoder: PairEncoder
    targets: Targets | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch.

        Returns:
            The tokens; labels (batch); with targets rationale_embedding (batch, latents, dim), rationale_mask
            (batch, latents) and votes (batch, classes), zero for a pair without; and, where the rows have them, the
            ``augmented_`` tokens and has_text (batch).
        """
        batch = self._padded(rows, "")
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
        if self.targets is None or "target" not in rows[0]:
            return batch
        places = np.array([row["target"] for row in rows])
        found = places >= 0
        batch["rationale_embedding"] = torch.from_numpy(_look_up(self.targets.vectors, places, found))
        batch["rationale_mask"] = torch.from_numpy(_look_up(self.targets.mask, places, found))
        batch["votes"] = torch.from_numpy(_look_up(self.targets.votes, places, found))
        if AUGMENTED + TOKEN_COLUMNS[0] in rows[0]:
            batch |= self._padded(rows, AUGMENTED)
            texts = [bool(place >= 0 and self.targets.texts[place]) for place in places]
            batch["has_text"] = torch.tensor(texts)
        return batch

    def _padded(self, rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, torch.Tensor]:
        # As `PairEncoder.pad` does, in a tenth of its time, which a step on a GPU would wait for.
        tokenizer = self.encoder.tokenizer
        fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        longest = max(len(row[prefix + TOKEN_COLUMNS[0]]) for row in rows)
        batch = {}
        for name in TOKEN_COLUMNS:
            if prefix + name in rows[0]:
                padded = np.full((len(rows), longest), fill.get(name, 0))
                for place, row in zip(padded, rows, strict=True):
                    place[: len(row[prefix + name])] = row[prefix + name]
                batch[prefix + name] = torch.from_numpy(padded)
        return batch


def _look_up(table: NDArray[Any], places: NDArray[np.int64], found: NDArray[np.bool_]) -> NDArray[Any]:
    values: NDArray[Any] = table[places]
    values[~found] = 0
    return values
