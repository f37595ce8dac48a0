from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sentence_transformers import CrossEncoder
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForSequenceClassification, pipeline

from manylens.errors import ConfigError, StudentError
from manylens.records import ESCI
from manylens.student import LatentReasoningConfig, LatentReasoningForSequenceClassification, Student
from manylens.student.encoding import PairEncoder
from manylens.student.pretrained import resolve_pretrained

from .build import BACKBONES, CLS, DIM, PAD, SEP, make_model, make_pair, save_backbone

IDS = torch.tensor([[CLS, 5, 6, SEP, 7, 8, SEP], [CLS, 9, SEP, 10, SEP, PAD, PAD]])
MASK = (IDS != PAD).long()
TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]])
BATCH = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
EXTRACTORS: list[tuple[str | None, dict[str, Any]]] = [
    (None, {}),
    ("mlp", {}),
    ("poly", {"codes": 3}),
    ("gat", {"heads": 2}),
]
PAIRS = [
    make_pair("red shoe", "blue shoe", brand="acme"),
    make_pair("hat", "sofa cup lamp red green"),
    make_pair("?", "x"),
    make_pair("red hat", "sofa cup " * 10),
]


@pytest.mark.parametrize(("extractor", "options"), EXTRACTORS)
def test_logits_are_a_linear_map_of_cls_and_latents(extractor: str | None, options: dict[str, Any]) -> None:
    model = make_model(extractor=extractor, extractor_options=options, latent_names=("a", "b"))
    outputs = model(**BATCH)
    states = model.backbone(**BATCH).last_hidden_state
    features = states[:, 0]
    if model.extractor is None:
        assert outputs.latents is None
    else:
        segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]])
        latents = model.extractor(states, MASK.bool(), segments)
        assert latents.shape == (2, 2, DIM)
        torch.testing.assert_close(outputs.latents, latents)
        features = torch.cat([features, latents[:, 0], latents[:, 1]], dim=1)
    weight, bias = model.classifier.weight, model.classifier.bias
    torch.testing.assert_close(outputs.logits, features @ weight.T + bias)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 4.0]])
def test_loss_by_hand(weights: list[float] | None) -> None:
    model = make_model(guide_weight=0.3, class_weights=weights)
    labels = torch.tensor([1, 3])
    targets = torch.arange(2.0 * DIM).reshape(2, 1, DIM)
    outputs = model(**BATCH, labels=labels, rationale_embedding=targets)
    log_p = np.log(softmax(outputs.logits.detach().numpy().astype(float), axis=1))
    w = np.array(weights or [1.0] * 4)
    class_loss = -(w[1] * log_p[0, 1] + w[3] * log_p[1, 3]) / (w[1] + w[3])
    guide_loss = (outputs.latents - targets).detach().numpy()[:, 0].astype(float)
    guide_loss = (guide_loss**2).sum(axis=1).mean()
    assert outputs.class_loss.item() == pytest.approx(class_loss, rel=1e-5)
    assert outputs.guide_loss.item() == pytest.approx(guide_loss, rel=1e-5)
    assert outputs.loss.item() == pytest.approx(class_loss + 0.3 * guide_loss, rel=1e-5)


def test_pairs_without_a_rationale_are_masked_not_dropped() -> None:
    model, labels = make_model(guide_weight=1.0), torch.tensor([0, 2])
    targets = torch.stack([torch.ones(1, DIM), torch.full((1, DIM), 1e6)])
    masked = model(**BATCH, labels=labels, rationale_embedding=targets, rationale_mask=torch.tensor([[True], [False]]))
    first = model(**{key: value[:1] for key, value in BATCH.items()}, rationale_embedding=targets[:1])
    assert masked.guide_loss.item() == pytest.approx(first.guide_loss.item(), rel=1e-5)
    assert masked.class_loss.item() == pytest.approx(cross_entropy(masked.logits, labels).item())


def test_one_perspective_may_lack_its_rationale() -> None:
    model = make_model(latent_names=("intent", "rules"))
    targets, mask = torch.zeros(2, 2, DIM), torch.tensor([[True, False], [True, True]])
    outputs = model(**BATCH, rationale_embedding=targets, rationale_mask=mask)
    squares = outputs.latents.square().sum(-1)
    assert outputs.guide_loss.item() == pytest.approx(((squares[0, 0] + squares[1, 0] + squares[1, 1]) / 3).item())


def test_unlabelled_pairs_only_feel_the_guide() -> None:
    model = make_model(guide_weight=2.0)
    targets = torch.zeros(2, DIM)
    outputs = model(**BATCH, labels=torch.tensor([-100, -100]), rationale_embedding=targets)
    assert outputs.class_loss.item() == 0.0
    assert outputs.loss.item() == pytest.approx(2.0 * outputs.guide_loss.item())
    outputs.loss.backward()
    assert model.extractor.to_latents.weight.grad.any()
    assert not model.classifier.weight.grad.any()
    partly = model(**BATCH, labels=torch.tensor([-100, 3]))
    assert partly.loss.item() == pytest.approx(cross_entropy(partly.logits[1:], torch.tensor([3])).item())


