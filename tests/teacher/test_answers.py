from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from manylens.records import ESCI, WANDS, LabelScale
from manylens.teacher.answers import format_answer, format_thought, parse_answer

OWN = LabelScale(
    names=("very good", "so-so", "Überhaupt nicht"),
    gains={"very good": 1.0, "so-so": 0.5, "Überhaupt nicht": 0.0},
    definitions={"very good": "a", "so-so": "b", "Überhaupt nicht": "c"},
)


@given(rationale=st.text(), scale=st.sampled_from([ESCI, WANDS, OWN]), data=st.data())
def test_what_was_formatted_is_read_back(rationale: str, scale: LabelScale, data: st.DataObject) -> None:
    assume(rationale.strip() and "label" not in rationale.casefold())
    label = data.draw(st.sampled_from(scale.names))
    parsed = parse_answer(format_answer(rationale, label), scale)
    assert (parsed.rationale, parsed.label, parsed.reason) == (rationale.strip(), label, None)


@given(text=st.text() | st.lists(st.sampled_from(["Label: exact", "label:", "Label: dunno", "why", ""])).map("\n".join))
def test_any_text_gives_a_label_or_a_reason(text: str) -> None:
    parsed = parse_answer(text, ESCI)
    assert (parsed.label is None) != (parsed.reason is None)
    assert parsed.rationale in text


@pytest.mark.parametrize(
    ("text", "rationale", "label", "reason"),
    [
        ("", "", None, "empty"),
        (" \n\t", "", None, "empty"),
        ("It fits.", "It fits.", None, "no_label"),
        ("The label: is torn", "The label: is torn", None, "no_label"),
        ("It fits.\nLabel: exact\nHope this helps!", "It fits.\nLabel: exact\nHope this helps!", None, "no_label"),
        ("It fits.\n\nLabel: perfect", "It fits.", None, "unknown_label"),
        ("It fits.\n\nLabel:", "It fits.", None, "unknown_label"),
        ("It fits.\n\nLabel: exact or substitute", "It fits.", None, "unknown_label"),
        ("Label: substitute\nNo, it fits.\nLabel: exact", "Label: substitute\nNo, it fits.", None, "several_labels"),
        ("Label: exact", "", None, "no_rationale"),
        ("Label: 30% wool\nIt fits.\nLabel: exact", "Label: 30% wool\nIt fits.", "exact", None),
        ("Label: exact\nIt fits.\nLabel: exact", "Label: exact\nIt fits.", "exact", None),
        ("It fits.\r\n\r\n  LABEL :  Exact \r\n", "It fits.", "exact", None),
        ("It misses the size.\nLabel: S", "It misses the size.", "substitute", None),
    ],
)
def test_reading(text: str, rationale: str, label: str | None, reason: str | None) -> None:
    parsed = parse_answer(text, ESCI)
    assert (parsed.rationale, parsed.label, parsed.reason) == (rationale, label, reason)


def test_a_thought_is_thought_first_and_labelled_last() -> None:
    assert format_thought(" It fits.\n", "exact") == "<think>\nIt fits.\n</think>\n\nLabel: exact"
