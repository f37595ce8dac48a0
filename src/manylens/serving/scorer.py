"""The scorer: query-product pairs in, classes, probabilities and expected gains out, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from manylens.errors import StudentError, UnknownNameError
from manylens.products import Product, as_pair
from manylens.records import Pair, Prediction
from manylens.serving.batches import Batch, cut
from manylens.serving.engines import Engine, build_engine, torch_engine
from manylens.serving.explain import Explainer, Explanation, verbatim, why_not
from manylens.serving.layout import TORCH, VARIANTS, open_model
from manylens.serving.split import Reader, SplitReader, open_split
from manylens.serving.tokens import PairTokenizer

#: Pairs that are sorted and cut together; while these run, the next are tokenised.
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A product's place in a ranking.

    Attributes:
        index: Its place in the list that was given.
        score: The expected gain.
        label: The most probable class.
    """

    index: int
    score: float
    label: str


class Scorer:
    """Scores pairs near the speed of the machine.

    Pairs are tokenised in one go, sorted by length, cut into batches by a budget of tokens, and run on every core. The
    token ids of products are kept from call to call. Safe to share between threads.

    Attributes:
        labels: The classes, best first.
        gains: (classes,) their gains.
        engine: What computes the batches.
        tokenizer: The way from pairs to what the engine reads: token ids, or the states of a split student.
        token_budget: Most tokens of a batch.
        variant: The name of what the engine runs, such as ``onnx_int8``; ``None`` for an engine of one's own.
        states: Where products' states come from, with the counts ``hits`` and ``misses``; ``None`` without a store.
        explainer: What explains a score; ``None`` where no rationales were exported beside the model.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Reader,
        labels: Sequence[str],
        gains: Sequence[float],
        *,
        token_budget: int | None = None,
        variant: str | None = None,
        explainer: Explainer | None = None,
    ) -> None:
        """Put the parts together; see `load` for a folder.

        Args:
            engine: What computes the batches.
            tokenizer: The way from pairs to what the engine reads.
            labels: The classes, best first.
            gains: Their gains.
            token_budget: Most tokens of a batch; ``None`` means the engine's own choice.
            variant: The name of what the engine runs.
            explainer: What explains a score.

        Raises:
            StudentError: If the engine gives no probabilities, or the budget is no number of tokens.
        """
        if "probabilities" not in engine.outputs:
            raise StudentError(
                f"a scorer needs the class head, whose graph gives probabilities; this one gives "
                f"{', '.join(engine.outputs)}"
            )
        _at_least(1, token_budget=token_budget)
        self.engine, self.tokenizer, self.variant, self.explainer = engine, tokenizer, variant, explainer
        self.states = tokenizer if isinstance(tokenizer, SplitReader) else None
        self.labels, self.gains = tuple(labels), np.array(gains, dtype=np.float64)
        self.token_budget = engine.token_budget if token_budget is None else token_budget
        self._pool, self._closed = ThreadPoolExecutor(engine.streams, thread_name_prefix="scorer"), False

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        variant: str | None = None,
        states: str | Path | None = None,
        device: str | None = None,
        threads: int | None = None,
        token_budget: int | None = None,
        cache_products: int = 50_000,
    ) -> Self:
        """Load an export, or a student.

        Args:
            path: An export folder, its folder ``classes``, a run folder that has an export, or a student's folder.
            variant: ``onnx_int8``, ``onnx_fp32``, ``openvino_int8`` or ``openvino_bf16`` of an export, or ``torch`` for
                a student's folder; ``None`` takes the first of these that there is, OpenVINO's aside.
            states: The store that ``manylens precompute`` wrote, for an export of a student with split layers in a
                variant of ONNX. A product comes from it where it is there by its id with the same text; others are
                computed. ``None`` runs the whole graph.
            device: A torch device, for the variant ``torch`` alone.
            threads: Cores to use; ``None`` means the physical ones.
            token_budget: Most tokens of a batch, padding included; ``None`` means what suits the engine. A pair that is
                longer runs by itself.
            cache_products: Products whose token ids are kept, those used last; 0 keeps none.

        Raises:
            MissingExtraError: If the engine's library is not installed.
            StudentError: If there is no such export or variant, or the store is not for it.
            UnknownNameError: If there is no variant of that name.
        """
        if variant is not None and variant not in (*VARIANTS, TORCH):
            raise UnknownNameError("variant", variant, (*VARIANTS, TORCH))
        _at_least(1, threads=threads, token_budget=token_budget)
        _at_least(0, cache_products=cache_products)
        folder, variant, card = open_model(Path(path), variant)
        engine: Engine
        reader: Reader | None = None
        if card is None:
            if states is not None:
                raise StudentError(f"stored states are for an export, got the student {path}; export it first")
            engine = student = torch_engine(folder, device=device, threads=threads)
            labels, gains = student.labels, student.gains
        elif device is not None:
            raise StudentError(f"a device is for the variant {TORCH} alone, got {device!r} for {variant}")
        else:
            labels, gains = card.labels, card.gains
            if states is None:
                engine = build_engine(variant, folder, threads=threads)
            else:
                engine, reader = open_split(
                    folder, variant, states=states, threads=threads, cache_products=cache_products
                )
        if reader is None:
            reader = PairTokenizer.load(folder, engine.inputs, cache_products=cache_products)
        explainer = None if card is None else Explainer.beside(folder)
        return cls(engine, reader, labels, gains, token_budget=token_budget, variant=variant, explainer=explainer)

    def probabilities(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Return the class probabilities of pairs, in their order.

        Args:
            pairs: Any number of pairs.

        Returns:
            (pairs, classes).

        Raises:
            ConfigError: If the product template asks for what a product does not have.
        """
        table = np.empty((len(pairs), len(self.labels)), dtype=np.float32)
        running: list[Future[None]] = []
        for start in range(0, len(pairs), _CHUNK):
            started = self._start(self.tokenizer, pairs[start : start + _CHUNK], table[start : start + _CHUNK])
            for future in running:
                future.result()
            running = started
        for future in running:
            future.result()
        return table

    def predict(self, pairs: Iterable[Pair | tuple[str, Product]]) -> list[Prediction]:
        """Classify pairs.

        Args:
            pairs: `Pair` records, or (query, product) with the product as a title or as fields.

        Returns:
            One prediction a pair, in order.

        Raises:
            StudentError: If a product has an unknown field or no title, or a field is not text.
        """
        table = self.probabilities(_records(pairs))
        scores = self.expected_gains(table)
        return [Prediction.of(self.labels, row, score) for row, score in zip(table, scores, strict=True)]

    def score(self, pairs: Iterable[Pair | tuple[str, Product]]) -> NDArray[np.float32]:
        """Return the expected gains of pairs, ``sum_c p(c) gain(c)``, in their order.

        Args:
            pairs: `Pair` records, or (query, product) with the product as a title or as fields.

        Returns:
            (pairs,).

        Raises:
            StudentError: If a product has an unknown field or no title, or a field is not text.
        """
        return self.expected_gains(self.probabilities(_records(pairs)))

    def expected_gains(self, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the expected gains (pairs,) of probabilities (pairs, classes)."""
        scores: NDArray[np.float32] = (table @ self.gains).astype(np.float32)
        return scores

    def rank(self, query: str, products: Sequence[Product], top_k: int | None = None) -> list[Ranked]:
        """Rank products for a query by the expected gain.

        Args:
            query: The query.
            products: Each a title or a mapping of fields.
            top_k: How many of the best to return; ``None`` means all.

        Returns:
            The best first; of equal ones the one that was given first.

        Raises:
            StudentError: If a product has an unknown field or no title, a field is not text, or `top_k` is below 1.
        """
        _at_least(1, top_k=top_k)
        table = self.probabilities(_records((query, product) for product in products))
        scores = self.expected_gains(table)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [
            Ranked(index=int(index), score=float(scores[index]), label=self.labels[int(table[index].argmax())])
            for index in order
        ]

    def explain(self, query: str, product: Product, top_k: int = 3) -> Explanation:
        """Explain the score of a pair: near rationales of the teacher, how far away they are, and the words' weights.

        Args:
            query: The query.
            product: A title or a mapping of fields.
            top_k: Nearest training pairs for each latent.

        Raises:
            StudentError: If no rationales were exported beside the model, or its products come from a store; or the
                product has an unknown field or no title, a field is not text, or `top_k` is below 1.
        """
        _at_least(1, top_k=top_k)
        if self.explainer is None:
            raise StudentError(why_not(self.engine.outputs))
        question = self.explainer.ask(as_pair(query, product), self.tokenizer)
        table = np.empty((len(question.pairs), len(self.labels)), dtype=np.float32)
        latents = np.empty((len(question.pairs), *self.explainer.latents), dtype=np.float32)
        for future in self._start(verbatim(self.tokenizer), question.pairs, table, latents):
            future.result()
        return self.explainer.answer(question, table, latents, labels=self.labels, gains=self.gains, top_k=top_k)

    def close(self) -> None:
        """End the threads, and close store and rationales; a closed scorer cannot be used again."""
        self._closed = True
        self._pool.shutdown()
        if self.explainer is not None:
            self.explainer.close()
        if self.states is not None:
            self.states.close()

    def __enter__(self) -> Self:
        """Return the scorer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _start(
        self,
        reader: Reader,
        pairs: Sequence[Pair],
        table: NDArray[np.float32],
        latents: NDArray[np.float32] | None = None,
    ) -> list[Future[None]]:
        """Run pairs into the rows of `table` and of `latents`; in the pool where they are several batches."""
        if self._closed:
            raise StudentError("this scorer was closed; load another one")
        encoded = reader.encode(pairs)
        batches = cut(
            encoded.lengths,
            self.token_budget,
            call_tokens=self.engine.call_tokens,
            streams=self.engine.streams,
            few_shapes=self.engine.few_shapes,
        )
        if len(batches) == 1:  # Another thread would only have to be woken.
            self._run(encoded, batches[0], table, latents, alone=True)
            return []
        return [self._pool.submit(self._run, encoded, batch, table, latents, alone=False) for batch in batches]

    def _run(
        self,
        encoded: Any,  # noqa: ANN401 - what the reader made
        batch: Batch,
        table: NDArray[np.float32],
        latents: NDArray[np.float32] | None,
        alone: bool,
    ) -> None:
        outputs = self.engine.run(self.tokenizer.batch(encoded, batch.pairs, batch.width), alone=alone)
        table[batch.pairs] = outputs["probabilities"]
        if latents is not None:
            latents[batch.pairs] = outputs["latents"]


def _at_least(least: int, **options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < least:
            raise StudentError(f"{name} must be at least {least}, got {value}")


def _records(pairs: Iterable[Pair | tuple[str, Product]]) -> list[Pair]:
    return [pair if isinstance(pair, Pair) else as_pair(*pair) for pair in pairs]