def test_a_latent_of_another_shape_than_its_target_is_refused() -> None:
    with pytest.raises(StudentError, match=r"must have the latents' shape \(2, 1, 5\), got \(2, 1, 6\); embed"):
        make_model()(**BATCH, rationale_embedding=torch.zeros(2, DIM + 1))


@pytest.mark.parametrize(("extractor", "options"), EXTRACTORS)
def test_padding_changes_no_logit(extractor: str | None, options: dict[str, Any]) -> None:
    model = make_model(extractor=extractor, extractor_options=options)
    alone = model(input_ids=IDS[1:, :5], token_type_ids=TYPES[1:, :5])
    torch.testing.assert_close(model(**BATCH).logits[1:], alone.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("extractor", "options"), EXTRACTORS)
def test_saving_and_loading_keeps_every_bit(extractor: str | None, options: dict[str, Any], tmp_path: Path) -> None:
    model = make_model(extractor=extractor, extractor_options=options, class_weights=[1.0, 0.0, 2.0, 1.5])
    model.save_pretrained(tmp_path)
    loaded = LatentReasoningForSequenceClassification.from_pretrained(tmp_path)
    own = ("extractor", "extractor_options", "latent_dim", "latent_names", "gains", "class_weights", "dropout")
    own += ("guide_loss", "guide_weight", "guide_temperature", "head_reads_latents", "separator_token_id", "labels")
    assert {name: getattr(loaded.config, name) for name in own} == {name: getattr(model.config, name) for name in own}
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(model(**BATCH).logits, loaded.eval()(**BATCH).logits)


def test_a_student_saved_in_half_precision_stays_in_it(tmp_path: Path) -> None:
    make_model(extractor="gat").bfloat16().save_pretrained(tmp_path)
    loaded = LatentReasoningForSequenceClassification.from_pretrained(tmp_path).eval()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert torch.isfinite(loaded(**BATCH).logits).all()


def test_configuration_survives_its_dictionary() -> None:
    config = make_model(extractor="gat", extractor_options={"heads": 2}, latent_names=("a", "b")).config
    assert LatentReasoningConfig(**config.to_dict()).to_dict() == config.to_dict()


def test_auto_model_pipeline_and_cross_encoder_agree_with_our_own_model(student_folder: Path) -> None:
    student = Student.load(student_folder, device="cpu")
    expected = student.logits(PAIRS)
    texts = [(pair.query, student.encoder.template.render(pair)) for pair in PAIRS]

    auto = AutoModelForSequenceClassification.from_pretrained(student_folder).eval()
    batch = student.encoder.pad(
        [{key: values[row] for key, values in student.encoder.encode(PAIRS).items()} for row in range(len(PAIRS))]
    )
    with torch.inference_mode():
        np.testing.assert_allclose(auto(**batch).logits.numpy(), expected, rtol=1e-5, atol=1e-6)

    classify = pipeline("text-classification", model=str(student_folder), device="cpu")
    inputs = [{"text": query, "text_pair": product} for query, product in texts]
    answers = classify(inputs, top_k=None, function_to_apply="none", truncation="only_second")
    by_name = [{answer["label"]: answer["score"] for answer in row} for row in answers]
    logits = [[row[label] for label in ESCI.names] for row in by_name]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)

    cross_encoder = CrossEncoder(str(student_folder), device="cpu")
    np.testing.assert_allclose(cross_encoder.predict(texts), expected, rtol=1e-5, atol=1e-6)

    probabilities = [list(prediction.probabilities.values()) for prediction in student.predict(PAIRS)]
    np.testing.assert_allclose(probabilities, softmax(expected.astype(float), axis=1), rtol=1e-6)
    np.testing.assert_allclose(cross_encoder.predict(texts, apply_softmax=True), probabilities, rtol=1e-4)


@pytest.mark.parametrize("kind", BACKBONES)
def test_backbones_keep_their_weights_and_go_through_a_folder(kind: str, tmp_path: Path) -> None:
    source = save_backbone(tmp_path / "backbone", kind)
    encoder = PairEncoder.from_backbone(source, "{{ title }}", 16)
    model = LatentReasoningForSequenceClassification.from_backbone(source, ESCI, SEP, latent_dim=DIM).eval()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]
    model.save_pretrained(tmp_path / "student")
    encoder.save(tmp_path / "student")

    student = Student.load(tmp_path / "student", device="cpu")
    pairs = [make_pair(), make_pair("hat", "sofa cup lamp lamp lamp")]
    np.testing.assert_allclose(student.logits(pairs), Student(model, encoder).logits(pairs), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(student.logits(pairs[:1]), student.logits(pairs)[:1], rtol=1e-4, atol=1e-5)
    original = AutoModel.from_pretrained(source).eval()
    ids = torch.tensor(encoder.encode(pairs[:1])["input_ids"])
    torch.testing.assert_close(
        model.backbone(input_ids=ids).last_hidden_state, original(input_ids=ids).last_hidden_state
    )


def test_a_backbone_in_half_precision_is_trained_in_full_precision(tmp_path: Path) -> None:
    source = save_backbone(tmp_path, dtype=torch.bfloat16)
    model = LatentReasoningForSequenceClassification.from_backbone(source, ESCI, SEP, latent_dim=DIM)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(model(**BATCH).logits).all()


def test_embedded_minilm_gives_its_own_token_states() -> None:
    source = resolve_pretrained("minilm")
    encoder = PairEncoder.from_backbone(source, "{{ title }}", 32)
    model = LatentReasoningForSequenceClassification.from_backbone(source, ESCI, encoder.tokenizer.sep_token_id).eval()
    batch = encoder.pad([{key: values[0] for key, values in encoder.encode([make_pair()]).items()}])
    reference = AutoModel.from_pretrained(source).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model.backbone(**batch).last_hidden_state, reference(**batch).last_hidden_state)
        assert model(**batch).latents.shape == (1, 1, 384)


