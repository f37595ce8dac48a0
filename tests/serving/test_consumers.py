"""An export in the hands of programs that know nothing of manylens: onnxruntime and tokenizers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax
from tokenizers import Encoding, Tokenizer

from manylens import Scorer
from manylens.products import ProductTemplate
from manylens.serving.layout import VARIANTS
from student.build import make_pair, make_pairs

#: The last is longer than the student's 48 tokens.
PAIRS = [*make_pairs(9), make_pair("red ?", "lamp"), make_pair("blue cup", "green sofa | acme size : 10 " * 12)]


def texts(folder: Path) -> list[tuple[str, str]]:
    """Return queries and rendered products, which is what others are given."""
    template = ProductTemplate(json.loads((folder / "tokenizer_config.json").read_text())["product_template"])
    return [(pair.query, template.render(pair)) for pair in PAIRS]


def run(folder: Path, variant: str, encodings: Sequence[Encoding]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(str(folder / VARIANTS[variant]))
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    names = [each.name for each in session.get_inputs()]
    batch = {name: np.array([getattr(each, columns[name]) for each in encodings], dtype=np.int64) for name in names}
    found: list[NDArray[np.float32]] = session.run(None, batch)
    return found


def scores(exported: Path, variant: str) -> NDArray[np.float32]:
    with Scorer.load(exported, variant=variant) as scorer:
        return scorer.score(PAIRS)


@pytest.mark.parametrize("variant", ["onnx_fp32", "onnx_int8"])
def test_the_ranking_logits_sigmoid_is_the_scorers_score(exported: Path, variant: str) -> None:
    folder = exported / "ranking"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    logits = [run(folder, variant, [tokenizer.encode(*pair)])[0] for pair in texts(folder)]
    assert {logit.shape for logit in logits} == {(1, 1)}
    found = expit(np.concatenate(logits)[:, 0])
    np.testing.assert_allclose(found, scores(exported, variant), atol=1e-5)
    assert np.ptp(found) > 1e-3  # Pairs are told apart.


def test_tokenizer_json_alone_cuts_as_the_student_does_and_pads_nothing(exported: Path) -> None:
    tokenizer = Tokenizer.from_file(str(exported / "ranking/tokenizer.json"))
    short, long = (tokenizer.encode(*pair).tokens for pair in texts(exported / "ranking")[-2:])
    assert short == ["[CLS]", "red", "?", "[SEP]", "lamp", "[SEP]"]
    assert (len(long), long[:4], long[-1]) == (48, ["[CLS]", "blue", "cup", "[SEP]"], "[SEP]")


def test_a_batch_is_padded_by_what_the_files_say(exported: Path) -> None:
    folder = exported / "ranking"
    config, tokens = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(min(tokens["model_max_length"], 512))
    tokenizer.enable_padding(pad_id=config["pad_token_id"], pad_token=tokens["pad_token"])
    assert json.loads((folder / "special_tokens_map.json").read_text())["pad_token"] == tokens["pad_token"]
    (logits,) = run(folder, "onnx_fp32", tokenizer.encode_batch(texts(folder)))
    np.testing.assert_allclose(expit(logits[:, 0]), scores(exported, "onnx_fp32"), atol=1e-5)


@pytest.mark.parametrize(("head", "labels"), [("classes", 4), ("ranking", 1)])
def test_config_json_tells_a_reranker_from_a_classifier(exported: Path, head: str, labels: int) -> None:
    config: dict[str, Any] = json.loads((exported / head / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"] and config["model_type"] == "bert"
    assert len(config["id2label"]) == len(config["label2id"]) == labels
    assert config["max_position_embeddings"] == 64


def test_the_class_heads_logits_are_those_of_its_probabilities(exported: Path) -> None:
    folder = exported / "classes"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    logits, probabilities, latents = run(folder, "onnx_fp32", [tokenizer.encode(*texts(folder)[0])])
    np.testing.assert_allclose(softmax(logits, axis=1), probabilities, atol=1e-6)
    assert (logits.shape, latents.shape[0]) == ((1, 4), 1)


def test_the_scorer_needs_no_library_of_training(exported: Path) -> None:
    block = "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'datasets', 'onnx', 'scipy'])"
    script = f"{block}\nimport manylens; print(manylens.Scorer.load({str(exported)!r}).score([('red shoe', 'hat')])[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    with Scorer.load(exported) as scorer:
        assert float(done.stdout) == pytest.approx(scorer.score([("red shoe", "hat")])[0], abs=1e-5)
