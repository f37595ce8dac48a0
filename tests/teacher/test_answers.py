from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.records import ESCI, WANDS, LabelScale
from manylens.teacher.answers import (
    ANSWER_SCHEMA,
    ParsedAnswer,
    format_answer,
    format_json,
    format_thought,
    parse_answer,
)

OWN = LabelScale(
    names=("very good", "so-so", "Überhaupt nicht", "(none)", "½"),
    gains={"very good": 1.0, "so-so": 0.5, "Überhaupt nicht": 0.0, "(none)": 0.0, "½": 0.5},
    definitions={"very good": "a", "so-so": "b", "Überhaupt nicht": "c", "(none)": "d", "½": "e"},
)
#: Rationales that do not themselves look like an answer.
RATIONALES = (
    st.text()
    .map(str.strip)
    .filter(
        lambda text: (
            text and "label" not in text.casefold() and not any(mark in text for mark in ("{", "```", "~~~", "think>"))
        )
    )
)


@given(rationale=RATIONALES, scale=st.sampled_from([ESCI, WANDS, OWN]), data=st.data())
def test_what_was_formatted_is_read_back(rationale: str, scale: LabelScale, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(scale.names))
    for form in (format_answer, format_json, format_thought):
        assert parse_answer(form(rationale, label), scale, "stop") == ParsedAnswer(
            rationale=rationale, label=label, reason=None
        )


@given(rationale=st.text().filter(lambda text: "think>" not in text and text.strip()))
def test_no_rationale_disturbs_the_json_form(rationale: str) -> None:
    parsed = parse_answer(format_json(f"{rationale}\nLabel: substitute", "exact"), ESCI)
    assert (parsed.rationale, parsed.label) == (f"{rationale}\nLabel: substitute".strip(), "exact")


def test_the_schema_has_the_model_think_before_it_answers() -> None:
    assert list(ANSWER_SCHEMA["properties"]) == ["rationale", "label"] == ANSWER_SCHEMA["required"]
    assert ANSWER_SCHEMA["additionalProperties"] is False
    assert list(json.loads(format_json("why", "exact"))) == ["rationale", "label"]


LABELS = st.sampled_from(ESCI.names)
CASES = st.sampled_from([str, str.upper, str.title])
SPACES = st.sampled_from(["", " ", "  ", "\t"])
AROUND_LABEL = st.sampled_from(
    ["{}", "**{}**", "`{}`", '"{}"', "“{}”", "'{}'", "<{}>", "({})", "[{}]", "{}.", "*{}*.", "__{}__", "{}!"]
)
LABEL_WORDS = st.sampled_from(
    ["Label:", "label :", "LABEL:", "**Label:**", "**Label**:", "### Label:", "> Label:", "- Label:"]
)
AROUND_ANSWER = st.sampled_from(
    ["{}", "```\n{}\n```", "```text\n{}\n```\n", "\n\n{}\n\n", "<think>hm</think>\n{}", "hm</think>{}"]
)


@given(LABELS, CASES, SPACES, AROUND_LABEL, LABEL_WORDS, AROUND_ANSWER)
def test_decoration_is_looked_through(
    label: str, case: type[str], space: str, around_label: str, word: str, around_answer: str
) -> None:
    line = f"{space}{word}{space}{around_label.format(case(label))}{space}"
    text = around_answer.format(f"The size fits.\n\n{line}")
    assert parse_answer(text, ESCI) == ParsedAnswer(rationale="The size fits.", label=label, reason=None)


@given(
    LABELS,
    CASES,
    st.sampled_from(
        ["{}", "Here it is:\n{}", "```json\n{}\n```", "{} I hope this helps!", "<think>hm</think>{}", "[{}]"]
    ),
    st.sampled_from([None, 2]),
)
def test_json_is_found_in_what_surrounds_it(label: str, case: type[str], around: str, indent: int | None) -> None:
    answer = json.dumps({"rationale": "The size fits.", "label": case(label)}, indent=indent)
    text = around.replace("{}", answer)
    assert parse_answer(text, ESCI) == ParsedAnswer(rationale="The size fits.", label=label, reason=None)


