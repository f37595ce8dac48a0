from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manylens.config import DataConfig, DemoData, EsciData, HubData
from manylens.data import LoadReport, Pairs, input_files, load_pairs, recorded_judgements
from manylens.data.load import LOADERS
from manylens.errors import BadRowError, DataError, QueryLeakError, UnknownNameError
from manylens.records import ESCI

from .build import ROWS, changed, example, product, table, write, write_esci


def test_pairs_are_checked_split_and_written_by_split(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [*reversed(ROWS), ROWS[0], {**ROWS[0], "product_id": "p4", "label": "i"}])
    report = load_pairs(table(path), ESCI, tmp_path / "out")
    none = {"exact": 0, "substitute": 0, "complement": 0, "irrelevant": 0}
    assert report == LoadReport(
        pairs={
            "train": {**none, "exact": 1, "irrelevant": 1},
            "dev": {**none, "substitute": 1},
            "test": {**none, "complement": 1},
        },
        queries={"train": 1, "dev": 1, "test": 1},
        rows_read=5,
        skipped={},
        duplicates=1,
    )
    assert json.loads(json.dumps(asdict(report))) == asdict(report)
    pairs = Pairs.read(tmp_path / "out" / "pairs.parquet")
    assert [(pair.pair_id, pair.label, pair.split) for pair in pairs] == [
        ("q1:p1", "exact", "train"),
        ("q1:p4", "irrelevant", "train"),
        ("q2:p2", "substitute", "dev"),
        ("q3:p3", "complement", "test"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pairs.parquet", "skipped.jsonl"]


def test_the_same_source_makes_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", ROWS)
    for name in ("a", "b"):
        load_pairs(table(path), ESCI, tmp_path / name)
    assert (tmp_path / "a/pairs.parquet").read_bytes() == (tmp_path / "b/pairs.parquet").read_bytes()


def test_skipped_rows_are_counted_and_written_with_their_values(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    write(path, [*ROWS, *changed(1, title="")[:1], *changed(1, label="exakt", product_id="p8")[:1], ROWS[1]])
    with path.open("ab") as stream:
        stream.write(b"q1,red shoes,p9,Caf\xe9,exact,train\nq1,red\n")
        stream.write(b"q1,red shoes,p1,Red shoe,irrelevant,train\n")
    report = load_pairs(table(path, on_bad_row="skip"), ESCI, tmp_path / "out")
    assert report.rows_read == 9
    assert report.duplicates == 1
    assert report.skipped == {"cells": 1, "conflicting_labels": 1, "empty_title": 1, "unknown_label": 1, "utf8": 1}
    assert sum(sum(labels.values()) for labels in report.pairs.values()) == 3
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [(line["row"], line["field"]) for line in lines] == [
        (4, "title"),
        (5, "label"),
        (7, "title"),
        (8, None),
        (9, "label"),
    ]
    assert {line["file"] for line in lines} == {str(path)}
    assert lines[1]["problem"].startswith("unknown label 'exakt'")
    assert lines[1]["raw"]["label"] == "exakt"
    assert lines[1]["raw"]["title"] == "Red shoe"
    assert lines[3]["raw"] == {"cells": ["q1", "red"]}


def test_pairs_of_an_unusable_product_are_skipped(tmp_path: Path) -> None:
    examples = [example(1, 1, "E"), example(2, 2, "E", split="test"), example(3, 3, "E"), example(7, 3, "E")]
    write_esci(tmp_path, examples, [product(1), product(2), product(3, product_title="")])
    config = EsciData(loader="esci", path=str(tmp_path), on_bad_row="skip", dev_fraction=0.0)
    with pytest.raises(DataError, match="the dev split has no pairs"):
        load_pairs(config, ESCI, tmp_path / "out")
    examples.append(example(8, 8, "S", split="dev"))
    write_esci(tmp_path, examples, [product(1), product(2), product(3, product_title=""), product(8)])
    report = load_pairs(config, ESCI, tmp_path / "out")
    assert report.skipped == {"bad_product": 1, "no_product": 1}
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [line["raw"]["product_id"] for line in lines] == ["B3", "B7"]


def test_a_failed_load_leaves_the_earlier_result(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", ROWS)
    load_pairs(table(path), ESCI, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    write(path, changed(2, label="?"))
    with pytest.raises(BadRowError):
        load_pairs(table(path), ESCI, tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_the_first_bad_row_of_the_file_is_reported(tmp_path: Path) -> None:
    rows = changed(3, label="?")
    rows[1] = {**rows[1], "query": ""}
    with pytest.raises(BadRowError, match=r"row 2, field 'query'"):
        load_pairs(table(write(tmp_path / "pairs.jsonl", rows)), ESCI, tmp_path / "out")


def test_a_query_leak_is_refused_even_when_skipping(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", [*ROWS, {**ROWS[0], "product_id": "p9", "split": "test"}])
    with pytest.raises(QueryLeakError, match=r"row 4: the query 'red shoes' .* 'test', but in 'train' in row 1"):
        load_pairs(table(path, on_bad_row="skip"), ESCI, tmp_path / "out")


def test_only_bad_rows_or_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("query,title,label\n")
    with pytest.raises(DataError, match="no usable rows among 0"):
        load_pairs(table(path), ESCI, tmp_path / "out")
    path.write_text("query,title,label\nhat,,E\n")
    with pytest.raises(DataError, match="no usable rows among 1"):
        load_pairs(table(path, on_bad_row="skip"), ESCI, tmp_path / "out")


def test_every_section_has_a_loader() -> None:
    sections = get_args(get_args(DataConfig)[0])
    assert list(LOADERS) == [section.model_fields["loader"].annotation.__args__[0] for section in sections]
    with pytest.raises(UnknownNameError, match=r"unknown loader 'dem' \(did you mean 'demo'\?\)"):
        input_files(DemoData().model_copy(update={"loader": "dem"}))


def test_where_recorded_judgements_are_looked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", ROWS)
    assert recorded_judgements(table(path)) == tmp_path / "judgements.jsonl"
    assert recorded_judgements(HubData(loader="hub", path="someone/pairs")) is None
    demo = recorded_judgements(DemoData())
    assert demo is not None
    assert demo.is_file()
    write_esci(tmp_path, [example(1, 1, "E")], [product(1)])
    esci = EsciData(loader="esci", path=str(tmp_path))
    assert recorded_judgements(esci) == tmp_path / "judgements.jsonl"
    assert [file.name for file in input_files(esci)] == [
        "shopping_queries_dataset_examples.parquet",
        "shopping_queries_dataset_products.parquet",
    ]
    with pytest.raises(DataError, match="there is no such file"):
        input_files(table(tmp_path / "absent.csv"))


def test_importing_loads_no_heavy_library() -> None:
    code = "import manylens.data, sys; print({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    text = "x" * 4000
    with pq.ParquetWriter(path, pa.Table.from_pylist([{**ROWS[0], "description": text}]).schema) as writer:
        for start in range(0, 60_000, 10_000):
            rows = [
                {**ROWS[number % 3], "product_id": f"p{number}", "description": f"{number} {text}"}
                for number in range(start, start + 10_000)
            ]
            writer.write_table(pa.Table.from_pylist(rows))
    pool = pa.system_memory_pool()
    before, default = pool.max_memory(), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        load_pairs(table(path), ESCI, tmp_path / "out")
    finally:
        pa.set_memory_pool(default)
    # 240 MB of descriptions; a batch of 8,192 rows holds 33 MB.
    assert pool.max_memory() - before < 160_000_000


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)


@given(
    st.lists(st.tuples(WORDS, WORDS, st.sampled_from(ESCI.names)), min_size=1, max_size=8),
    st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_through_any_format(tmp_path: Path, made: list[tuple[str, str, str]], suffix: str) -> None:
    rows = [
        {
            "query_id": f"t{number}",
            "query": f"{number} {query}",
            "title": title,
            "product_id": f"p{number}",
            "label": label,
        }
        for number, (query, title, label) in enumerate(made)
    ]
    rows = [{**row, "split": "train"} for row in rows] + ROWS[1:]
    load_pairs(table(write(tmp_path / f"pairs.{suffix}", rows)), ESCI, tmp_path / "out")
    got = Pairs.read(tmp_path / "out/pairs.parquet").split("train")
    assert [(pair.query, pair.title, pair.label) for pair in got] == [
        (row["query"], row["title"], row["label"]) for row in rows[:-2]
    ]
