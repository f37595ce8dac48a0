"""Training with only the rows of the word embedding that the data uses.

Of the 30,522 rows of a BERT vocabulary a shop's pairs use a few thousand, yet gradient, clipping, optimiser and
checkpoint carry all of them. A row that no token asks for has gradient zero, which adds nothing to the gradient
norm and which Adam, without weight decay, answers with no step. Leaving such rows out changes no trained weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments


class CompactEmbedding(nn.Module):
    """An `nn.Embedding` that holds some rows of a table and is asked with the ids of the whole one.

    Ids stay what they are everywhere else, so padding, [SEP] and position ids need no translation.

    Attributes:
        weight: (kept rows, dim).
        rows: (vocabulary,) the kept row of each id, or -1.
        ids: (kept rows,) the ids of the kept rows.
    """

    rows: Tensor

    def __init__(self, whole: nn.Embedding, ids: Tensor) -> None:
        """Copy the rows of `ids` from `whole`."""
        super().__init__()
        # In a tuple, which is no submodule: neither the optimiser nor a checkpoint shall see it.
        self._whole = (whole,)
        self.ids = ids
        self.weight = nn.Parameter(whole.weight.detach()[ids].clone(), requires_grad=whole.weight.requires_grad)
        rows = torch.full((whole.num_embeddings,), -1)
        rows[ids] = torch.arange(len(ids))
        self.register_buffer("rows", rows.to(whole.weight.device), persistent=False)
        self._padding_row = None if whole.padding_idx is None else int(rows[whole.padding_idx])

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings of `input_ids`.

        Raises:
            IndexError: If the row of an id was left out.
        """
        return nn.functional.embedding(self.rows[input_ids], self.weight, self._padding_row)

    def expanded(self) -> nn.Embedding:
        """Return the whole embedding with the kept rows as they are now."""
        (whole,) = self._whole
        whole.to(self.weight.device)
        with torch.no_grad():
            whole.weight[self.ids] = self.weight
        return whole


def used_ids(datasets: Iterable[Dataset], special_ids: Iterable[int]) -> NDArray[np.int64]:
    """Return the token ids that tokenised rows hold, ascending.

    Args:
        datasets: Their columns whose names end in ``input_ids`` count.
        special_ids: Ids that are kept in any case, such as padding, which a collator adds.
    """
    parts = [np.array(list(special_ids), dtype=np.int64)]
    for dataset in datasets:
        for name in dataset.column_names:
            if name.endswith("input_ids"):
                chunks: list[Any] = dataset.data.column(name).chunks
                parts += [np.unique(chunk.flatten().to_numpy()) for chunk in chunks]
    return np.unique(np.concatenate(parts))


def compact(model: PreTrainedModel, ids: NDArray[np.int64], arguments: TrainingArguments) -> None:
    """Leave out the rows of a model's word embedding that are not used, where that changes no trained weight.

    That is so for PyTorch's AdamW without weight decay and a plain `nn.Embedding`; else the model stays as it is.
    Call `expand` before the model is saved.

    Args:
        model: The encoder, before its optimiser is made.
        ids: The token ids that training and evaluation ask for.
        arguments: How it is trained.
    """
    whole = model.get_input_embeddings()
    lazy = arguments.weight_decay == 0.0 and arguments.optim.startswith("adamw_torch")
    # A subclass may compute more than a look-up, and these options depend on the whole table or the batch.
    if lazy and type(whole) is nn.Embedding and not (whole.max_norm or whole.scale_grad_by_freq or whole.sparse):
        kept = ids if whole.padding_idx is None else np.union1d(ids, [whole.padding_idx])
        model.set_input_embeddings(CompactEmbedding(whole, torch.from_numpy(kept)))


def expand(model: PreTrainedModel) -> None:
    """Give a model its whole word embedding back; one that was never compacted stays as it is."""
    embedding = model.get_input_embeddings()
    if isinstance(embedding, CompactEmbedding):
        model.set_input_embeddings(embedding.expanded())
