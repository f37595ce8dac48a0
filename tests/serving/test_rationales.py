from __future__ import annotations

import json
import logging
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from manylens.config import EmbedConfig
from manylens.config.embed import Hallucination
from manylens.data import Pairs
from manylens.errors import StudentError
from manylens.run_folder import RunFolder
from manylens.serving import rationales
from manylens.serving.indexing import has_rationales
from manylens.serving.rationales import CARD, RATIONALES, TEXTS, RationaleIndex
from manylens.student import Student
from manylens.student.targets import Targets, hallucinate, read_rationales
from serving.explaining import DEV, PERSPECTIVES, TRAIN, add_rationales, aim, judge, of_train, shop
from student.build import DIM, make_encoder, make_model


def make_student(names: tuple[str, ...] = ("rationale",), **options: object) -> Student:
    return Student(make_model(extractor="poly", latent_names=names, **options), make_encoder())


@pytest.fixture(scope="module")
def student() -> Student:
    return make_student()


@pytest.fixture
def index(student: Student, tmp_path: Path) -> Iterator[RationaleIndex]:
    add_rationales(student, tmp_path)
    found = RationaleIndex(tmp_path / RATIONALES)
    yield found
    found.close()


def directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_vectors_are_those_of_training_at_length_1_and_mapped(index: RationaleIndex) -> None:
    (vectors,) = index._vectors
    assert isinstance(vectors, np.memmap) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, directions(aim(shop()).vectors[:TRAIN, 0]), atol=1e-6)
    assert (index.card.names, index.card.dim, index.card.rows) == (("rationale",), DIM, (TRAIN,))


def test_a_run_exports_the_vectors_and_texts_of_its_own_training(exported_run: RunFolder) -> None:
    targets, table = Targets.load(exported_run.path / "embed"), exported_run.path / "curate" / "rationales.parquet"
    pairs = {pair.pair_id: pair for pair in Pairs.read(exported_run.path / "data" / "pairs.parquet")}
    train = [row for row, name in enumerate(targets.pair_ids) if pairs[name].split == "train" and targets.mask[row, 0]]
    index = RationaleIndex(exported_run.path / "export" / RATIONALES)
    np.testing.assert_allclose(index._vectors[0], directions(targets.vectors[train, 0]), atol=1e-6)
    kept = [each for each in read_rationales(pq.read_table(table), consistent_only=True) if each.kept]
    for row, place in enumerate(train):
        name = targets.pair_ids[place]
        assert {(where, each.rationale, each.gold_label) for where, each in index.texts(0, row, 0.0)} == {
            (each.perspective, each.text, pairs[name].label) for each in kept if each.pair_id == name
        }
    index.close()


@pytest.mark.parametrize("block", [1, 7, 100])
@pytest.mark.parametrize("top_k", [1, 3, TRAIN, 99])
def test_the_search_is_brute_force(
    index: RationaleIndex, block: int, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rationales, "_BLOCK", block)
    vectors = aim(shop()).vectors[:TRAIN, 0]
    for latent in np.random.default_rng(4).normal(size=(10, DIM)).astype(np.float32):
        cosines = [
            sum(a * b for a, b in zip(latent, row, strict=True)) / np.linalg.norm(latent) / np.linalg.norm(row)
            for row in vectors
        ]
        expected = sorted(range(TRAIN), key=lambda row: (-round(cosines[row], 5), row))[:top_k]
        rows, found = index.nearest(0, latent, top_k)
        assert rows.tolist() == expected
        assert found == pytest.approx([cosines[row] for row in expected], abs=2e-6)
        assert index.closest(latent[None, None]) == pytest.approx([max(cosines)], abs=2e-6)


def test_of_equal_ones_the_first_comes_first(index: RationaleIndex) -> None:
    rows, found = index.nearest(0, aim(shop()).vectors[5, 0], 2)
    assert (rows.tolist(), found.tolist()) == ([5, 9], [1.0, 1.0])
    assert index.nearest(0, aim(shop()).vectors[5, 0], 1)[0].tolist() == [5]


def test_a_latent_of_zeros_is_near_to_nothing(index: RationaleIndex) -> None:
    rows, found = index.nearest(0, np.zeros(DIM), 2)
    assert (rows.tolist(), found.tolist()) == ([0, 1], [0.0, 0.0])


