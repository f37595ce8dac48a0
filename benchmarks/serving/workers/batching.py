"""What every system that is tuned by hand does: sort by length, cut by a budget of tokens, keep every core busy."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

#: A query and a product's text.
TextPair = tuple[str, str]
#: From pairs to (pairs, labels) scores, in their order.
Scorer = Callable[[Sequence[TextPair]], NDArray[np.float32]]
#: From the inputs of a graph, (batch, tokens) int64 each, to (batch, labels) scores.
Stream = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
#: Lengths are rounded up to a multiple of this.
ROUNDING = 8
#: Most tokens of a batch, padding included; of 256 to 2,048 the best for each engine here with a MiniLM of 6 layers.
BUDGET = 512


def load_tokenizer(master: Path) -> Tokenizer:
    """Return the master's tokenizer, without padding."""
    longest = json.loads((master / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    tokenizer = Tokenizer.from_file(str(master / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest, strategy="only_second")
    return tokenizer


def batches(lengths: Sequence[int], budget: int, streams: int) -> list[NDArray[np.intp]]:
    """Cut pairs into batches of neighbouring lengths, longest first.

    Args:
        lengths: Tokens of each pair.
        budget: Most tokens of a batch, padding included; a longer pair stands alone.
        streams: A request that would fill fewer batches than this is cut into so many.

    Returns:
        The indices of the pairs of each batch.
    """
    order = np.argsort(lengths, kind="stable")[::-1]
    padded = np.ceil(np.asarray(lengths)[order] / ROUNDING).astype(int) * ROUNDING
    room = min(budget, -(-int(padded.sum()) // streams))
    cut, start = [], 0
    while start < len(order):
        count = max(1, room // int(padded[start]))
        cut.append(order[start : start + count])
        start += count
    return cut


def collate(encodings: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
    """Return a batch's inputs, padded to its longest pair, rounded up."""
    longest = -(-max(len(each.ids) for each in encodings) // ROUNDING) * ROUNDING
    inputs = {
        name: np.zeros((len(encodings), longest), dtype=np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    for row, each in enumerate(encodings):
        length = len(each.ids)
        inputs["input_ids"][row, :length] = each.ids
        inputs["attention_mask"][row, :length] = 1
        inputs["token_type_ids"][row, :length] = each.type_ids
    return inputs


def tuned(tokenizer: Tokenizer, streams: Sequence[Stream], wide: Stream) -> Scorer:
    """Return a scorer that keeps every core busy.

    Args:
        tokenizer: Of the pairs.
        streams: One a core; each computes one batch at a time.
        wide: Spreads a batch over all cores; a single pair goes there.
    """
    pool = ThreadPoolExecutor(len(streams))
    free: queue.SimpleQueue[Stream] = queue.SimpleQueue()
    for stream in streams:
        free.put(stream)

    def compute(encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        stream = free.get()
        try:
            return stream(collate(encodings))
        finally:
            free.put(stream)

    def score(pairs: Sequence[TextPair]) -> NDArray[np.float32]:
        encodings = tokenizer.encode_batch(list(pairs))
        if len(encodings) == 1:
            return wide(collate(encodings))
        cut = batches([len(each.ids) for each in encodings], BUDGET, len(streams))
        computed = list(pool.map(lambda chosen: compute([encodings[index] for index in chosen]), cut))
        return np.concatenate(computed)[np.argsort(np.concatenate(cut))]

    return score
