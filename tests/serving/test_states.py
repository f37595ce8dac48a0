from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manylens.errors import DataError, StudentError
from manylens.serving.filling import Entry, StateWriter
from manylens.serving.states import PRECISIONS, Precision, StateStore, StoreCard

DIM = 4
CARD = StoreCard(student="a" * 64, split_layers=2, dim=DIM)
LENGTHS = [3, 1, 2]
STATES = np.arange(6.0 * DIM, dtype=np.float32).reshape(6, DIM) - 10
ENTRIES = [Entry("p1", "us", b"one"), Entry("p2", "us", b"two"), Entry("p1", "es", b"uno")]


def fill(folder: Path, card: StoreCard = CARD) -> Path:
    with StateWriter(folder, card) as writer:
        assert writer.lacking(ENTRIES) == [0, 1, 2]
        writer.add(ENTRIES, STATES, LENGTHS)
    return folder


def test_states_come_back_padded_in_the_order_asked_for(tmp_path: Path) -> None:
    with StateStore.open(fill(tmp_path / "store"), student=CARD.student) as store:
        states, lengths = store.get(["p2", "p1", "p2"], "us")
        assert lengths.tolist() == [1, 3, 1] and states.dtype == np.float32
        np.testing.assert_array_equal(states[0], [STATES[3], *np.zeros((2, DIM))])
        np.testing.assert_array_equal(states[1], STATES[:3])
        np.testing.assert_array_equal(states[2], states[0])
        spanish, _ = store.get(["p1"], "es")
        np.testing.assert_array_equal(spanish[0], STATES[4:])
        np.testing.assert_array_equal(store.get(["p2"])[0], states[:1, :1])
        assert store.get([])[0].shape == (0, 0, DIM)
        assert len(store) == 3
        assert store.bytes_per_product == 2 * DIM * 2  # Two tokens on the average, of float16.


def test_products_are_found_by_id_and_text_in_any_locale(tmp_path: Path) -> None:
    with StateStore.open(fill(tmp_path)) as store:
        first, spanish, *others = store.find(
            [("p1", b"one"), ("p1", b"uno"), ("p2", b"2"), ("p9", b"one"), ("", b"one")]
        )
        assert first is not None and spanish is not None and others == [None, None, None]
        np.testing.assert_array_equal(store.card.decode(first), STATES[:3])
        np.testing.assert_array_equal(store.card.decode(spanish), STATES[4:])
        assert store.find([]) == []
        with StateWriter(tmp_path, CARD) as writer:
            writer.add([Entry("p9", "us", b"nine")], STATES[:1], [1])
        (added,) = store.find([("p9", b"nine")])
        assert added is not None and store.card.decode(added).tolist() == STATES[:1].tolist()


def test_int8_by_hand(tmp_path: Path) -> None:
    card = StoreCard(student="a" * 64, split_layers=1, dim=3, precision="int8")
    states = np.array([[127.0, -63.4, 0.6], [0.0, 0.0, 0.0], [-2.0, 1.0, 0.5]], np.float32)
    records = card.encode(states)
    assert records["values"].tolist() == [[127, -63, 1], [0, 0, 0], [-127, 64, 32]]
    np.testing.assert_allclose(records["scale"], [1.0, 0.0, 2.0 / 127], rtol=1e-6)
    np.testing.assert_allclose(card.decode(records)[2], [-2.0, 128 / 127, 64 / 127], rtol=1e-6)
    with StateWriter(tmp_path, card) as writer:
        writer.add([Entry("p", "", b"")], states, [3])
    with StateStore.open(tmp_path) as store:
        assert store.bytes_per_product == 3 * (3 + 4)
        np.testing.assert_array_equal(store.get(["p"])[0][0], card.decode(records))


@pytest.mark.parametrize("precision", PRECISIONS)
@given(states=arrays(np.float32, (5, DIM), elements=st.floats(-50, 50, width=32)))
def test_what_is_kept_is_near(precision: Precision, states: np.ndarray) -> None:
    card = StoreCard(student="a", split_layers=1, dim=DIM, precision=precision)
    error = np.abs(card.decode(card.encode(states)) - states)
    largest = np.abs(states).max(axis=1, keepdims=True)
    assert (error <= largest / (254 if precision == "int8" else 2048) + 1e-6).all()


def test_only_new_and_changed_products_are_lacking(tmp_path: Path) -> None:
    fill(tmp_path)
    changed, new = Entry("p2", "us", b"two!"), Entry("p3", "us", b"three")
    with StateWriter(tmp_path, CARD) as writer:
        assert writer.lacking([ENTRIES[0], changed, new, ENTRIES[0], new]) == [1, 2]
        writer.add([changed, new], -STATES[:3], [1, 2])
    with StateStore.open(tmp_path) as store:
        states, lengths = store.get(["p1", "p2", "p3"], "us")
        assert (len(store), lengths.tolist()) == (4, [3, 1, 2])
        np.testing.assert_array_equal(states[0], STATES[:3])
        np.testing.assert_array_equal(states[1, :1], -STATES[:1])
        np.testing.assert_array_equal(states[2, :2], -STATES[1:3])


