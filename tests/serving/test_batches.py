from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.serving.batches import Batch, cut

lengths_of_pairs = st.lists(st.integers(3, 300), max_size=80)


def shapes(batches: list[Batch]) -> list[tuple[list[int], int]]:
    return [(batch.pairs.tolist(), batch.width) for batch in batches]


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([], 100, []),
        ([7], 100, [([0], 7)]),
        ([300], 100, [([0], 300)]),  # longer than the budget, and by itself
        ([10, 10, 10, 10, 10], 20, [([0, 1], 10), ([2, 3], 10), ([4], 10)]),
        ([30, 10, 20, 10], 30, [([0], 30), ([1, 3], 10), ([2], 20)]),  # by length, the costliest first
        ([10, 12, 12, 14], 100, [([0, 1, 2, 3], 14)]),
    ],
)
def test_pairs_are_sorted_by_length_and_cut_by_the_budget(
    lengths: list[int], budget: int, expected: list[tuple[list[int], int]]
) -> None:
    assert shapes(cut(np.array(lengths, dtype=np.int64), budget, call_tokens=8)) == expected


def test_a_batch_ends_where_a_longer_pair_would_pad_more_than_a_call_costs() -> None:
    lengths = np.array([10, 10, 14, 14])
    # Two rows of 10 widened to 14 pad 8 tokens.
    assert shapes(cut(lengths, 100, call_tokens=7)) == [([2, 3], 14), ([0, 1], 10)]
    assert shapes(cut(lengths, 100, call_tokens=8)) == [([0, 1, 2, 3], 14)]


def test_few_pairs_are_spread_over_the_streams() -> None:
    lengths = np.array([20] * 8)
    assert [len(batch.pairs) for batch in cut(lengths, 512, call_tokens=8)] == [8]
    assert [len(batch.pairs) for batch in cut(lengths, 512, call_tokens=8, streams=2)] == [4, 4]
    assert [len(batch.pairs) for batch in cut(lengths, 512, call_tokens=8, streams=16)] == [1] * 8


def test_the_cut_is_taken_whose_streams_end_first() -> None:
    # Two batches end at 48 and 4 x 16 + 2 = 66; of three, the last would end at 3 x 16 + 2 + 16 + 2 = 68.
    lengths = np.array([46, 16, 16, 16, 16])
    assert shapes(cut(lengths, 512, call_tokens=2, streams=2)) == [([1, 2, 3, 4], 16), ([0], 46)]
    # 5 x 20 + 2 = 102 beside 62 + 22; two batches would end at 122.
    lengths = np.array([60, 20, 20, 20, 20, 20, 20])
    assert [batch.tokens for batch in cut(lengths, 512, call_tokens=2, streams=2)] == [100, 60, 20]


def test_an_engine_that_compiles_shapes_meets_few() -> None:
    lengths = np.array([9] * 11 + [17])
    batches = cut(lengths, 10_000, call_tokens=8, few_shapes=True)
    assert [(len(batch.pairs), batch.width) for batch in batches] == [(10, 16), (1, 24), (1, 16)]
    rows = {len(batch.pairs) for count in range(1, 60) for batch in cut(np.full(count, 8), 10_000, few_shapes=True)}
    assert sorted(rows) == [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56]


@given(
    lengths=lengths_of_pairs,
    budget=st.integers(1, 1000),
    call_tokens=st.integers(0, 100),
    streams=st.integers(1, 9),
    few_shapes=st.booleans(),
)
def test_every_pair_is_in_one_batch_that_holds_it_and_keeps_the_budget(
    lengths: list[int], budget: int, call_tokens: int, streams: int, few_shapes: bool
) -> None:
    batches = cut(
        np.array(lengths, dtype=np.int64), budget, call_tokens=call_tokens, streams=streams, few_shapes=few_shapes
    )
    assert sorted(index for batch in batches for index in batch.pairs) == list(range(len(lengths)))
    for batch in batches:
        held = [lengths[index] for index in batch.pairs]
        assert len(held) == 1 or batch.tokens <= budget
        assert max(held) <= batch.width < max(held) + (8 if few_shapes else 1)
        # What a batch pads was cheaper each time than another call; a row is widened at most once a pair.
        assert few_shapes or batch.tokens - sum(held) <= call_tokens * (len(held) - 1)
    tokens = [batch.tokens for batch in batches]
    assert tokens == sorted(tokens, reverse=True)