def test_behind_a_row_are_the_pairs_rationales(index: RationaleIndex) -> None:
    pairs = of_train(shop())
    for row, pair in enumerate(pairs):
        found = index.texts(0, row, 0.5)
        assert [where for where, _ in found] == list(PERSPECTIVES[: 1 if row == 2 else 2])
        for where, each in found:
            assert (each.pair_id, each.query, each.title) == (pair.pair_id, pair.query, pair.title)
            assert (each.label, each.gold_label, each.similarity) == (pair.label, pair.label, 0.5)
            assert each.rationale == f"{where} of {pair.pair_id}"


def test_a_latent_for_each_perspective_is_searched_among_its_own(tmp_path: Path) -> None:
    student = make_student(PERSPECTIVES)
    targets = add_rationales(student, tmp_path)
    index = RationaleIndex(tmp_path / RATIONALES)
    assert (index.card.names, index.card.rows) == (PERSPECTIVES, (TRAIN, TRAIN - 1))
    for latent, name in enumerate(PERSPECTIVES):
        rows, _ = index.nearest(latent, targets.vectors[7, latent], 1)
        assert rows.tolist() == [7 - latent]  # The third pair has none of the second perspective.
        assert [(where, each.rationale) for where, each in index.texts(latent, int(rows[0]), 1.0)] == [
            (name, f"{name} of p7")
        ]
    index.close()


def test_the_percentile_is_the_share_of_dev_that_is_at_most_as_near(index: RationaleIndex, student: Student) -> None:
    dev = list(shop().split("dev"))
    latents = student.states(dev).latents
    assert latents is not None and index.card.reference_pairs == DEV == len(dev)
    nearest = (directions(latents[:, 0]) @ directions(aim(shop()).vectors[:TRAIN, 0]).T).max(axis=1)
    np.testing.assert_allclose(index.card.quantiles, np.quantile(nearest, np.linspace(0, 1, 101)), atol=2e-6)
    assert index.percentile(nearest.min() - 0.1) == 0.0 and index.percentile(nearest.max() + 0.1) == 1.0
    for place, similarity in enumerate(np.sort(nearest)):
        assert index.percentile(similarity) == pytest.approx(place / (DEV - 1), abs=0.011)


def test_percentiles_of_ties_count_them_all(index: RationaleIndex) -> None:
    card = index.card
    index.card = type(card)(**{**vars(card), "quantiles": (0.1,) * 30 + (0.5,) * 71})
    shares = [index.percentile(value) for value in (0.09, 0.1, 0.3, 0.5, 0.9)]
    assert shares == pytest.approx([0.0, 0.29, 0.295, 1.0, 1.0])


def test_hallucinated_rationales_are_shown_as_they_were_embedded(student: Student, tmp_path: Path) -> None:
    config = EmbedConfig(hallucinate=Hallucination(rate=0.5))
    add_rationales(student, tmp_path, config=config)
    index, pairs = RationaleIndex(tmp_path / RATIONALES), shop()
    known = {pair.pair_id: pair for pair in pairs}
    made, report = hallucinate(read_rationales(judge(pairs), consistent_only=True), known, config.hallucinate, 0)
    assert report.pairs
    shown = [each.rationale for row in range(TRAIN) for _, each in index.texts(0, row, 0.0)]
    assert shown == [each.text for each in made if each.kept and known[each.pair_id].split == "train"]
    index.close()


@pytest.mark.parametrize(
    ("method", "options", "source", "expected"),
    [
        ("lrkd", {}, "rationale", True),
        ("lrkd", {}, "labelled_rationale", True),
        *(("lrkd", {}, source, False) for source in ("shuffled", "label", "pair", "random")),
        ("lrkd_no_guide", {}, "rationale", False),
        ("bert", {"extractor": None}, "rationale", False),
        ("lrkd_dropped", {"extractor": None}, "rationale", False),
        ("cls_guided", {"extractor": None}, "rationale", False),
    ],
)
def test_only_latents_that_were_trained_towards_rationales_have_them(
    method: str, options: dict[str, object], source: str, expected: bool
) -> None:
    student = Student(make_model(**{"extractor": "poly", **options}), make_encoder())
    assert has_rationales(student, method, EmbedConfig(source=source)) is expected


