import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.arrow import blank, codes, first_repeated, map_contains, positions, true

TEXTS = st.lists(st.none() | st.sampled_from(["a", "b", "c", ""]), max_size=8)


@given(st.lists(TEXTS, max_size=4))
def test_codes_tell_texts_apart_across_chunks(chunks: list[list[str | None]]) -> None:
    column = pa.chunked_array(chunks, pa.string())
    numbers, texts = codes(column)
    assert [None if number < 0 else texts[number].as_py() for number in numbers.tolist()] == column.to_pylist()


@given(TEXTS, st.lists(st.sampled_from(["a", "b", "d"]), max_size=5))
def test_positions_are_those_of_a_list(texts: list[str | None], among: list[str]) -> None:
    found = positions(pa.array(texts, pa.string()), pa.array(among, pa.string()))
    assert found.tolist() == [among.index(text) if text in among else -1 for text in texts]


def test_masks_count_null_as_false_and_blank_as_true() -> None:
    assert true(pc.equal(pa.array(["a", None, "b"]), pa.scalar("a"))).tolist() == [True, False, False]
    assert blank(pa.array(["a", None, "", " \t\u00a0"])).tolist() == [False, True, True, True]


def test_map_contains_looks_at_names_and_values() -> None:
    maps = pa.array([[("a", "x")], [], [("ax", "b")]], pa.map_(pa.string(), pa.string()))
    assert map_contains(maps, "x").tolist() == [True, False, True]
    assert map_contains(maps, "?").tolist() == [False, False, False]


def test_first_repeated() -> None:
    assert first_repeated(pa.array(["a", "b", "c", "b"])) == "b"
    assert first_repeated(pa.array(["a", "b"])) is None