@given(LABELS, st.sampled_from([format_answer, format_json, format_thought]), st.data())
def test_a_cut_answer_has_no_label(label: str, form: type[str], data: st.DataObject) -> None:
    whole = form("The size fits, the colour does not.", label)  # type: ignore[call-arg, arg-type]
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    parsed = parse_answer(cut, ESCI, "length")
    assert (parsed.label, parsed.reason) == (None, "truncated")
    # Without a finish reason the answer's own form has to do: never another label.
    assert parse_answer(cut, ESCI).label in (None, label)


PIECES = [
    "Label: exact", "**Label:** substitute", "label:", "Label: dunno", "Label: <exact | substitute>",
    "Label\uff1acomplement", "why", "", "exact", "</think>", "<think>", "```", '{"label": "exact"}',
    '{"rationale": "r", "label": "irrelevant"}', '{"a":', '{"label": ["exact"]}', "Etiqueta: exact", "\r", "}",
    '"label": "exact"',
]  # fmt: skip


def squash(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


@given(
    text=st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("\n".join),
    finish_reason=st.sampled_from([None, "stop", "length", "content_filter", "refusal", "odd"]),
)
def test_any_text_gives_a_label_that_it_declares_or_a_reason(text: str, finish_reason: str | None) -> None:
    parsed = parse_answer(text, ESCI, finish_reason)
    assert (parsed.label is None) != (parsed.reason is None)
    assert parsed.rationale == parsed.rationale.strip()
    if parsed.label is not None:
        assert finish_reason in (None, "stop", "odd") and parsed.rationale
        spellings = [parsed.label, *(alias for alias, name in ESCI.aliases.items() if name == parsed.label)]
        assert any(f"label{squash(spelling)}" in squash(text) for spelling in spellings)


@given(
    st.permutations(ESCI.names),
    st.sampled_from(["Label: {}\nIt fits.\nLabel: {}", '{{"label": "{}"}}\nIt fits.\nLabel: {}',
                     'Label: {}\n{{"rationale": "It fits.", "label": "{}"}}',
                     '{{"label": "{}", "rationale": "It fits.", "label": "{}"}}']),
)  # fmt: skip
def test_two_labels_are_none(names: list[str], form: str) -> None:
    assert parse_answer(form.format(names[0], names[1]), ESCI).reason == "several_labels"
    assert parse_answer(form.format(names[0], names[0]), ESCI).label == names[0]


@pytest.mark.parametrize(
    ("text", "rationale", "label", "reason"),
    [
        ("", "", None, "empty"),
        (" \n\t", "", None, "empty"),
        ("<think>\n\n</think>\n\n", "", None, "empty"),
        ("It fits.", "It fits.", None, "no_label"),
        ("The label: is torn", "The label: is torn", None, "no_label"),
        ("It fits.\nLabel: exact\nHope this helps!", "It fits.\nLabel: exact\nHope this helps!", None, "no_label"),
        ("It fits.\nEtiqueta: exact", "It fits.\nEtiqueta: exact", None, "no_label"),
        ("It fits.\nFinal label: exact", "It fits.\nFinal label: exact", None, "no_label"),
        ("It is an exact match.", "It is an exact match.", None, "no_label"),
        ("It fits.\n\nLabel: perfect", "It fits.", None, "unknown_label"),
        ("It fits.\n\nLabel:", "It fits.", None, "unknown_label"),
        ("It fits.\n\nLabel: exact or substitute", "It fits.", None, "unknown_label"),
        ("It fits.\n\nLabel: not exact", "It fits.", None, "unknown_label"),
        ("It fits.\n\nLabel: exact?", "It fits.", None, "unknown_label"),
        # The prompt's own line, echoed.
        ("It fits.\nLabel: <exact | substitute>", "It fits.", None, "unknown_label"),
        ("Label: <exact | substitute>\nIt fits.\nLabel: exact", "Label: <exact | substitute>\nIt fits.", "exact", None),
        ("Label: substitute\nNo.\nLabel: exact", "Label: substitute\nNo.", None, "several_labels"),
        ("Label: exact", "", None, "no_rationale"),
        ('{"label": "exact"}', "", None, "no_rationale"),
        ("Label: 30% wool\nIt fits.\nLabel: exact", "Label: 30% wool\nIt fits.", "exact", None),
        ("Label: exact\nIt fits.\nLabel: exact", "Label: exact\nIt fits.", "exact", None),
        ("It fits.\r\n\r\n  LABEL :  Exact \r\n", "It fits.", "exact", None),
        ("It misses the size.\nLabel: S", "It misses the size.", "substitute", None),
        ("合う。\nLabel\uff1a\uff45\uff58\uff41\uff43\uff54\u3002", "合う。", "exact", None),
        # Thinking is not the answer, and stands in for a rationale only where the answer has none.
        ("<think>\nIt fits.\n</think>\n\nLabel: exact", "It fits.", "exact", None),
        ("<think>Hm.</think>It fits.\nLabel: exact", "It fits.", "exact", None),
        ("<think>Label: substitute\nNo.</think>Label: exact", "Label: substitute\nNo.", "exact", None),
        ("It fits.</think>\n\nLabel: exact", "It fits.", "exact", None),
        ("<think>a</think><think>b</think>Label: exact", "ab", "exact", None),
        ("<think>It fits.\nLabel: exact", "It fits.\nLabel: exact", None, "no_label"),
        ("<think>It fits.\nLabel: exact</think>", "It fits.\nLabel: exact", None, "no_label"),
        ("It fits.\nLabel: exact\n<think>Or not", "It fits.\nLabel: exact\nOr not", None, "no_label"),
        # JSON.
        ('{"Rationale": "It fits.", "LABEL": "E"}', "It fits.", "exact", None),
        ('It fits.\n{"label": "exact"}', "It fits.", "exact", None),
        ('<think>It fits.</think>{"label": "exact"}', "It fits.", "exact", None),
        ('{"rationale": "It\nfits.", "label": "exact"}', "It\nfits.", "exact", None),
        ('{"rationale": 7, "label": "exact"} so', "", None, "no_rationale"),
        ('{"rationale": "a \\ud800", "label": "exact"}', "a ?", "exact", None),
        ('{"rationale": "a", "label": null}', "a", None, "unknown_label"),
        ('{"label": "exact", "label": "irrelevant"}', "", None, "several_labels"),
        ('{"label": "exact"}\nLabel: irrelevant', '{"label": "exact"}', None, "several_labels"),
        ('{"rationale": "a", "label": "exact"', '{"rationale": "a", "label": "exact"', None, "no_label"),
        ('{"rationale": "a",\n"label": "exact"', '{"rationale": "a",\n"label": "exact"', None, "no_label"),
        ('{"x": {"label": "exact"}}', '{"x": {"label": "exact"}}', None, "no_label"),
        ('{"x": {"label": "exact"}', '{"x": {"label": "exact"}', None, "no_label"),
        ('{"rationale": "It fits.", "label": "exact"}\nLabel: exact', "It fits.", "exact", None),
        ("The set {S, M} fits.\nLabel: exact", "The set {S, M} fits.", "exact", None),
    ],
)  # fmt: skip
def test_reading(text: str, rationale: str, label: str | None, reason: str | None) -> None:
    parsed = parse_answer(text, ESCI)
    assert (parsed.rationale, parsed.label, parsed.reason) == (rationale, label, reason)


@pytest.mark.parametrize("finish_reason", ["content_filter", "refusal"])
@pytest.mark.parametrize("text", ["", "I cannot help with that.", "It fits.\nLabel: exact"])
def test_a_refusal_has_no_label_whatever_it_says(text: str, finish_reason: str) -> None:
    parsed = parse_answer(text, ESCI, finish_reason)
    assert (parsed.rationale, parsed.label, parsed.reason) == (text, None, "refused")


@pytest.mark.parametrize(
    "text", ['{"a":' * 100_000, "[" * 100_000, '{"a": ' + "1" * 5000 + "}", "{" * 100_000, "\n" * 100_000]
)
def test_absurd_answers_are_read_too(text: str) -> None:
    assert parse_answer(f"{text}It fits.\nLabel: exact", ESCI).label in (None, "exact")


def test_a_thought_is_thought_first_and_labelled_last() -> None:
    assert format_thought(" It fits.\n", "exact") == "<think>\nIt fits.\n</think>\n\nLabel: exact"