def test_a_product_with_two_texts_in_one_table_is_an_error(tmp_path: Path) -> None:
    message = r"product 'p1' in the locale 'us' has two different texts in one table; give each its own"
    other = Entry("p1", "us", b"another")
    with StateWriter(tmp_path, CARD) as writer, pytest.raises(DataError, match=message):
        writer.lacking([ENTRIES[0], other])
    fill(tmp_path)
    with StateWriter(tmp_path, CARD) as writer:  # Met unchanged first, in another batch.
        assert writer.lacking(ENTRIES) == []
        with pytest.raises(DataError, match=message):
            writer.lacking([other])


def test_what_was_half_written_is_cut_off(tmp_path: Path) -> None:
    fill(tmp_path)
    whole = (tmp_path / "states.bin").read_bytes()
    (tmp_path / "states.bin").write_bytes(whole + b"half a record of a batch that was never committed")
    with StateStore.open(tmp_path) as store:
        np.testing.assert_array_equal(store.get(["p1"], "us")[0][0], STATES[:3])
    with StateWriter(tmp_path, CARD) as writer:
        assert (tmp_path / "states.bin").read_bytes() == whole
        writer.add([Entry("p9", "us", b"nine")], STATES[:1], [1])
    with StateStore.open(tmp_path) as store:
        np.testing.assert_array_equal(store.get(["p9"], "us")[0][0], STATES[:1])


def test_an_open_store_sees_what_is_added_and_threads_share_it(tmp_path: Path) -> None:
    with StateStore.open(fill(tmp_path)) as store:
        with StateWriter(tmp_path, CARD) as writer:
            writer.add([Entry("p4", "us", b"four")], STATES[:2] + 1, [2])
        found = []
        threads = [Thread(target=lambda: found.append(store.get(["p4", "p1"], "us")[0])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        for states in found:
            np.testing.assert_array_equal(states[0, :2], STATES[:2] + 1)
            np.testing.assert_array_equal(states[1], STATES[:3])


def test_a_store_without_products(tmp_path: Path) -> None:
    with StateWriter(tmp_path, CARD):
        pass
    with StateStore.open(tmp_path) as store:
        assert (len(store), store.bytes_per_product) == (0, 0.0)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"absent is no store of states: it has no store\.json; make one with"):
        StateStore.open(tmp_path / "absent")
    folder = fill(tmp_path / "store")
    with pytest.raises(StudentError, match=r"holds states of the student aaaaaaaaaaaa, not of bbbbbbbbbbbb; make this"):
        StateStore.open(folder, student="b" * 64)
    with StateStore.open(folder) as store:
        with pytest.raises(DataError, match=r"lacks 2 of 3 products in the locale 'us', such as 'p7'; add them"):
            store.get(["p7", "p1", "p8"], "us")
        with pytest.raises(DataError, match=r"lacks 1 of 1 products, such as 'p7'; add them"):
            store.get(["p7"])
        with pytest.raises(DataError, match=r"has the product 'p1' in several locales; name the one that is meant"):
            store.get(["p2", "p1"])
    other = StoreCard(student="b" * 64, split_layers=2, dim=DIM, precision="int8")
    with pytest.raises(StudentError, match=r"is a store of another student and precision; write to another folder"):
        StateWriter(folder, other)
    with StateWriter(folder, CARD), pytest.raises(StudentError, match="another process is writing to"):
        StateWriter(folder, CARD)
    card = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(card | {"format": 9}))
    with pytest.raises(StudentError, match="expected format 1, got 9; make the store anew"):
        StateStore.open(folder)
    (folder / "store.json").write_text("{")
    with pytest.raises(StudentError, match=r"store\.json is damaged"):
        StateStore.open(folder)
    (folder / "store.json").write_text(json.dumps(card))
    (folder / "products.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StudentError, match=r"products\.sqlite cannot be read \(file is not a database\)"):
        StateStore.open(folder)


def test_reading_needs_no_torch() -> None:
    heavy = "[name for name in ('torch', 'transformers', 'datasets', 'scipy') if name in sys.modules]"
    script = f"import sys, manylens.serving.states; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_rolls_back_what_a_killed_writer_left(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    index = sqlite3.connect(folder / "products.sqlite")
    index.execute("PRAGMA cache_size = 1")
    index.execute("BEGIN")
    rows = [(f"x{number}", "us", b"", 0, 1, 9) for number in range(5000)]
    index.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?)", rows)
    journal, database = ((folder / name).read_bytes() for name in ("products.sqlite-journal", "products.sqlite"))
    index.rollback()
    index.close()
    (folder / "products.sqlite").write_bytes(database)
    (folder / "products.sqlite-journal").write_bytes(journal)
    with StateStore.open(folder) as store:
        assert len(store) == 3
