from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manylens.errors import StudentError
from manylens.records import ESCI
from manylens.serving import Scorer
from manylens.serving.layout import CARD, CLASSES, PARTS, RANKING, Card, part_file
from manylens.serving.precompute import lower_fingerprint
from manylens.serving.split import SegmentTokenizer, open_split
from manylens.student.encoding import PairEncoder
from serving.splitting import PAIRS, QUERIES, SPLIT_VARIANTS, TITLES, make_student
from student.build import TEMPLATE, make_pair, make_tokenizer

#: One that is not in the store, one of which it has another text, and one without an id.
OTHERS = [make_pair("red", "lamp", product_id="p99"), make_pair("red", "lamp", product_id="p3"), ("red", "lamp")]


@pytest.fixture(scope="module")
def whole(split_export: Path) -> np.ndarray:
    """The probabilities of the whole graph, which a split export without a store runs."""
    with Scorer.load(split_export, variant="onnx_fp32") as scorer:
        assert scorer.states is None
        table = scorer.probabilities(PAIRS)
    assert np.ptp(table, axis=0).max() > 0.2, "the pairs differ by far more than is tolerated"
    return table


def test_the_card_and_the_parity_gate_know_the_parts(split_export: Path) -> None:
    card = Card.load(split_export / CLASSES)
    assert (card.split_layers, card.product_length) == (1, 12)
    assert card.lower_fingerprint == lower_fingerprint(make_student())
    for part in PARTS:
        assert all((split_export / CLASSES / part_file(part, variant)).is_file() for variant in SPLIT_VARIANTS)
        assert not (split_export / RANKING / part_file(part, "onnx_fp32")).exists()
    figures = json.loads((split_export / "parity.json").read_text())["variants"]
    assert figures["onnx_fp32_parts"]["logit_max"] < 1e-4 and figures["onnx_fp32_parts"]["gain_max"] < 1e-4
    assert 0 < figures["onnx_int8_parts"]["logit_max"] < 1
    sizes = [(split_export / CLASSES / part_file(part, "onnx_fp32")).stat().st_size for part in PARTS]
    assert figures["onnx_fp32_parts"]["mebibytes"] == round(sum(sizes) / 2**20, 2)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 5e-3), ("int8", 5e-2)])
@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"token_budget": 1}], ids=str)
def test_stored_states_give_the_scores_of_the_whole_graph(
    split_export: Path,
    stores: dict[str, Path],
    whole: np.ndarray,
    precision: str,
    tolerance: float,
    options: dict[str, int],
) -> None:
    with Scorer.load(split_export, variant="onnx_fp32", states=stores[precision], **options) as scorer:
        found = scorer.probabilities(PAIRS)
        assert scorer.states is not None
        assert (scorer.states.hits, scorer.states.misses) == (len(TITLES), 0)
        np.testing.assert_allclose(found, whole, atol=tolerance)
        order = np.random.default_rng(0).permutation(len(PAIRS))
        np.testing.assert_allclose(scorer.probabilities([PAIRS[i] for i in order]), found[order], atol=1e-5)
        np.testing.assert_allclose(scorer.probabilities(PAIRS[7:8]), found[7:8], atol=1e-5)
        assert scorer.states.hits == 2 * len(TITLES) + 1


def test_products_that_are_not_stored_are_computed(
    split_export: Path, stores: dict[str, Path], whole: np.ndarray
) -> None:
    engine, reader = open_split(split_export / CLASSES, "onnx_fp32")
    with Scorer(engine, reader, ESCI.names, ESCI.gain_vector()) as scorer:
        np.testing.assert_allclose(scorer.probabilities(PAIRS), whole, atol=1e-5)
        assert (reader.hits, reader.misses) == (0, len(TITLES))
        expected = scorer.score(OTHERS)
    with Scorer.load(split_export, variant="onnx_fp32", states=stores["fp16"], cache_products=9) as scorer:
        together = scorer.score([*PAIRS[:8], *OTHERS, *PAIRS[8:]])
        np.testing.assert_allclose(together[8:11], expected, atol=1e-5)
        assert expected[0] == pytest.approx(expected[1]) == pytest.approx(expected[2])
        np.testing.assert_allclose(np.delete(together, [8, 9, 10]), whole @ ESCI.gain_vector(), atol=5e-3)
        assert scorer.states is not None
        assert (scorer.states.hits, scorer.states.misses) == (len(TITLES), len(OTHERS))


def test_the_int8_parts_say_what_the_int8_graph_says(split_export: Path, stores: dict[str, Path]) -> None:
    with Scorer.load(split_export) as whole, Scorer.load(split_export, states=stores["fp16"]) as scorer:
        assert whole.variant == scorer.variant == "onnx_int8"
        np.testing.assert_allclose(scorer.probabilities(PAIRS), whole.probabilities(PAIRS), atol=0.1)