def test_rationales_of_other_targets_are_refused(student: Student, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="not those that the targets were made of; run embed again"):
        add_rationales(student, tmp_path, table=judge(shop()).slice(4))
    assert not (tmp_path / RATIONALES).exists()


def test_a_second_index_replaces_the_first(student: Student, tmp_path: Path) -> None:
    (tmp_path / f"{RATIONALES}.unfinished").mkdir()
    add_rationales(student, tmp_path, name="one")
    add_rationales(student, tmp_path, name="two")
    assert RationaleIndex(tmp_path / RATIONALES).card.model == "two"
    assert [path.name for path in tmp_path.iterdir()] == [RATIONALES]


def spoil_card(folder: Path) -> None:
    (folder / CARD).write_text("{}")


def spoil_format(folder: Path) -> None:
    (folder / CARD).write_text(json.dumps(json.loads((folder / CARD).read_text()) | {"format": 9}))


def spoil_shape(folder: Path) -> None:
    np.save(folder / "vectors-0.npy", np.zeros((3, DIM), dtype=np.float32))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_card, r"index.json is damaged \(KeyError"),
        (spoil_format, "expected format 1, got 9"),
        (spoil_shape, r"its card does not fit vectors of \[\(3, 5\)\]"),
        (lambda folder: (folder / "vectors-0.npy").unlink(), "is damaged.*vectors-0"),
        (lambda folder: (folder / "vectors-0.npy").write_bytes(b"x"), "is damaged"),
        (lambda folder: (folder / TEXTS).write_bytes(b"x" * 5000), "is damaged.*not a database"),
        (lambda folder: sqlite3.connect(folder / TEXTS).execute("DROP TABLE rationales"), "no such table"),
    ],
)
def test_damage_is_told(student: Student, tmp_path: Path, spoil: object, message: str) -> None:
    add_rationales(student, tmp_path)
    spoil(tmp_path / RATIONALES)  # type: ignore[operator]
    with pytest.raises(StudentError, match=f"{message}.*; export the run again"):
        RationaleIndex(tmp_path / RATIONALES)


def test_many_vectors_are_searched_through_a_graph(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch.index")
    monkeypatch.setattr(rationales, "EXACT_ROWS", 10)
    add_rationales(student, tmp_path)
    index = RationaleIndex(tmp_path / RATIONALES)
    assert index._graphs[0] is not None
    monkeypatch.setattr(rationales, "EXACT_ROWS", 100)
    exact = RationaleIndex(tmp_path / RATIONALES)
    for latent in np.random.default_rng(4).normal(size=(20, DIM)):
        for found, wanted in zip(index.nearest(0, latent, 3), exact.nearest(0, latent, 3), strict=True):
            assert found.tolist() == pytest.approx(wanted.tolist())


def test_without_the_library_the_search_is_exact_and_says_so(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rationales, "EXACT_ROWS", 10)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with caplog.at_level(logging.WARNING):
        add_rationales(student, tmp_path)
        index = RationaleIndex(tmp_path / RATIONALES)
    assert "pip install 'manylens[ann]'" in caplog.text and index._graphs == [None]
    assert index.nearest(0, aim(shop()).vectors[5, 0], 1)[0].tolist() == [5]


def test_a_perspective_that_train_lacks_is_empty(tmp_path: Path) -> None:
    student, targets = make_student(PERSPECTIVES), aim(shop(), PERSPECTIVES)
    targets.mask[:TRAIN, 1] = False
    add_rationales(student, tmp_path, targets=targets)
    index = RationaleIndex(tmp_path / RATIONALES)
    assert index.card.rows == (TRAIN, 0)
    rows, found = index.nearest(1, np.ones(DIM), 3)
    assert (rows.tolist(), found.tolist()) == ([], [])
    assert np.isfinite(index.closest(np.ones((2, 2, DIM)))).all()
    index.close()
    targets.mask[:TRAIN] = False
    with pytest.raises(StudentError, match="no training pair has a rationale"):
        add_rationales(student, tmp_path, targets=targets, table=judge(shop()).slice(2 * TRAIN))
