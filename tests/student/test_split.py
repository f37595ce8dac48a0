from __future__ import annotations

from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from transformers import CamembertConfig, PreTrainedConfig, RobertaConfig, TrainingArguments

from manylens.errors import ConfigError
from manylens.records import ESCI
from manylens.serving import graphs
from manylens.student import LatentReasoningForSequenceClassification
from manylens.student.cpu import ATTENTION, train_on_cpu
from manylens.student.encoding import PairEncoder
from manylens.student.split import LowerProduct, LowerQuery, Upper, check_split
from manylens.student.train import train_student
from manylens.student.vocabulary import compact, expand

from .build import _LAYERS, _SIZES, BACKBONES, TEMPLATE, make_config, make_model, make_pair, make_pairs, make_tokenizer

KINDS: dict[str, PreTrainedConfig] = {
    **{kind: BACKBONES[kind] for kind in ("bert", "electra", "xlm-roberta")},
    "roberta": RobertaConfig(**_SIZES, **_LAYERS, type_vocab_size=1),
    "camembert": CamembertConfig(**_SIZES, **_LAYERS, type_vocab_size=1),
}
LAYERS = 3
PAIRS = [
    make_pair("red shoe", "blue shoe | acme size : 10"),
    make_pair("hat", "sofa cup lamp red green " * 4),
    make_pair("red green blue shoe size 10 ? a b c", "x"),
]


def split_model(
    kind: str = "bert", split_layers: int = 2, **options: object
) -> LatentReasoningForSequenceClassification:
    """Return a student of three layers on a tiny backbone; its positions are drawn far apart, so that they matter."""
    config = deepcopy(KINDS[kind])
    config.num_hidden_layers = LAYERS
    model = make_model(backbone_config=config.to_dict(), split_layers=split_layers, **options)
    with torch.no_grad():
        for name in ("position_embeddings", "token_type_embeddings"):
            nn.init.normal_(getattr(model.backbone.embeddings, name).weight)
    return model


def encoder_of(kind: str, product_length: int | None = 12) -> PairEncoder:
    types = kind in ("bert", "electra")
    tokenizer = make_tokenizer(token_types=types, double_separator=kind == "xlm-roberta")
    return PairEncoder(tokenizer, TEMPLATE, 16, product_length)


def batch_of(encoder: PairEncoder, columns: dict[str, list[list[int]]]) -> dict[str, Tensor]:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return dict(encoder.pad(rows))


