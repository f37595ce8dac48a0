"""Scoring with a split student's parts: the lower layers of queries now, those of products from a store or now.

`SplitReader` stands where `PairTokenizer` does and makes the inputs of the graph of the upper layers, which an engine
then runs as any other graph. It needs no torch; `manylens.student.split` says what the three parts compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StudentError
from manylens.records import Pair
from manylens.serving.batches import cut
from manylens.serving.encoded import Encoded
from manylens.serving.engines import Engine, OnnxEngine
from manylens.serving.layout import PARTS, Card, part_file
from manylens.serving.states import Precision, StateStore
from manylens.serving.tokens import Ids, PairTokenizer
from manylens.text import text_digest, well_formed

#: What the lower parts read.
_INPUTS = ("input_ids", "attention_mask")


class Reader(Protocol):
    """Makes an engine's inputs of pairs: a `PairTokenizer`, or a `SplitReader`; safe to share between threads.

    Attributes:
        max_length: Most tokens of a pair.
    """

    max_length: int

    def encode(self, pairs: Sequence[Pair]) -> Any:  # noqa: ANN401 - each has its own
        """Return what `batch` takes, an `Encoded` of one kind."""
        ...

    def batch(
        self,
        encoded: Any,  # noqa: ANN401
        chosen: Sequence[int] | NDArray[np.intp],
        width: int,
    ) -> Mapping[str, NDArray[Any]]:
        """Return the inputs for some pairs, whose longest has `width` tokens."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedStates(Encoded):
    """The lower states of pairs.

    Attributes:
        queries: (tokens, dim) float32 each, one a pair.
        products: (tokens, dim) float32 each, or (tokens,) records of the store, one a pair.
        lengths: (pairs,) tokens of each pair.
    """

    queries: Sequence[NDArray[np.float32]]
    products: Sequence[NDArray[Any]]
    lengths: NDArray[np.int64]


class SplitReader:
    """Makes the inputs of the upper layers: states of queries, and states of products.

    A query's are computed once a call, however many products it has. A product's come from the store where that has
    its id with the very text that is to be scored; those of any other product are computed.

    Attributes:
        max_length: Most tokens of a query, and of a pair whose query leaves room for the product.
        hits: Products that were taken from the store, each once a call.
        misses: Products that were computed, each once a call.
    """

    def __init__(
        self, tokenizer: SegmentTokenizer, lower_query: Engine, lower_product: Engine, store: StateStore | None
    ) -> None:
        """Put the parts together; see `open_split` for a folder.

        Args:
            tokenizer: The way from texts to token ids.
            lower_query: Runs the lower layers over queries.
            lower_product: Runs them over products.
            store: The products' states; ``None`` computes all of them.
        """
        self.max_length, self.hits, self.misses = tokenizer.max_length, 0, 0
        self._tokenizer, self._store, self._lock = tokenizer, store, Lock()
        self._lower_query, self._lower_product = lower_query, lower_product

    def encode(self, pairs: Sequence[Pair]) -> EncodedStates:
        """Return the lower states of pairs.

        Args:
            pairs: Any pairs.

        Raises:
            ConfigError: If the template asks for what a product does not have.
        """
        texts = [well_formed(self._tokenizer.template.render(pair)) for pair in pairs]
        products = self._products(
            [(well_formed(pair.product_id), text) for pair, text in zip(pairs, texts, strict=True)]
        )
        numbers: dict[str, int] = {}
        places = [numbers.setdefault(pair.query, len(numbers)) for pair in pairs]
        ids = self._tokenizer.queries([well_formed(query) for query in numbers])
        distinct = self._states(self._lower_query, ids, alone=False)
        queries = [distinct[place] for place in places]
        lengths = [len(query) + len(product) for query, product in zip(queries, products, strict=True)]
        return EncodedStates(queries=queries, products=products, lengths=np.array(lengths, dtype=np.int64))

    def batch(
        self, encoded: EncodedStates, chosen: Sequence[int] | NDArray[np.intp], width: int
    ) -> dict[str, NDArray[Any]]:
        """Return the inputs of the upper layers for some pairs, padded on the right.

        Args:
            encoded: The pairs.
            chosen: Which of them, in order.
            width: Not needed, because each side is as wide as its longest.

        Returns:
            ``query_states`` and ``product_states`` (chosen, tokens, dim) float32, and a mask (chosen, tokens) of each.
        """
        query_states, query_mask = _padded([encoded.queries[index] for index in chosen])
        product_states, product_mask = _padded([self._decoded(encoded.products[index]) for index in chosen])
        return {
            "query_states": query_states,
            "query_mask": query_mask,
            "product_states": product_states,
            "product_mask": product_mask,
        }

    @property
    def precision(self) -> Precision | None:
        """How the store keeps its states; ``None`` without one."""
        return None if self._store is None else self._store.card.precision

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def _products(self, products: Sequence[tuple[str, str]]) -> list[NDArray[Any]]:
        """Return the records or states of products, which are known by id and text."""
        distinct = list(dict.fromkeys(products))
        stored: Sequence[NDArray[Any] | None] = [None] * len(distinct)
        if self._store is not None:
            stored = self._store.find([(name, text_digest(text)) for name, text in distinct])
        found = {product: records for product, records in zip(distinct, stored, strict=True) if records is not None}
        missing = [product for product in distinct if product not in found]
        with self._lock:
            self.hits, self.misses = self.hits + len(found), self.misses + len(missing)
        ids = self._tokenizer.products([text for _, text in missing])
        found |= zip(missing, self._states(self._lower_product, ids, alone=True), strict=True)
        return [found[product] for product in products]

    def _states(self, lower: Engine, rows: Sequence[Ids], *, alone: bool) -> list[NDArray[np.float32]]:
        """Return the states of segments, (tokens, dim) each."""
        lengths = np.array([len(ids) for ids in rows], dtype=np.int64)
        found: dict[int, NDArray[np.float32]] = {}
        for batch in cut(lengths, lower.token_budget, call_tokens=lower.call_tokens):
            mask = np.arange(batch.width) < lengths[batch.pairs, None]
            ids = np.zeros(mask.shape, dtype=np.int64)  # What stands behind a segment is not looked at.
            ids[mask] = np.concatenate([rows[index] for index in batch.pairs])
            states = lower.run({"input_ids": ids, "attention_mask": mask.astype(np.int64)}, alone=alone)["states"]
            found |= {int(row): each[: lengths[row]] for row, each in zip(batch.pairs, states, strict=True)}
        return [found[row] for row in range(len(rows))]

    def _decoded(self, product: NDArray[Any]) -> NDArray[np.float32]:
        if self._store is None or product.dtype != self._store.card.record:
            return product
        return self._store.card.decode(product)


