import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.values import SCALARS, Fault, attributes_from, to_attributes, to_text
from manylens.errors import BadRowError

TEXT = st.text(st.characters(codec="utf-8"))


def text(values: object, accepted: tuple[type, ...] = ()) -> tuple[list[str | None], list[Fault]]:
    faults: list[Fault] = []
    return to_text(values, "title", accepted, "pairs.csv", faults).to_pylist(), faults


def attributes(values: object) -> tuple[list[dict[str, str]], list[Fault]]:
    faults: list[Fault] = []
    return [dict(entry) for entry in to_attributes(values, "extra", "pairs.csv", faults).to_pylist()], faults


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_strings_of_every_arrow_sort(type_: pa.DataType) -> None:
    assert text(pa.array(["a", None, "é"]).cast(type_)) == (["a", None, "é"], [])


def test_numbers_are_text_only_where_they_are_accepted() -> None:
    assert text(pa.array([7, None]), (int,)) == (["7", None], [])
    assert text([7, "x"], (int,)) == (["7", "x"], [])
    assert text([1.5, True, 2], SCALARS) == (["1.5", "true", "2"], [])
    with pytest.raises(BadRowError, match=r"pairs\.csv, field 'title': expected a column of strings, got int64"):
        text(pa.array([7]))
    with pytest.raises(BadRowError, match="got double"):
        text(pa.array([7.0]), (int,))
    values, faults = text(["a", 7, ["b"]])
    assert values == ["a", None, None]
    assert [(fault.at, fault.reason) for fault in faults] == [(1, "type"), (2, "type")]
    assert "got 7" in faults[0].message


def test_a_column_of_nulls_has_no_type_to_refuse() -> None:
    assert text(pa.nulls(2)) == ([None, None], [])


def test_broken_utf8_is_found_in_its_row() -> None:
    broken = pa.array([b"fine", b"caf\xe9", None]).cast(pa.string(), safe=False)
    for values in (broken, ["fine", "caf\udce9", None]):
        texts, faults = text(values)
        assert texts == ["fine", None, None]
        assert [(fault.at, fault.reason) for fault in faults] == [(1, "utf8")]


@given(st.lists(st.none() | TEXT))
def test_any_text_passes_unchanged(values: list[str | None]) -> None:
    assert text(values) == (values, [])
    assert text(pa.array(values, pa.string())) == (values, [])


@given(st.lists(st.dictionaries(TEXT, TEXT.filter(str.strip))))
def test_attributes_are_the_same_from_json_objects_and_maps(values: list[dict[str, str]]) -> None:
    maps = pa.array([list(value.items()) for value in values], pa.map_(pa.string(), pa.string()))
    for form in ([json.dumps(value) for value in values], list(values), maps):
        assert attributes(form) == (values, [])


def test_attribute_values_of_other_types() -> None:
    came = ['{"size": 9, "new": true, "none": null, "colours": ["red", "blue"], "blank": " "}', "", None]
    assert attributes(came) == ([{"size": "9", "new": "true", "colours": "red, blue"}, {}, {}], [])
    assert attributes(pa.array([{"size": 9, "colour": None}])) == ([{"size": "9"}], [])


@pytest.mark.parametrize("bad", ['{"a": ', "[1]", '"red"', '{"a": {"b": 1}}', ["a"], 3, '{"a": "\\ud800"}'])
def test_attributes_that_are_no_flat_object(bad: object) -> None:
    values, faults = attributes([{"a": "b"}, bad])
    assert values == [{"a": "b"}, {}]
    assert [(fault.at, fault.column, fault.reason) for fault in faults] == [(1, "extra", "attributes")]


def test_attributes_of_columns_leave_out_what_is_blank() -> None:
    maps = attributes_from({"Colour": pa.array(["red", None, " "]), "Size": pa.array(["9", "8", None])})
    assert maps.to_pylist() == [[("Colour", "red"), ("Size", "9")], [("Size", "8")], []]
    assert attributes_from({"Colour": pa.array([], pa.string())}).to_pylist() == []