def halves(model: LatentReasoningForSequenceClassification, encoder: PairEncoder) -> tuple[Tensor, ...]:
    """Return what serving computes of the pairs: the lower part of each side alone, then the upper part."""
    queries = batch_of(encoder, encoder.encode_queries([pair.query for pair in PAIRS]))
    products = batch_of(encoder, encoder.encode_products([pair.title for pair in PAIRS]))
    sides = (queries["input_ids"], queries["attention_mask"]), (products["input_ids"], products["attention_mask"])
    states = [lower(model).eval()(*side) for lower, side in zip((LowerQuery, LowerProduct), sides, strict=True)]
    return Upper(model).eval()(states[0], sides[0][1], states[1], sides[1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_serving_give_the_same_logits(kind: str) -> None:
    for layers, pooling in ((1, "cls"), (2, "mean")):
        model, encoder = split_model(kind, layers, pooling=pooling), encoder_of(kind)
        whole = model(**batch_of(encoder, encoder.encode(PAIRS)))
        logits, probabilities, latents = halves(model, encoder)
        torch.testing.assert_close(logits, whole.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(latents, whole.latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probabilities, whole.logits.softmax(dim=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("extractor", "options"),
    [(None, {}), ("mlp", {}), ("gat", {"heads": 2}), ("gat", {"heads": 2, "edges": "window", "window": 2})],
)
def test_every_extractor_sees_the_same_tokens(extractor: str | None, options: dict[str, Any]) -> None:
    model, encoder = split_model(extractor=extractor, extractor_options=options), encoder_of("bert")
    whole = model(**batch_of(encoder, encoder.encode(PAIRS)))
    logits, _, *latents = halves(model, encoder)
    torch.testing.assert_close(logits, whole.logits, rtol=1e-4, atol=1e-5)
    assert len(latents) == (extractor is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_lower_states_are_the_backbones_own_over_one_segment(kind: str) -> None:
    model, encoder = split_model(kind), encoder_of(kind)
    queries = batch_of(encoder, encoder.encode_queries([PAIRS[2].query]))
    (ids, mask), hidden = (queries["input_ids"], queries["attention_mask"]), model.backbone
    expected = hidden(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(LowerQuery(model)(ids, mask), expected)

    products = batch_of(encoder, encoder.encode_products([PAIRS[0].title]))
    ids, mask = products["input_ids"], products["attention_mask"]
    # A backbone that keeps its first positions for the padding (0 in the tiny ones) counts from 1.
    first = 1 if kind in ("roberta", "camembert", "xlm-roberta") else 0
    places = torch.arange(ids.shape[1])[None] + 1 + first
    types = torch.ones_like(ids) if model.backbone.config.type_vocab_size > 1 else torch.zeros_like(ids)
    expected = hidden(
        input_ids=ids, attention_mask=mask, position_ids=places, token_type_ids=types, output_hidden_states=True
    ).hidden_states[2]
    torch.testing.assert_close(LowerProduct(model)(ids, mask), expected)


def test_query_and_product_meet_in_the_upper_layers_only() -> None:
    model, encoder = split_model(), encoder_of("bert")
    seen: dict[int, Tensor] = {}
    for number, layer in enumerate(model.backbone.encoder.layer):
        layer.register_forward_hook(lambda module, inputs, output, number=number: seen.update({number: output}))

    def states(query: str, title: str) -> dict[int, Tensor]:
        ids = encoder.encode([make_pair(query, title)])["input_ids"]
        model(torch.tensor(ids))
        return {number: output[0, len(query.split()) + 2 :] for number, output in seen.items()}

    one, other = states("red shoe", "blue hat cup"), states("green sofa lamp a", "blue hat cup")
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1])
    assert (one[2] - other[2]).abs().max() > 1e-3


def test_no_layer_split_is_the_backbone_itself() -> None:
    model, encoder = split_model(split_layers=0), encoder_of("bert", None)
    batch = batch_of(encoder, encoder.encode(PAIRS))
    states = model.backbone(**batch).last_hidden_state
    torch.testing.assert_close(model(**batch).pooled, states[:, 0])


@pytest.mark.parametrize("attention", ["eager", "sdpa", ATTENTION, graphs.ATTENTION])
def test_attentions_agree_and_padding_changes_nothing(attention: str) -> None:
    model, encoder = split_model(), encoder_of("bert")
    rows = [encoder.encode([pair])["input_ids"] for pair in PAIRS]
    expected = torch.cat([model(torch.tensor(row)).logits for row in rows])
    model.backbone.set_attn_implementation(attention)
    whole = model(**batch_of(encoder, encoder.encode(PAIRS)))
    torch.testing.assert_close(whole.logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(halves(model, encoder)[0], expected, rtol=1e-4, atol=1e-5)


def test_what_trains_faster_changes_no_gradient() -> None:
    encoder = encoder_of("bert")
    batch = batch_of(encoder, encoder.encode(PAIRS)) | {"labels": torch.tensor([0, 1, 2])}

    def gradient(model: LatentReasoningForSequenceClassification) -> Tensor:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.train()(**batch).loss.backward()
        return model.backbone.encoder.layer[0].attention.self.query.weight.grad

    model = split_model()
    expected = gradient(model)
    assert expected.abs().max() > 0
    fast = split_model()
    train_on_cpu(fast.backbone)
    fast.gradient_checkpointing_enable()
    torch.testing.assert_close(gradient(fast), expected, rtol=1e-3, atol=1e-6)


def test_half_precision_stays_finite() -> None:
    encoder = encoder_of("bert")
    batch = batch_of(encoder, encoder.encode(PAIRS))
    for attention in ("eager", "sdpa", ATTENTION):
        model = split_model()
        model.backbone.set_attn_implementation(attention)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.isfinite(model(**batch).logits).all()


def test_a_trained_student_is_split_and_takes_a_compact_vocabulary(backbone: str, tmp_path: Path) -> None:
    config = make_config(backbone, split_layers=1)
    pairs = make_pairs(24)
    train_student(pairs, pairs[:8], ESCI, config, method="bert", seed=1, folder=tmp_path / "student")
    model = LatentReasoningForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    encoder = PairEncoder.load(tmp_path / "student")
    assert (model.config.split_layers, encoder.product_length, encoder.max_length) == (1, 12, 24)
    whole = model(**batch_of(encoder, encoder.encode(PAIRS)))
    torch.testing.assert_close(halves(model, encoder)[0], whole.logits, rtol=1e-4, atol=1e-5)
    ids = np.unique([token for row in encoder.encode(PAIRS)["input_ids"] for token in row])
    compact(model.backbone, ids, TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    torch.testing.assert_close(model(**batch_of(encoder, encoder.encode(PAIRS))).logits, whole.logits)
    expand(model.backbone)


def test_the_parts_export_as_graphs(tmp_path: Path) -> None:
    model, encoder = split_model(extractor="gat", extractor_options={"heads": 2}), encoder_of("bert")
    expected = [output.detach().numpy() for output in halves(model, encoder)]
    queries = batch_of(encoder, encoder.encode_queries([pair.query for pair in PAIRS]))
    products = batch_of(encoder, encoder.encode_products([pair.title for pair in PAIRS]))
    product_inputs = products["input_ids"], products["attention_mask"]
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}

    lower = _export(LowerProduct(model), product_inputs, (axes, axes), tmp_path / "product.onnx")
    (states,) = _run(lower, *product_inputs)
    # Another shape than the one it was exported with.
    (alone,) = _run(lower, *(tensor[:1, :8] for tensor in product_inputs))
    np.testing.assert_allclose(alone, states[:1, :8], atol=1e-5)

    ids, mask = queries["input_ids"], queries["attention_mask"]
    inputs = LowerQuery(model)(ids, mask).detach(), mask, torch.from_numpy(states), product_inputs[1]
    upper = _export(Upper(model), inputs, (axes,) * 4, tmp_path / "upper.onnx")
    found = _run(upper, *inputs)
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(_run(upper, *(tensor[1:2] for tensor in inputs))[0], found[0][1:2], atol=1e-5)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[Any, ...], path: Path) -> ort.InferenceSession:
    torch.onnx.export(module.eval(), inputs, path, dynamo=True, dynamic_shapes=axes, verbose=False)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, *inputs: Tensor) -> list[Any]:
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, (each.numpy() for each in inputs), strict=True))))


