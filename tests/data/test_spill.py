from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manylens.data.spill import gather, spill

SCHEMA = pa.schema([("number", pa.int64()), ("tags", pa.map_(pa.string(), pa.string()))])


def batches(lengths: list[int]) -> list[pa.RecordBatch]:
    rows = [{"number": number, "tags": [(str(number), "x")]} for number in range(sum(lengths))]
    starts = np.cumsum([0, *lengths])
    return [
        pa.RecordBatch.from_pylist(rows[start : start + length], schema=SCHEMA)
        for start, length in zip(starts, lengths, strict=False)
    ]


def test_a_spilled_table_is_the_same_and_takes_no_memory_of_arrow(tmp_path: Path) -> None:
    text = pa.RecordBatch.from_pydict({"text": ["x" * 10_000] * 1000})
    before = pa.total_allocated_bytes()
    table = spill([text] * 20, text.schema, tmp_path)
    assert table.equals(pa.Table.from_batches([text] * 20))
    assert table.nbytes > 200_000_000 - 1
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert list(tmp_path.iterdir()) == []


def test_no_batches_make_an_empty_table() -> None:
    table = spill([], SCHEMA)
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA)


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> object:
        yield batches([2])[0]
        raise RuntimeError("source")

    with pytest.raises(RuntimeError, match="source"):
        spill(broken(), SCHEMA, tmp_path)
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.data())
def test_gather_is_take(lengths: list[int], data: st.DataObject) -> None:
    table = pa.Table.from_batches(batches(lengths), schema=SCHEMA)
    rows = st.lists(st.integers(0, max(sum(lengths) - 1, 0)), max_size=10 if sum(lengths) else 0)
    indices = np.array(data.draw(rows), dtype=np.int64)
    assert gather(table, indices).to_pylist() == [table.to_pylist()[index] for index in indices]
