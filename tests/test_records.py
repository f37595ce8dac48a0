from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.errors import ConfigError
from manylens.records import ESCI, SCALES, SPLITS, WANDS, Judgement, LabelScale, Pair, Perspective, PreferencePair

GOOD: dict[str, Any] = {
    "names": ("good", "so_so", "bad"),
    "gains": {"good": 1.0, "so_so": 0.4, "bad": 0.0},
    "definitions": {"good": "fits", "so_so": "nearly", "bad": "does not"},
    "aliases": {"+": "good"},
}


@pytest.mark.parametrize("kind", [Pair, LabelScale, Perspective, Judgement, PreferencePair])
def test_records_are_frozen_keyword_only_and_slotted(kind: type[Any]) -> None:
    assert kind.__dataclass_params__.frozen and "__slots__" in vars(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))
    with pytest.raises(TypeError, match="positional"):
        kind("x")


def test_a_pair_needs_only_its_ids_query_and_title() -> None:
    pair = Pair(pair_id="q:p", query_id="q", product_id="p", query="mug", title="A mug")
    assert (pair.label, pair.split, dict(pair.attributes)) == (None, "train", {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.label = "exact"  # type: ignore[misc]


def test_the_built_in_scales_are_those_of_their_papers() -> None:
    assert SCALES == {"esci": ESCI, "wands": WANDS}
    assert ESCI.gain_vector() == (1.0, 0.1, 0.01, 0.0)
    assert WANDS.gain_vector() == (1.0, 0.5, 0.0)
    assert SPLITS == ("train", "dev", "test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exact", "exact"),
        (" EXACT ", "exact"),
        ("e", "exact"),
        ("S", "substitute"),
        ("i", "irrelevant"),
        ("ex act", None),
        ("", None),
        ("exactly", None),
    ],
)
def test_parse(text: str, expected: str | None) -> None:
    assert ESCI.parse(text) == expected


@pytest.mark.parametrize("text", ["so_so", "So So", "so-so", "SO  SO\n"])
def test_parse_takes_spaces_hyphens_and_underscores_for_the_same(text: str) -> None:
    assert LabelScale(**GOOD).parse(text) == "so_so"


@given(st.text())
def test_parse_only_ever_returns_a_name_of_the_scale(text: str) -> None:
    assert ESCI.parse(text) in (*ESCI.names, None)


@given(
    st.sampled_from(ESCI.names), st.sampled_from([str.upper, str.title, str.lower]), st.sampled_from(["", " ", "\t\n"])
)
def test_parse_reads_every_spelling_of_a_name(name: str, case: Any, space: str) -> None:  # noqa: ANN401
    assert ESCI.parse(f"{space}{case(name)}{space}") == name


def test_index_and_gains_go_by_the_order_of_names() -> None:
    scale = LabelScale(**{**GOOD, "gains": {"bad": 0.0, "good": 1.0, "so_so": 0.4}})
    assert [scale.index(name) for name in scale.names] == [0, 1, 2]
    assert scale.gain_vector() == (1.0, 0.4, 0.0)
    with pytest.raises(ConfigError, match=r"label 'best' is not on the scale \['good', 'so_so', 'bad'\]"):
        scale.index("best")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"names": ("good",)}, "at least two distinct labels, got"),
        ({"names": ("good", "good", "bad")}, "at least two distinct"),
        ({"names": ("so-so", "so_so", "bad")}, "at least two distinct"),
        ({"gains": {"good": 1.0, "bad": 0.0}}, r"gains must have exactly the keys .*'so_so'.*, got \['good', 'bad'\]"),
        ({"gains": {**GOOD["gains"], "other": 0.0}}, "gains must have exactly the keys"),
        ({"gains": {**GOOD["gains"], "good": 1.5}}, r"the gain of 'good' must lie in \[0, 1\], got 1.5"),
        ({"gains": {**GOOD["gains"], "bad": -0.1}}, "the gain of 'bad' must lie"),
        ({"gains": {**GOOD["gains"], "bad": float("nan")}}, "the gain of 'bad' must lie"),
        ({"definitions": {"good": "fits"}}, "definitions must have exactly the keys"),
        ({"aliases": {"x": "excellent"}}, "alias 'x' points to 'excellent', which is not one of"),
    ],
)
def test_a_scale_that_does_not_hold_together_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        LabelScale(**{**GOOD, **change})
