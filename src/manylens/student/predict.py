"""A trained student at work: pairs in, classes, probabilities and expected gains out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from scipy.special import softmax
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from manylens.errors import StudentError
from manylens.products import Product, as_pair
from manylens.records import Pair, Prediction
from manylens.student.encoding import PairEncoder
from manylens.student.model import LatentReasoningForSequenceClassification, LatentReasoningOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class States:
    """What a student computes of pairs, in their order.

    Attributes:
        pooled: (pairs, hidden) float32, h: the state of [CLS], or the mean over the tokens.
        latents: (pairs, latents, dim) float32, the latent reasoning vectors; ``None`` without an extractor.
        logits: (pairs, classes) float32.
    """

    pooled: NDArray[np.float32]
    latents: NDArray[np.float32] | None
    logits: NDArray[np.float32]


class Student:
    """A trained student with its tokenizer and template.

    Attributes:
        model: The model, in evaluation mode.
        encoder: The way from pairs to token ids.
        labels: The classes, best first.
        gains: (classes,) their gains.
    """

    def __init__(self, model: LatentReasoningForSequenceClassification, encoder: PairEncoder) -> None:
        """Put the parts together; see `load` for a folder."""
        self.model, self.encoder = model.eval(), encoder
        self.labels, self.gains = model.config.labels, np.array(model.config.gains)

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Student:
        """Load a student's folder.

        Args:
            folder: What the stage distil saved.
            device: A torch device; ``None`` means the first GPU, else the CPU.

        Raises:
            StudentError: If the folder does not hold a student of manylens.
        """
        if not Path(folder).is_dir():
            raise StudentError(f"expected a student's folder, got {str(folder)!r}, which is not a folder")
        try:
            model = AutoModelForSequenceClassification.from_pretrained(str(folder))
        except (OSError, ValueError, SafetensorError) as error:
            raise StudentError(f"no student at {folder}: {error}") from error
        if not isinstance(model, LatentReasoningForSequenceClassification):
            raise StudentError(f"{folder} holds a {type(model).__name__}, not a student of manylens")
        nn.Module.to(model, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, PairEncoder.load(folder))

    def logits(self, pairs: Sequence[Pair], batch_size: int = 64, zero_latents: bool = False) -> NDArray[np.float32]:
        """Return the logits of pairs, in their order.

        Args:
            pairs: Any pairs.
            batch_size: Pairs in one forward pass; they are sorted by length first, so that little is padded.
            zero_latents: Give the head zeros for the latents, to see what it makes of them; a student without
                an extractor stays as it is.

        Returns:
            (pairs, classes) float32.
        """
        extractor = self.model.extractor
        zeroed = extractor.register_forward_hook(_zeros) if zero_latents and extractor is not None else nullcontext()
        logits = np.empty((len(pairs), len(self.labels)), dtype=np.float32)
        with zeroed:
            for chosen, outputs in self._outputs(pairs, batch_size):
                logits[chosen] = _array(outputs.logits)
        return logits

    def states(self, pairs: Sequence[Pair], batch_size: int = 64) -> States:
        """Return h, latents and logits of pairs, in their order.

        Args:
            pairs: Any pairs.
            batch_size: Pairs in one forward pass, as for `logits`.
        """
        config = self.model.config
        pooled = np.empty((len(pairs), config.backbone_config.hidden_size), dtype=np.float32)
        logits = np.empty((len(pairs), len(self.labels)), dtype=np.float32)
        shape = (len(pairs), len(config.latent_names), config.latent_dim)
        latents = None if self.model.extractor is None else np.empty(shape, dtype=np.float32)
        for chosen, outputs in self._outputs(pairs, batch_size):
            pooled[chosen], logits[chosen] = _array(outputs.pooled), _array(outputs.logits)
            if latents is not None:
                latents[chosen] = _array(outputs.latents)
        return States(pooled=pooled, latents=latents, logits=logits)

    def _outputs(
        self, pairs: Sequence[Pair], batch_size: int
    ) -> Iterator[tuple[NDArray[np.intp], LatentReasoningOutput]]:
        """Yield the indices of the pairs of each batch, and what the model says of them."""
        encoded = self.encoder.encode(pairs) if pairs else {"input_ids": []}
        order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
        for start in range(0, len(pairs), batch_size):
            chosen = order[start : start + batch_size]
            rows = [{key: values[index] for key, values in encoded.items()} for index in chosen]
            with torch.inference_mode():
                outputs = self.model(**self.encoder.pad(rows).to(self.model.device))
            yield chosen, outputs

    def probabilities(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Return the class probabilities of pairs, in their order, of shape (pairs, classes)."""
        probabilities: NDArray[np.float64] = softmax(self.logits(pairs).astype(np.float64), axis=-1)
        return probabilities

    def predict(self, pairs: Iterable[Pair | tuple[str, Product]]) -> list[Prediction]:
        """Classify pairs.

        Args:
            pairs: `Pair` records, or (query, product) with the product as a title or as fields.

        Returns:
            One prediction a pair, in order.

        Raises:
            StudentError: If a product has an unknown field or no title, or a field is not text.
        """
        records = [pair if isinstance(pair, Pair) else as_pair(*pair) for pair in pairs]
        return [Prediction.of(self.labels, row, row @ self.gains) for row in self.probabilities(records)]


def _array(tensor: Tensor | None) -> NDArray[np.float32]:
    assert tensor is not None
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def _zeros(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:  # noqa: ANN401 - the signature of a hook
    return torch.zeros_like(output)