def test_the_temperature_divides_the_logits() -> None:
    model = split_model()
    masks = (torch.ones(2, length, dtype=torch.int64) for length in (4, 3))
    tensors = torch.randn(2, 4, 32), next(masks), torch.randn(2, 3, 32), next(masks)
    (plain, *_), (cooled, probabilities, _) = Upper(model)(*tensors), Upper(model, temperature=2.0)(*tensors)
    torch.testing.assert_close(cooled, plain / 2)
    torch.testing.assert_close(probabilities, (plain / 2).softmax(dim=-1))


def test_a_product_is_cut_whatever_the_query() -> None:
    for double, length in product((False, True), (3, 4)):
        tokenizer = make_tokenizer(double_separator=double)
        encoder = PairEncoder(tokenizer, TEMPLATE, 9, length)
        title = "red blue green shoe hat"
        (alone,) = encoder.encode_products([title])["input_ids"]
        assert len(alone) == length
        for query in ("red", "red shoe", "a b c d e f g h i j k"):
            encoded = encoder.encode([make_pair(query, title)])
            (ids,) = encoded["input_ids"]
            (query_ids,) = encoder.encode_queries([query])["input_ids"]
            assert ids == [*query_ids, *alone] and len(query_ids) <= 9
            assert {len(column[0]) for column in encoded.values()} == {len(ids)}
            if len(query.split()) < 3:
                assert ids == tokenizer(query, title, truncation="only_second", max_length=len(ids))["input_ids"]


def test_a_pair_that_fits_is_encoded_as_without_a_split() -> None:
    for double in (False, True):
        tokenizer = make_tokenizer(double_separator=double)
        split, plain = PairEncoder(tokenizer, TEMPLATE, 40, 30), PairEncoder(tokenizer, TEMPLATE, 40)
        assert split.encode(PAIRS) == plain.encode(PAIRS)


@pytest.mark.parametrize(
    ("config", "layers", "message"),
    [
        (BACKBONES["distilbert"], 1, "for backbones of the types bert, camembert, electra, .* got 'distilbert'"),
        (BACKBONES["modernbert"], 1, "got 'modernbert'; leave it out, or take another"),
        (BACKBONES["bert"], 2, "must lie below the backbone's 2 layers, got 2; in the last layers"),
        (BACKBONES["bert"], -1, "must lie below the backbone's 2 layers, got -1"),
    ],
)
def test_what_cannot_be_split_is_refused(config: PreTrainedConfig, layers: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_split(config, layers)
    with pytest.raises(ConfigError, match=message):
        make_model(backbone_config=config.to_dict(), split_layers=layers)
    check_split(config, 0)


def test_an_attention_without_such_masks_is_refused() -> None:
    config = deepcopy(BACKBONES["bert"])
    config._attn_implementation = "flash_attention_2"
    with pytest.raises(ConfigError, match=r"needs one of the attentions eager, sdpa, manylens_cpu, got 'flash_att"):
        check_split(config, 1)
