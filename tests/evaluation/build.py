"""Small prediction tables for the tests of this folder."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from manylens.evaluation import PREDICTION_SCHEMA
from manylens.records import ESCI

#: (query_id, label or None, logits); the pair_id is "<query_id>:<row>" unless given.
Row = tuple[str, str | None, Sequence[float]]


def table(rows: Sequence[Row], *, locales: Sequence[str] = (), kinds: Sequence[str] = ()) -> pa.Table:
    return pa.table(
        {
            "pair_id": [f"{query}:{index}" for index, (query, _, _) in enumerate(rows)],
            "query_id": [query for query, _, _ in rows],
            "split": ["test"] * len(rows),
            "locale": locales or ["us"] * len(rows),
            "query_kind": kinds or [""] * len(rows),
            "label": [label for _, label, _ in rows],
            "logits": [list(logits) for _, _, logits in rows],
        },
        schema=PREDICTION_SCHEMA,
    )


def sure(label: str, weight: float = 5.0) -> list[float]:
    """Logits of a student that is sure of `label`."""
    return [weight if name == label else 0.0 for name in ESCI.names]


def random_table(queries: int, products: int, seed: int, skill: float, *, labels_seed: int = 0) -> pa.Table:
    """Noise plus `skill` on the gold class; the labels depend on `labels_seed` alone."""
    gold = np.random.default_rng(labels_seed).integers(0, 4, queries * products)
    logits = np.random.default_rng(seed).normal(size=(len(gold), 4)) + skill * np.eye(4)[gold]
    return table([(f"q{i // products}", ESCI.names[label], logits[i].tolist()) for i, label in enumerate(gold)])


def shuffled(predictions: pa.Table, seed: int) -> pa.Table:
    return predictions.take(np.random.default_rng(seed).permutation(len(predictions)))


def tables(*, min_size: int = 1) -> st.SearchStrategy[pa.Table]:
    """Any predictions of a few queries; equal logits are frequent."""
    logit = st.sampled_from([-2.0, 0.0, 0.5, 3.0]) | st.floats(-30, 30, width=32)
    row = st.tuples(
        st.sampled_from(["q1", "q2", "q3", "q4"]),
        st.sampled_from(ESCI.names),
        st.lists(logit, min_size=4, max_size=4),
    )
    return st.lists(row, min_size=min_size, max_size=25).map(table)