def test_backbone_options_are_for_the_backbone(backbone: str) -> None:
    options = {"num_hidden_layers": 1, "attn_implementation": "eager"}
    model = LatentReasoningForSequenceClassification.from_backbone(backbone, ESCI, SEP, backbone_options=options)
    whole = LatentReasoningForSequenceClassification.from_backbone(backbone, ESCI, SEP)
    assert (len(model.backbone.encoder.layer), len(whole.backbone.encoder.layer)) == (1, 2)
    assert model.backbone.config._attn_implementation == "eager" != whole.backbone.config._attn_implementation
    first = "encoder.layer.0.output.dense.weight"
    assert torch.equal(model.backbone.state_dict()[first], whole.backbone.state_dict()[first])
    with pytest.raises(ConfigError, match=r"student\.backbone_options do not fit .*'layrs'"):
        LatentReasoningForSequenceClassification.from_backbone(backbone, ESCI, SEP, backbone_options={"layrs": 1})


def test_a_head_that_does_not_read_the_latents_is_a_map_of_cls_alone() -> None:
    model = make_model(head_reads_latents=False)
    outputs = model(**BATCH)
    states = model.backbone(**BATCH).last_hidden_state
    assert outputs.latents.shape == (2, 1, DIM)
    torch.testing.assert_close(outputs.logits, model.classifier(states[:, 0]))


def test_the_state_of_cls_is_given_with_and_without_an_extractor() -> None:
    for model in (make_model(), make_model(extractor=None)):
        states = model.backbone(**BATCH).last_hidden_state
        torch.testing.assert_close(model(**BATCH).pooled, states[:, 0])


def test_a_head_on_the_mean_reads_the_real_tokens_alone() -> None:
    model = make_model(extractor=None, pooling="mean")
    states, mask = model.backbone(**BATCH).last_hidden_state, MASK.bool()
    mean = torch.stack([row[real].mean(dim=0) for row, real in zip(states, mask, strict=True)])
    torch.testing.assert_close(model(**BATCH).pooled, mean)
    torch.testing.assert_close(model(**BATCH).logits, mean @ model.classifier.weight.T + model.classifier.bias)


def test_the_models_own_loss_knows_the_contrastive_guide() -> None:
    model = make_model(guide_loss="info_nce", guide_temperature=0.5, guide_weight=2.0)
    targets = torch.randn(2, DIM)
    outputs = model(**BATCH, rationale_embedding=targets)
    cosines = torch.nn.functional.cosine_similarity(outputs.latents, targets[None], dim=-1)
    assert outputs.guide_loss.item() == pytest.approx(cross_entropy(cosines / 0.5, torch.arange(2)).item(), rel=1e-5)
    assert outputs.loss.item() == pytest.approx(2 * outputs.guide_loss.item())


def test_a_missing_backbone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"student\.backbone '.*nowhere' cannot be loaded"):
        LatentReasoningForSequenceClassification.from_backbone(str(tmp_path / "nowhere"), ESCI, SEP)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([CLS, 5, 6, SEP, 7, SEP, PAD], [0, 0, 0, 0, 1, 1, 1]),
        ([CLS, 5, SEP, SEP, 7, 8, SEP], [0, 0, 0, 1, 1, 1, 1]),  # XLM-R: two separators between the texts
        ([CLS, SEP, 7, SEP, PAD, PAD, PAD], [0, 0, 1, 1, 1, 1, 1]),  # an empty query
        ([CLS, 5, 6, 7, 8, 9, 10], [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_segments_are_found_from_the_separator(ids: list[int], expected: list[int]) -> None:
    assert make_model().segments(torch.tensor([ids])).tolist() == [expected]


@pytest.mark.parametrize(("extractor", "options"), EXTRACTORS)
def test_bf16_autocast_is_finite_and_close(extractor: str | None, options: dict[str, Any]) -> None:
    model = make_model(extractor=extractor, extractor_options=options)
    labels = torch.tensor([0, 1])
    targets = {} if extractor is None else {"rationale_embedding": torch.ones(2, DIM)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**BATCH, labels=labels, **targets)
    outputs.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(outputs.logits.float(), model(**BATCH).logits, rtol=0.05, atol=0.05)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_model(
            backbone_config={
                **BACKBONES["bert"].to_dict(),
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            dropout=0.0,
        )
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        model(**BATCH, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append(model.backbone.embeddings.word_embeddings.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
