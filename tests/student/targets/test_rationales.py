from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.config import Hallucination
from manylens.records import ESCI
from manylens.student.targets import Rationale, hallucinate, read_rationales
from manylens.teacher.rows import RATIONALE_SCHEMA

from .build import PERSPECTIVES, pairs_of, rationale

#: Twenty train pairs of four labels, with two right judgements and a wrong one of another label each.
PAIRS = {
    pair_id: pair
    for number in range(20)
    for pair_id, pair in pairs_of(f"t{number}", label=ESCI.names[number % 4]).items()
}
PANEL = [
    one
    for number, (pair_id, pair) in enumerate(PAIRS.items())
    for one in (
        *(rationale(pair_id, name, f"{pair_id} by {name}", str(pair.label)) for name in PERSPECTIVES),
        rationale(pair_id, "rules", f"{pair_id}, wrong", ESCI.names[(number + 1) % 4], kept=False),
    )
]


def changed(before: Sequence[Rationale], after: Sequence[Rationale]) -> list[tuple[Rationale, Rationale]]:
    return [(old, new) for old, new in zip(before, after, strict=True) if old != new]


def test_the_teachers_table_becomes_rationales() -> None:
    rows = [("p1", "intent", 0, "exact", "a", True, False), ("p1", "rules", 1, "substitute", "b", False, False)]
    rows.append(("p2", "rationalize", 0, "exact", "c", True, True))
    table = pa.Table.from_pylist(
        [dict(zip(RATIONALE_SCHEMA.names, row, strict=True)) for row in rows], schema=RATIONALE_SCHEMA
    )
    consistent = [
        rationale("p1", "intent", "a"),
        rationale("p1", "rules", "b", "substitute", kept=False),
        rationale("p2", "rationalize", "c", votes=False),
    ]
    assert read_rationales(table, consistent_only=True) == consistent
    assert [one.kept for one in read_rationales(table, consistent_only=False)] == [True, True, True]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.33, 0.8, 1.0])
def test_a_share_of_the_pairs_gets_rationales_of_other_pairs_that_argue_for_another_label(rate: float) -> None:
    after, report = hallucinate(PANEL, PAIRS, Hallucination(rate=rate, by="pair"), 3)
    replaced = changed(PANEL, after)
    assert report.pairs == len({old.pair_id for old, _ in replaced}) == round(rate * 20)
    assert (report.by_pair, report.by_perspective, report.left) == (len(replaced), 0, 0)
    assert len(replaced) == 2 * report.pairs  # Both that are kept; what only votes stays.
    sources = {(one.text, one.label): one for one in PANEL}
    for old, new in replaced:
        source = sources[new.text, new.label]  # Text and label come from one judgement.
        assert source.pair_id != old.pair_id
        assert source.perspective == old.perspective
        assert new.label != PAIRS[old.pair_id].label
        assert (new.pair_id, new.perspective, new.kept, new.votes) == (old.pair_id, old.perspective, True, True)


def test_a_wrong_rationale_of_the_same_pair_is_taken_where_there_is_one() -> None:
    panel = [one for one in PANEL if one.kept or one.pair_id != "t0"]  # Nothing argues against the label of t0.
    after, report = hallucinate(panel, PAIRS, Hallucination(rate=1.0, by="perspective"), 3)
    replaced = changed(panel, after)
    assert (report.pairs, report.by_perspective, report.by_pair, report.left) == (20, 38, 2, 0)
    for old, new in replaced:
        assert (new.text == f"{old.pair_id}, wrong") == (old.pair_id != "t0")
        assert new.label != PAIRS[old.pair_id].label


def test_where_all_argue_for_one_label_nothing_can_be_replaced() -> None:
    panel = [rationale(pair_id, "intent", pair_id) for pair_id in ("t0", "t1")]
    after, report = hallucinate(panel, pairs_of("t0", "t1"), Hallucination(rate=1.0), 3)
    assert after == panel
    assert (report.pairs, report.by_pair, report.left) == (0, 0, 2)


def test_without_a_gold_label_the_teachers_word_is_what_is_contradicted() -> None:
    panel = [rationale("t0", "intent", "a", "exact"), rationale("t1", "intent", "b", "irrelevant")]
    after, _ = hallucinate(panel, pairs_of("t0", "t1", label=None), Hallucination(rate=1.0), 3)
    assert [one.text for one in after] == ["b", "a"]


def test_splits_do_not_mix() -> None:
    panel = [rationale("t0", "intent", "a", "exact"), rationale("d0", "intent", "b", "irrelevant")]
    after, report = hallucinate(panel, pairs_of("t0") | pairs_of("d0", label="irrelevant"), Hallucination(rate=1.0), 3)
    assert (after, report.left) == (panel, 2)


@given(
    seed=st.integers(0, 2**32),
    rates=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    by=st.sampled_from(["perspective", "pair"]),
)
def test_a_higher_rate_keeps_what_a_lower_one_replaced(seed: int, rates: tuple[float, float], by: str) -> None:
    lower, higher = (hallucinate(PANEL, PAIRS, Hallucination(rate=rate, by=by), seed)[0] for rate in sorted(rates))
    assert all(new in (old, also) for old, new, also in zip(PANEL, lower, higher, strict=True))
