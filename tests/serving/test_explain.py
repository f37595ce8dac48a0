from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from manylens.errors import StudentError
from manylens.products import as_pair
from manylens.records import ESCI
from manylens.serving import Scorer
from manylens.serving import explain as module
from manylens.serving.engines.protocol import Arrays
from manylens.serving.explain import PRODUCT_WORDS, QUERY_WORDS, Explainer, Word
from manylens.serving.layout import CLASSES
from manylens.serving.rationales import RATIONALES, RationaleIndex
from manylens.serving.tokens import PairTokenizer
from manylens.student import Student
from serving.explaining import PERSPECTIVES, TRAIN, aim, copy_with_rationales, of_train, shop
from student.build import DIM, VOCABULARY


@pytest.fixture(scope="module")
def explained(exported: Path, student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_with_rationales(exported, student_folder, tmp_path_factory.mktemp("explained"))


@pytest.fixture(scope="module")
def scorer(explained: Path) -> Iterator[Scorer]:
    with Scorer.load(explained, variant="onnx_fp32", threads=2) as loaded:
        yield loaded


class Compass:
    """An engine whose latent turns by 60 degrees without the word "red", and by 30 without "hat"."""

    inputs, outputs = ("input_ids", "attention_mask"), ("probabilities", "latents")
    streams, token_budget, call_tokens, few_shapes = 1, 64, 1, False

    def run(self, batch: Mapping[str, Any], *, alone: bool = False) -> Arrays:
        """Read the words off."""
        red, hat = ((batch["input_ids"] == VOCABULARY[word]).any(axis=1) for word in ("red", "hat"))
        turn = np.radians(60 * ~red + 30 * ~hat)
        latents = np.zeros((len(turn), 1, DIM), dtype=np.float32)
        latents[:, 0, 0], latents[:, 0, 1] = np.cos(turn), np.sin(turn)
        return {"probabilities": np.tile(np.float32([0.1, 0.2, 0.3, 0.4]), (len(turn), 1)), "latents": latents}


@pytest.fixture
def compass(explained: Path) -> Iterator[Scorer]:
    engine = Compass()
    tokenizer = PairTokenizer.load(explained / CLASSES, engine.inputs)
    explainer = Explainer.beside(explained / CLASSES)
    with Scorer(engine, tokenizer, ESCI.names, ESCI.gain_vector(), explainer=explainer) as made:
        yield made


def test_a_words_weight_is_how_far_the_latent_turns_without_it(compass: Scorer) -> None:
    found = compass.explain("red sofa", {"title": "Blue hat", "brand": "acme"}).tokens
    assert found.largest == pytest.approx(1 - np.cos(np.radians(60)))
    share = (1 - np.cos(np.radians(30))) / 0.5
    assert found.query == (
        Word(text="red", start=0, end=3, weight=pytest.approx(1.0)),
        Word(text="sofa", start=4, end=8, weight=0.0),
    )
    assert found.product_text == "Blue hat | acme" and found.skipped == 0
    assert [(word.text, word.weight) for word in found.product] == [
        ("Blue", 0.0),
        ("hat", pytest.approx(share, abs=1e-6)),
        ("|", 0.0),
        ("acme", 0.0),
    ]
    assert all(found.product_text[word.start : word.end] == word.text for word in found.product)


def test_a_word_that_stands_twice_has_no_weight_by_itself(compass: Scorer) -> None:
    found = compass.explain("red red", "sofa").tokens
    assert found.largest == 0.0 and {word.weight for word in (*found.query, *found.product)} == {0.0}


def test_words_without_a_letter_between_them_stay_apart(compass: Scorer) -> None:
    # "red-hat" without "-" must not become one word.
    found = compass.explain("red?hat", "sofa").tokens
    assert [word.text for word in found.query] == ["red", "?", "hat"]
    assert found.query[1].weight == 0.0


def test_the_prediction_is_the_scorers_own(scorer: Scorer) -> None:
    product = {"title": "blue shoe", "brand": "acme"}
    found, (wanted,) = scorer.explain("red shoe", product), scorer.predict([("red shoe", product)])
    assert (found.label, found.score) == (wanted.label, pytest.approx(wanted.score, abs=1e-6))
    assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-6)


def test_the_rationales_are_those_nearest_to_the_students_latent(scorer: Scorer, student_folder: Path) -> None:
    latents = Student.load(student_folder, device="cpu").states([as_pair("red shoe", "blue hat")]).latents
    assert latents is not None
    vectors = aim(shop()).vectors[:TRAIN, 0]
    cosines = vectors @ latents[0, 0] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(latents)
    order = np.argsort(-cosines, kind="stable")[:3]
    found, pairs = scorer.explain("red shoe", "blue hat"), of_train(shop())
    assert list(found.rationales) == list(PERSPECTIVES)
    shown = found.rationales[PERSPECTIVES[0]]
    assert [each.pair_id for each in shown] == [pairs[row].pair_id for row in order]
    assert [each.similarity for each in shown] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    assert found.confidence.similarity == shown[0].similarity
    assert scorer.explainer is not None
    assert found.confidence.percentile == scorer.explainer.index.percentile(shown[0].similarity)
    assert found.confidence.in_domain is (found.confidence.percentile >= 0.05)
    assert len(scorer.explain("red shoe", "blue hat", top_k=1).rationales[PERSPECTIVES[0]]) == 1