def test_every_method_takes_stored_products(split_export: Path, stores: dict[str, Path]) -> None:
    products = [{"product_id": name, "title": title} for name, title in TITLES.items()]
    with (
        Scorer.load(split_export, variant="onnx_fp32") as whole,
        Scorer.load(split_export, variant="onnx_fp32", states=stores["fp16"]) as scorer,
    ):
        pairs = [("red shoe", product) for product in products]
        scores = scorer.score(pairs)
        np.testing.assert_allclose(scores, whole.score(pairs), atol=5e-3)
        assert [each.score for each in scorer.predict(pairs)] == scores.tolist()
        ranked = scorer.rank("red shoe", products, top_k=5)
        assert [place.index for place in ranked] == np.argsort(-scores, kind="stable")[:5].tolist()
        assert scorer.rank("red shoe", []) == [] and scorer.probabilities([]).shape == (0, 4)
        assert scorer.states is not None and scorer.states.misses == 0
        assert scorer.tokenizer.max_length == whole.tokenizer.max_length


def test_threads_share_a_scorer_with_a_store(split_export: Path, stores: dict[str, Path], whole: np.ndarray) -> None:
    with Scorer.load(split_export, variant="onnx_fp32", states=stores["fp16"], threads=2) as scorer:
        with ThreadPoolExecutor(4) as pool:
            starts = range(0, len(PAIRS), 4)
            tables = list(pool.map(lambda start: scorer.probabilities(PAIRS[start : start + 4]), starts))
        np.testing.assert_allclose(np.concatenate(tables), whole, atol=5e-3)
        assert scorer.states is not None and (scorer.states.hits, scorer.states.misses) == (len(TITLES), 0)


@pytest.mark.parametrize("double_separator", [False, True])
def test_segments_are_tokenised_as_in_training(double_separator: bool, tmp_path: Path) -> None:
    encoder = PairEncoder(make_tokenizer(double_separator=double_separator), TEMPLATE, 24, 12)
    encoder.save(tmp_path)
    tokenizer = SegmentTokenizer.load(tmp_path, ("input_ids", "attention_mask"), cache_products=5)
    assert isinstance(tokenizer, SegmentTokenizer)
    titles, queries = ["", *TITLES.values()], ["", *QUERIES]
    for _ in range(2):
        assert [ids.tolist() for ids in tokenizer.products(titles)] == encoder.encode_products(titles)["input_ids"]
        assert [ids.tolist() for ids in tokenizer.queries(queries)] == encoder.encode_queries(queries)["input_ids"]


def test_a_store_that_does_not_fit_is_refused(
    split_export: Path, student_folder: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(split_export / CLASSES, tmp_path / CLASSES)
    card = json.loads((tmp_path / CLASSES / CARD).read_text())
    (tmp_path / CLASSES / CARD).write_text(json.dumps(card | {"lower_fingerprint": "f" * 64}))
    with pytest.raises(
        StudentError, match=r"fp16 holds states of the student .*make this student's own with: manylens"
    ):
        Scorer.load(tmp_path, states=stores["fp16"])
    with pytest.raises(StudentError, match=r"absent is no store of states: .* make one with: manylens precompute"):
        Scorer.load(split_export, states=tmp_path / "absent")
    (tmp_path / CLASSES / CARD).write_text(json.dumps(card | {"split_layers": 0}))
    with pytest.raises(StudentError, match=r"has no split layers, .* leave the store out, or train with"):
        Scorer.load(tmp_path, states=stores["fp16"])
    with pytest.raises(StudentError, match=r"stored states are for an export, got the student .* export it first"):
        Scorer.load(student_folder, states=stores["fp16"])
    with pytest.raises(StudentError, match=r"exported as onnx_fp32 and onnx_int8, got openvino_int8; take one of them"):
        open_split(split_export / CLASSES, "openvino_int8")


def test_a_closed_scorer_has_closed_its_store(split_export: Path, stores: dict[str, Path]) -> None:
    scorer = Scorer.load(split_export, states=stores["fp16"])
    scorer.close()
    with pytest.raises(StudentError, match="this scorer was closed"):
        scorer.score([PAIRS[0]])


def test_stored_states_need_neither_torch_nor_transformers(split_export: Path, stores: dict[str, Path]) -> None:
    code = f"""
import sys, manylens
with manylens.Scorer.load({str(split_export)!r}, states={str(stores["fp16"])!r}) as scorer:
    assert scorer.rank("red shoe", [{{"product_id": "p3", "title": {TITLES["p3"]!r}}}, "a hat"])
    assert (scorer.states.hits, scorer.states.misses) == (1, 1)
print(sorted({{"torch", "transformers", "manylens.student", "datasets", "scipy", "onnx"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_example_of_the_page_runs(split_export: Path, stores: dict[str, Path]) -> None:
    page = (Path(__file__).parents[2] / "docs/split.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(example.replace('"runs/my"', repr(str(split_export))).replace('"states"', repr(str(stores["fp16"]))), names)
    assert (names["scorer"].states.hits, names["scorer"].states.misses) == (0, 2)
