from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from manylens.errors import BadRowError, DataError, StudentError
from manylens.serving import precompute as module
from manylens.serving.precompute import PrecomputeReport, lower_fingerprint, precompute
from manylens.serving.states import PRECISIONS, Precision, StateStore
from manylens.student.encoding import PairEncoder
from manylens.student.predict import Student
from manylens.student.split import LowerQuery, Upper
from student.build import TEMPLATE, WORDS, make_model, make_pair, make_tokenizer

TITLES = {f"p{number}": " ".join(WORDS[place % 8] for place in range(number % 7 + 1)) for number in range(23)}


def make_student(seed: int = 0, **options: object) -> Student:
    model = make_model(seed, **{"split_layers": 1, **options})
    return Student(model, PairEncoder(make_tokenizer(), TEMPLATE, 12, 6))


def write_table(path: Path, titles: dict[str, str]) -> Path:
    lines = [json.dumps({"product_id": name, "title": title, "brand": "acme"}) for name, title in titles.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "products.jsonl", TITLES)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_ROWS", 5)
    yield


def score(student: Student, store: StateStore, query: str, names: list[str]) -> np.ndarray:
    """Return the logits of stored products."""
    encoder = student.encoder
    ids = torch.tensor(encoder.encode_queries([query])["input_ids"])
    queries = LowerQuery(student.model)(ids, torch.ones_like(ids)).expand(len(names), -1, -1)
    states, lengths = store.get(names)
    mask = torch.arange(states.shape[1]) < torch.from_numpy(lengths)[:, None]
    ones = torch.ones(len(names), ids.shape[1], dtype=torch.int64)
    logits: np.ndarray = (
        Upper(student.model).eval()(queries, ones, torch.from_numpy(states), mask.long())[0].detach().numpy()
    )
    return logits


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("small_batches")
def test_stored_states_give_the_students_logits(table: Path, tmp_path: Path, precision: Precision) -> None:
    student = make_student()
    report = precompute(student, table, tmp_path / "store", precision=precision, batch_size=3)
    assert (report.rows, report.computed, report.products) == (23, 23, 23)
    names = ["p4", "p22", "p0", "p13"]
    expected = student.logits([make_pair("red hat", TITLES[name], brand="acme") for name in names])
    with StateStore.open(tmp_path / "store", student=lower_fingerprint(student)) as store:
        assert report.bytes_per_product == store.bytes_per_product
        found = score(student, store, "red hat", names)
    np.testing.assert_allclose(found, expected, atol=2e-3 if precision == "fp16" else 2e-2)
    assert not np.allclose(found, expected[::-1], atol=2e-2)


@pytest.mark.usefixtures("small_batches")
def test_a_second_pass_computes_what_is_new_or_has_changed(table: Path, tmp_path: Path) -> None:
    student, folder = make_student(), tmp_path / "store"
    precompute(student, table, folder)
    assert precompute(student, table, folder).computed == 0
    titles = {**TITLES, "p3": "green sofa", "p99": "red lamp"}
    report = precompute(student, write_table(table, titles), folder)
    assert (report.rows, report.computed, report.products) == (24, 2, 24)
    with StateStore.open(folder) as store:
        found = score(student, store, "lamp", ["p3", "p99"])
    expected = student.logits([make_pair("lamp", title, brand="acme") for title in ("green sofa", "red lamp")])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_table_of_pairs_has_its_products_computed_once(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("query,sku,title,locale,label\na,7,red hat,us,1\nb,7,red hat,us,0\nb,7,green hat,es,0\n")
    report = precompute(make_student(), path, tmp_path / "store", columns={"product_id": "sku"})
    assert (report.rows, report.computed, report.products) == (3, 2, 2)
    with StateStore.open(tmp_path / "store") as store:
        assert store.get(["7"], "us")[1].tolist() == store.get(["7"], "es")[1].tolist() == [3]


def test_errors(table: Path, tmp_path: Path) -> None:
    student, folder = make_student(), tmp_path / "store"
    with pytest.raises(StudentError, match=r"depend on the query; train one with student\.split_layers"):
        precompute(make_student(split_layers=0), table, folder)
    with pytest.raises(BadRowError, match="a column for this field is required"):
        precompute(student, _write(tmp_path / "untitled.csv", "product_id\n1\n"), folder)
    with pytest.raises(BadRowError, match="product_id"):
        precompute(student, _write(tmp_path / "nameless.csv", "title\nhat\n"), folder)
    with pytest.raises(BadRowError, match="row 2, field 'title': the title is empty"):
        precompute(student, _write(tmp_path / "empty.csv", "product_id,title\n1,hat\n2,\n"), folder)
    with pytest.raises(DataError, match="product '1' in the locale '' has two different texts"):
        precompute(student, _write(tmp_path / "twice.csv", "product_id,title\n1,hat\n1,shoe\n"), folder)
    precompute(student, table, folder)
    with pytest.raises(StudentError, match="is a store of another student; write to another folder"):
        precompute(make_student(seed=1), table, folder)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_fingerprint_covers_what_lower_states_follow_from(tmp_path: Path) -> None:
    student = make_student()
    own = lower_fingerprint(student)
    student.model.save_pretrained(tmp_path)
    student.encoder.save(tmp_path)
    assert lower_fingerprint(Student.load(tmp_path, device="cpu")) == own
    with torch.no_grad():
        student.model.classifier.weight.zero_()
        student.model.backbone.encoder.layer[1].output.dense.weight.zero_()
    assert lower_fingerprint(student) == own, "what lies above the states does not matter"
    with torch.no_grad():
        student.model.backbone.encoder.layer[0].output.dense.weight[0, 0] += 1
    others = [lower_fingerprint(student)]
    for encoder in (
        PairEncoder(make_tokenizer(), "{{ title }}", 12, 6),
        PairEncoder(make_tokenizer(), TEMPLATE, 12, 7),
    ):
        others.append(lower_fingerprint(Student(make_model(split_layers=1), encoder)))
    assert len({own, *others}) == 4


def test_any_text_is_stored(tmp_path: Path) -> None:
    titles = {"b": "[SEP] [CLS]", "ü 'x\"": "\u200b", "c": "x" * 5000}
    report = precompute(make_student(), write_table(tmp_path / "odd.jsonl", titles), tmp_path / "store")
    assert report.products == 3
    with StateStore.open(tmp_path / "store") as store:
        assert np.isfinite(store.get(list(titles))[0]).all()


CHILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from manylens.serving import precompute as module
from serving.test_precompute import make_student
module._ROWS = 40
module.precompute(make_student(), Path({table!r}), Path({store!r}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
def test_a_pass_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = {f"p{number}": f"{WORDS[number % 8]} {number}" for number in range(3000)}
    table, folder = write_table(tmp_path / "many.jsonl", titles), tmp_path / "store"
    tests = str(Path(__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(tests=tests, table=str(table), store=str(folder))],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (folder / "states.bin").exists() or (folder / "states.bin").stat().st_size < 20_000:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    with StateStore.open(folder) as store:
        half = len(store)
    assert 0 < half < len(titles)
    report = precompute(make_student(), table, folder)
    assert (report.computed, report.products) == (len(titles) - half, len(titles))
    undisturbed: PrecomputeReport = precompute(make_student(), table, tmp_path / "undisturbed")
    assert undisturbed.computed == len(titles)
    with StateStore.open(folder) as store, StateStore.open(tmp_path / "undisturbed") as other:
        names = list(titles)
        ours, theirs = store.get(names), other.get(names)
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_allclose(ours[0], theirs[0], atol=2e-2)  # Batches differ, and with them the sums' last bits.