def test_what_is_far_from_every_dev_pair_is_out_of_the_domain(compass: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compass.explainer is not None
    monkeypatch.setattr(compass.explainer.index, "percentile", lambda similarity: 0.049)
    assert compass.explain("red hat", "sofa").confidence.in_domain is False


def test_few_words_are_left_out_and_the_rest_is_counted(compass: Scorer) -> None:
    query, product = " ".join(["sofa"] * 20), " ".join(["cup"] * 60)
    found = compass.explain(query, product).tokens
    assert (len(found.query), len(found.product)) == (QUERY_WORDS, PRODUCT_WORDS)
    # Of the product the student reads at most 48 tokens; one more could move up.
    assert found.product_text == " ".join(["cup"] * 49) and found.skipped == 4 + 1


@pytest.mark.parametrize(
    ("query", "product"), [("", ""), ("   ", "\n"), ("red\ud800", "hat \ud800"), ("é红鞋", "🙂 hat")], ids=ascii
)
def test_strange_texts_are_explained(scorer: Scorer, query: str, product: str) -> None:
    found = scorer.explain(query, product)
    assert 0.0 <= found.score <= 1.0
    for text, words in ((query, found.tokens.query), (found.tokens.product_text, found.tokens.product)):
        for word in words:
            assert text.replace("\ud800", "?")[word.start : word.end] == word.text


def words_of(tokenizer: Tokenizer, text: str, index: RationaleIndex, folder: Path) -> list[str]:
    """Return the words that an explainer finds with a tokenizer's normaliser and pre-tokeniser."""
    tokenizer.save(str(folder / "tokenizer.json"))
    explainer = Explainer(index, module._splitter(folder / "tokenizer.json"))
    return [text[start:end] for start, end in explainer._cut(text, 99)[1]]


def test_words_are_those_of_the_tokenizers_kind(scorer: Scorer, tmp_path: Path) -> None:
    assert scorer.explainer is not None
    index, text = scorer.explainer.index, "Café  size-10 红鞋"
    bert, bpe, unigram = Tokenizer(models.WordPiece()), Tokenizer(models.BPE()), Tokenizer(models.Unigram())
    bert.normalizer, bert.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    assert words_of(bert, text, index, tmp_path) == ["Café", "size", "-", "10", "红", "鞋"]
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert words_of(bpe, text, index, tmp_path) == ["Café", "size", "-", "10", "红鞋"]
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    assert words_of(unigram, text, index, tmp_path) == ["Café", "size-10", "红鞋"]


def test_reasons_are_given(exported: Path, student_folder: Path, explained: Path, tmp_path: Path) -> None:
    with (
        Scorer.load(exported, variant="onnx_fp32") as older,
        pytest.raises(StudentError, match=r"no rationales were exported beside this model.*manylens export RUN"),
    ):
        older.explain("red", "hat")
    with (
        Scorer.load(student_folder, variant="torch") as student,
        pytest.raises(StudentError, match="or is no export"),
    ):
        student.explain("red", "hat")
    engine = Compass()
    engine.outputs = ("probabilities",)  # type: ignore[assignment]
    plain = Scorer(engine, PairTokenizer.load(explained / CLASSES, engine.inputs), ESCI.names, ESCI.gain_vector())
    with plain, pytest.raises(StudentError, match="this model has no latents"):
        plain.explain("red", "hat")


def test_wrong_arguments_are_refused(scorer: Scorer) -> None:
    with pytest.raises(StudentError, match="top_k must be at least 1, got 0"):
        scorer.explain("red", "hat", top_k=0)
    with pytest.raises(StudentError, match="with the title among them"):
        scorer.explain("red", {"brand": "acme"})


def test_a_damaged_index_is_told_when_the_model_is_loaded(exported: Path, student_folder: Path, tmp_path: Path) -> None:
    copy_with_rationales(exported, student_folder, tmp_path)
    (tmp_path / RATIONALES / "index.json").unlink()
    with pytest.raises(StudentError, match=r"index.json is damaged.*export the run again"):
        Scorer.load(tmp_path)


def test_explaining_needs_neither_torch_nor_pyarrow(explained: Path) -> None:
    code = f"""
import sys, manylens
with manylens.Scorer.load({str(explained)!r}, variant="onnx_fp32", threads=2) as scorer:
    assert scorer.explain("red shoe", {{"title": "red hat", "brand": "acme"}}).rationales
heavy = {{"torch", "transformers", "manylens.student", "datasets", "pandas", "scipy", "sklearn", "onnx", "pyarrow"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1].replace("'", '"')) == []