class SegmentTokenizer(PairTokenizer):
    """Tokenises the two segments of a pair apart, as `PairEncoder.encode_queries` and `encode_products` do."""

    def queries(self, texts: list[str]) -> list[Ids]:
        """Return the ids of ``[CLS] query [SEP]``, (tokens,) each, of well-formed texts."""
        frame = self._frame
        return [np.concatenate([frame.before, ids[: self._query_room], frame.between[:1]]) for ids in self._ids(texts)]

    def products(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of ``product [SEP]``, (tokens,) each, of well-formed rendered texts."""
        frame = self._frame
        return [np.concatenate([frame.between[1:], ids, frame.after]) for ids in self._product_ids(texts)]


def open_split(
    folder: Path,
    variant: str,
    *,
    states: str | Path | None = None,
    threads: int | None = None,
    cache_products: int = 0,
) -> tuple[Engine, SplitReader]:
    """Return the engine of the upper layers, and what makes its inputs.

    Args:
        folder: ``classes`` of an export.
        variant: ``onnx_fp32`` or ``onnx_int8``.
        states: The store; ``None`` computes every product.
        threads: Cores to use; ``None`` means the physical ones.
        cache_products: Products whose token ids are kept, of those that the store lacks.

    Raises:
        MissingExtraError: If onnxruntime is not installed.
        StudentError: If the student is not split, the variant has no parts, or the store is another student's.
    """
    card = Card.load(folder)
    if not card.split_layers:
        raise StudentError(
            f"{folder} has no split layers, so that a product's states depend on the query; leave the store out, "
            "or train with student.split_layers and export the student again"
        )
    if not variant.startswith("onnx"):
        raise StudentError(
            f"the parts of a split student are exported as onnx_fp32 and onnx_int8, got {variant}; take one of them"
        )
    tokenizer = SegmentTokenizer.load(folder, _INPUTS, cache_products=cache_products)
    store = None if states is None else StateStore.open(states, student=card.lower_fingerprint)
    lower_query, lower_product, upper = (
        OnnxEngine(folder / part_file(part, variant), threads=threads) for part in PARTS
    )
    return upper, SplitReader(tokenizer, lower_query, lower_product, store)


def _padded(rows: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    states = np.zeros((*mask.shape, rows[0].shape[1]), dtype=np.float32)
    states[mask] = np.concatenate(rows)
    return states, mask.astype(np.int64)
