from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from manylens.errors import ConfigError, StudentError, UnknownNameError
from manylens.products import Product
from manylens.records import ESCI, Pair
from manylens.serving import Ranked, Scorer, scorer
from manylens.serving.engines.protocol import Arrays
from manylens.serving.layout import CARD, CLASSES, VARIANTS
from manylens.student import Student
from student.build import WORDS, make_pair

#: Pairs of all lengths, some cut.
PAIRS = [
    make_pair(" ".join(WORDS[: 1 + index % 4]), " ".join(WORDS[place % 9] for place in range(index % 60)), pair_id="p")
    for index in range(120)
]
GAINS = np.array(ESCI.gain_vector())


@pytest.fixture(scope="module")
def reference(student_folder: Path) -> np.ndarray:
    """What PyTorch says, pair by pair."""
    student = Student.load(student_folder, device="cpu")
    return softmax(np.concatenate([student.logits([pair]) for pair in PAIRS]), axis=-1)


@pytest.fixture(scope="module")
def fp32(exported: Path) -> Iterator[Scorer]:
    with Scorer.load(exported, variant="onnx_fp32", threads=2) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("variant", "tolerance"),
    [("onnx_fp32", 1e-5), ("onnx_int8", 0.05), ("openvino_bf16", 0.01), ("openvino_int8", 0.05), ("torch", 1e-5)],
)
@pytest.mark.parametrize("options", [{}, {"token_budget": 64, "cache_products": 0}, {"token_budget": 1}], ids=str)
def test_every_variant_says_what_the_student_says_however_pairs_are_batched(
    exported: Path,
    student_folder: Path,
    reference: np.ndarray,
    variant: str,
    tolerance: float,
    options: dict[str, int],
) -> None:
    folder = student_folder if variant == "torch" else exported
    with Scorer.load(folder, variant=variant, **options) as scorer:
        assert scorer.labels == ESCI.names and scorer.gains.tolist() == list(ESCI.gain_vector())
        together = scorer.probabilities(PAIRS)
        assert (together.dtype, together.shape) == (np.dtype(np.float32), (120, 4))
        np.testing.assert_allclose(together, reference, atol=tolerance)
        order = np.random.default_rng(0).permutation(len(PAIRS))
        np.testing.assert_allclose(scorer.probabilities([PAIRS[i] for i in order]), together[order], atol=1e-5)
        np.testing.assert_allclose(scorer.probabilities(PAIRS[7:8]), together[7:8], atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_pairs_beyond_one_chunk_keep_their_order(
    exported: Path, reference: np.ndarray, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "_CHUNK", 7)
    with Scorer.load(exported, variant="onnx_fp32", threads=threads) as loaded:
        np.testing.assert_allclose(loaded.probabilities(PAIRS), reference, atol=1e-5)


def test_a_prediction_is_argmax_probabilities_and_expected_gain(fp32: Scorer, reference: np.ndarray) -> None:
    predictions = fp32.predict(iter(PAIRS))
    for prediction, probabilities in zip(predictions, reference, strict=True):
        assert prediction.label == ESCI.names[int(probabilities.argmax())]
        assert tuple(prediction.probabilities) == ESCI.names
        np.testing.assert_allclose(list(prediction.probabilities.values()), probabilities, atol=1e-5)
        expected = probabilities[0] * 1.0 + probabilities[1] * 0.1 + probabilities[2] * 0.01
        assert prediction.score == pytest.approx(expected, abs=1e-5)
    scores = fp32.score(PAIRS)
    assert (scores.dtype, scores.shape) == (np.dtype(np.float32), (120,))
    assert scores.tolist() == [prediction.score for prediction in predictions]


def test_records_titles_and_fields_are_the_same_pair(fp32: Scorer) -> None:
    record = make_pair("red shoe", "blue hat", brand="acme")
    fields = {"title": "blue hat", "brand": "acme", "description": None}
    scores = fp32.score([record, ("red shoe", fields), ("red shoe", "blue hat | acme"), ("red shoe", "blue hat")])
    assert scores[0] == pytest.approx(scores[1]) == pytest.approx(scores[2])
    assert scores[3] != pytest.approx(scores[0], abs=1e-6)


def test_products_are_ranked_by_expected_gain(fp32: Scorer) -> None:
    products: list[Product] = ["blue hat", {"title": "red shoe", "brand": "acme"}, "lamp", "blue hat", "sofa sofa"]
    scores = fp32.score([("red shoe", product) for product in products])
    predictions = fp32.predict([("red shoe", product) for product in products])
    best = sorted(range(5), key=lambda index: (-scores[index], index))
    ranked = fp32.rank("red shoe", products)
    assert [place.index for place in ranked] == best
    assert best.index(3) == best.index(0) + 1, "equal products stay in their order"
    for place in ranked:
        assert place == Ranked(
            index=place.index, score=pytest.approx(scores[place.index]), label=predictions[place.index].label
        )
    assert fp32.rank("red shoe", products, top_k=2) == ranked[:2]
    assert fp32.rank("red shoe", products, top_k=9) == ranked
    assert [place.index for place in fp32.rank("red shoe", ["blue hat"] * 40)] == list(range(40))


def test_a_batch_that_runs_alone_may_use_every_core(fp32: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(batch: Mapping[str, np.ndarray], *, alone: bool = False) -> Arrays:
        asked.append((batch["input_ids"].shape, alone))
        return computed(batch, alone=alone)

    computed = fp32.engine.run
    monkeypatch.setattr(fp32.engine, "run", run)
    fp32.score([("red", "hat")])
    fp32.score([("red", "hat"), ("red", "hat")])
    assert asked == [((1, 5), True), ((1, 5), False), ((1, 5), False)]


def test_nothing_to_score(fp32: Scorer) -> None:
    assert fp32.probabilities([]).shape == (0, 4)
    assert fp32.score([]).shape == (0,)
    assert fp32.predict([]) == [] == fp32.rank("red shoe", [])


def test_a_product_of_fifty_thousand_characters(fp32: Scorer, student_folder: Path) -> None:
    long = "red shoe " * 5600
    scores = fp32.score([("hat", long), ("hat", "sofa"), (long, "lamp"), ("", "")])
    expected = Student.load(student_folder, device="cpu").predict(
        [("hat", long), ("hat", "sofa"), (long, "lamp"), ("", "")]
    )
    np.testing.assert_allclose(scores, [prediction.score for prediction in expected], atol=1e-5)


def test_threads_share_a_scorer(fp32: Scorer, reference: np.ndarray) -> None:
    starts = [*range(0, 120, 5)] * 3
    with ThreadPoolExecutor(6) as pool:
        tables = list(pool.map(lambda start: fp32.probabilities(PAIRS[start : start + 1 + start % 9]), starts))
    for start, table in zip(starts, tables, strict=True):
        np.testing.assert_allclose(table, reference[start : start + 1 + start % 9], atol=1e-5)


def test_the_best_variant_is_taken(exported: Path, student_folder: Path, tmp_path: Path) -> None:
    def taken(path: Path) -> str | None:
        with Scorer.load(path) as loaded:
            assert loaded.predict([("red", "hat")])[0].label in ESCI.names
            return loaded.variant

    classes = exported / CLASSES
    assert taken(exported) == taken(classes) == taken(exported.parent) == "onnx_int8"
    assert taken(student_folder) == "torch"
    shutil.copytree(classes, tmp_path / CLASSES)
    keep_variants(tmp_path / CLASSES, "openvino_int8", "onnx_fp32")
    assert taken(tmp_path) == "onnx_fp32"
    keep_variants(tmp_path / CLASSES, "openvino_int8")
    assert taken(tmp_path) == "openvino_int8"


def keep_variants(classes: Path, *names: str) -> None:
    card = json.loads((classes / CARD).read_text())
    (classes / CARD).write_text(json.dumps(card | {"variants": [VARIANTS[name] for name in names]}))


def test_what_is_not_exported_is_said_with_the_way_to_it(exported: Path, student_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"no/such.*, which is no folder"):
        Scorer.load("no/such")
    with pytest.raises(
        StudentError, match=r"make one with: manylens export RUN|export a run with: manylens export RUN"
    ):
        Scorer.load(tmp_path)
    with pytest.raises(StudentError, match=r"has no onnx_int8; make an export with: manylens export RUN, or .* torch"):
        Scorer.load(student_folder, variant="onnx_int8")
    with pytest.raises(StudentError, match=r"is an export; the variant torch takes a student's folder"):
        Scorer.load(exported, variant="torch")
    with pytest.raises(
        UnknownNameError, match=r"unknown variant 'onnx_int4' \(did you mean 'onnx_int8'\?\); known: .*torch"
    ):
        Scorer.load(exported, variant="onnx_int4")
    shutil.copytree(exported / CLASSES, tmp_path / CLASSES)
    keep_variants(tmp_path / CLASSES, "onnx_fp32", "openvino_bf16")
    with pytest.raises(StudentError, match=r"has no variant onnx_int8; exported: onnx_fp32, openvino_bf16; export"):
        Scorer.load(tmp_path, variant="onnx_int8")
    keep_variants(tmp_path / CLASSES)
    with pytest.raises(StudentError, match=r"has no variant at all; exported: none"):
        Scorer.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"token_budget": 0}, "token_budget must be at least 1, got 0"),
        ({"cache_products": -1}, "cache_products must be at least 0, got -1"),
        ({"device": "cuda"}, "a device is for the variant torch alone, got 'cuda' for onnx_fp32"),
    ],
)
def test_wrong_options_are_refused(exported: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(StudentError, match=message):
        Scorer.load(exported, variant="onnx_fp32", **options)


def test_a_graph_without_probabilities_is_refused(fp32: Scorer) -> None:
    class Ranking:
        outputs = ("logits",)

    with pytest.raises(
        StudentError, match="needs the class head, whose graph gives probabilities; this one gives logits"
    ):
        Scorer(Ranking(), fp32.tokenizer, ESCI.names, GAINS)


@pytest.mark.parametrize("top_k", [0, -1])
def test_no_ranking_of_none(fp32: Scorer, top_k: int) -> None:
    with pytest.raises(StudentError, match=f"top_k must be at least 1, got {top_k}"):
        fp32.rank("red shoe", ["hat"], top_k=top_k)


def test_wrong_products_are_refused(fp32: Scorer) -> None:
    with pytest.raises(StudentError, match=r"with the title among them, got \['brand'\]"):
        fp32.score([("hat", {"brand": "acme"})])
    with pytest.raises(StudentError, match="query must be a str, got None"):
        fp32.rank(None, ["hat"])


def test_a_wrong_pair_leaves_the_scorer_usable(fp32: Scorer, exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported / CLASSES, tmp_path / CLASSES)
    path = tmp_path / CLASSES / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"product_template": "{{ attributes.size }}"}))
    with Scorer.load(tmp_path, variant="onnx_fp32") as loaded:
        good = Pair(pair_id="", query_id="", product_id="", query="red", title="", attributes={"size": "hat"})
        with pytest.raises(ConfigError, match="no attribute 'size'"):
            loaded.score([good, ("red", "hat")])
        assert loaded.score([good]) == pytest.approx(fp32.score([("red", "hat")]))


@pytest.mark.parametrize("variant", ["onnx_fp32", "openvino_bf16"])
def test_scoring_needs_neither_torch_nor_transformers(exported: Path, variant: str) -> None:
    code = f"""
import sys, manylens
with manylens.Scorer.load({str(exported)!r}, variant={variant!r}, threads=2) as scorer:
    assert scorer.rank("red shoe", ["blue shoe", {{"title": "red hat", "brand": "acme"}}])
heavy = {{"torch", "transformers", "manylens.student", "datasets", "pandas", "scipy", "sklearn", "onnx"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_scorer_is_closed(exported: Path) -> None:
    loaded = Scorer.load(exported, variant="onnx_fp32")
    loaded.close()
    loaded.close()
    with pytest.raises(StudentError, match="this scorer was closed; load another one"):
        loaded.score([("red", "hat")])
