"""Exporting a student, or any classifier, to the folder that `manylens.serving.layout` describes."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from manylens.config import ExportConfig
from manylens.data import Pairs
from manylens.errors import StudentError
from manylens.files import write_json
from manylens.records import LabelScale, Pair
from manylens.serving.graphs import Heads, cut, trace, trace_parts
from manylens.serving.intermediate import quantise_openvino, save_openvino, to_openvino
from manylens.serving.layout import CLASSES, PARITY, PARTS, RANKING, VARIANTS, Card, part_file
from manylens.serving.parity import Parity, measure
from manylens.serving.precompute import lower_fingerprint
from manylens.serving.quantise import Batch, quantise_onnx
from manylens.serving.rationales import RATIONALES
from manylens.serving.split import open_split
from manylens.student.encoding import PairEncoder
from manylens.student.model import LatentReasoningForSequenceClassification
from manylens.student.predict import Student
from manylens.text import well_formed

_PACKAGES = ("manylens", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")
#: What the lower parts read.
_SEGMENT = ("input_ids", "attention_mask")


def export_student(
    student: Student,
    train: Pairs,
    dev: Pairs,
    scale: LabelScale,
    options: ExportConfig,
    *,
    name: str,
    temperature: float,
    ndcg_cutoff: int,
    seed: int,
    folder: Path,
) -> Parity:
    """Export a student, and let it pass the parity gate.

    The two heads appear in `folder` only when the gate is passed, and ``parity.json`` last.

    Args:
        student: The student; it is moved to the CPU.
        train: int8 is calibrated on a sample of these.
        dev: The gate compares on these.
        scale: The label scale.
        options: What is exported.
        name: The student's name.
        temperature: What its logits are divided by.
        ndcg_cutoff: Ranks that nDCG looks at.
        seed: Of the sample.
        folder: The export folder; what an earlier export left there is removed first.

    Returns:
        The gate's figures.

    Raises:
        StudentError: If a variant exceeds a tolerance; ``parity.json`` then has the figures, and there are no heads.
        MissingExtraError: If a library is not installed.
    """
    # The class head first, because its folder stands for the whole export; no rationales of an earlier one stay.
    for part in (CLASSES, RANKING, RATIONALES):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / PARITY).unlink(missing_ok=True)
    nn.Module.to(student.model, "cpu")
    card = Card(
        labels=student.labels,
        gains=tuple(student.gains.tolist()),
        temperature=temperature,
        model=name,
    )
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # A killed export left it.
    try:
        export_classifier(
            student.model,
            student.encoder,
            card,
            config=student.model.config.backbone_config,
            calibration=_sample(train, options.calibration_pairs, seed),
            options=options,
            folder=unfinished,
        )
        heads = Heads.of(student.model, card)
        parity = measure(heads, student.encoder, unfinished, dev, scale, options, ndcg_cutoff=ndcg_cutoff)
        if not parity.problems:
            for head in (RANKING, CLASSES):
                os.replace(unfinished / head, folder / head)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    write_json(folder / PARITY, asdict(parity))
    if parity.problems:
        raise StudentError(
            f"the export of {name} is too far from PyTorch on {parity.pairs} dev pairs: {'; '.join(parity.problems)}. "
            f"All figures are in {folder / PARITY}. Allow more in export.fp32 or export.low_precision, or leave a "
            "variant other than onnx_fp32 out of export.variants"
        )
    return parity


def export_classifier(
    classifier: nn.Module,
    encoder: PairEncoder,
    card: Card,
    *,
    config: PreTrainedConfig,
    calibration: Sequence[Pair] = (),
    options: ExportConfig,
    folder: Path,
) -> None:
    """Write ``classes`` and ``ranking`` of any classifier, in every variant that is asked for.

    A student with split layers also gets its three parts, in those of ONNX.

    Args:
        classifier: Takes token ids and returns an output with ``logits`` of shape (batch, classes), and ``latents``
            where it has them; such as transformers' `BertForSequenceClassification`, on the CPU.
        encoder: Its tokenizer and template.
        card: Labels, gains, temperature and the classifier's name; the rest is filled in.
        config: The configuration of its encoder, which other servers read.
        calibration: Pairs that int8 is calibrated on.
        options: What is exported.
        folder: Where the two folders go; made where it does not exist.

    Raises:
        StudentError: If int8 is asked for without pairs, or transformers has no classifier on such an encoder.
        MissingExtraError: If a library is not installed.
    """
    architecture = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type)
    if architecture is None:
        raise StudentError(
            f"transformers has no classifier on a backbone of the type {config.model_type!r}, "
            "so that nothing would load its export"
        )
    known = ("input_ids", "attention_mask", "token_type_ids")
    card = replace(
        card,
        gain_scale=max(1.0, *card.gains),
        inputs=tuple(name for name in known if name in encoder.tokenizer.model_input_names),
        max_length=encoder.max_length,
        product_template=encoder.template.source,
        versions=_versions(),
        variants=tuple(VARIANTS[name] for name in options.variants),
    )
    split = classifier if isinstance(classifier, LatentReasoningForSequenceClassification) else None
    if split is not None and split.config.split_layers:
        card = replace(
            card,
            split_layers=split.config.split_layers,
            product_length=encoder.product_length,
            lower_fingerprint=lower_fingerprint(Student(split, encoder)),
        )
    folder.mkdir(parents=True, exist_ok=True)
    batches = _batches(encoder, calibration, card.inputs)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        uncut = Path(temporary) / "fp32.onnx"
        trace(Heads.of(classifier, card), card.inputs, uncut, opset=options.opset)
        for variant in options.variants:
            _write_graphs(variant, uncut, batches, folder)
    for head, labels in ((CLASSES, card.labels), (RANKING, ("relevance",))):
        encoder.save(folder / head)
        # transformers no longer writes it, and others still ask for it.
        write_json(folder / head / "special_tokens_map.json", encoder.tokenizer.special_tokens_map)
        values = config.to_diff_dict() | {
            "architectures": [architecture],
            "model_type": config.model_type,
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "pad_token_id": encoder.tokenizer.pad_token_id,
        }
        write_json(folder / head / "config.json", values)
        card.save(folder / head)
    if split is not None and card.split_layers:
        _write_parts(split, encoder, card, calibration, options, folder / CLASSES)


def _write_graphs(variant: str, uncut: Path, batches: Sequence[Batch], folder: Path) -> None:
    """Write both heads of one variant."""
    places = {head: folder / head / VARIANTS[variant] for head in (CLASSES, RANKING)}
    if variant.startswith("onnx"):
        source = uncut
        if variant == "onnx_int8":
            source = uncut.with_name("int8.onnx")
            quantise_onnx(uncut, batches, source)
        for head, place in places.items():
            cut(source, head, place)
    else:
        model = quantise_openvino(uncut, batches) if variant == "openvino_int8" else to_openvino(uncut)
        for head, place in places.items():
            save_openvino(model, head, place)


def _write_parts(
    student: LatentReasoningForSequenceClassification,
    encoder: PairEncoder,
    card: Card,
    calibration: Sequence[Pair],
    options: ExportConfig,
    folder: Path,
) -> None:
    """Write the parts of a split student into the folder of the class head, which has its card and tokenizer."""
    plain = {part: folder / part_file(part, "onnx_fp32") for part in PARTS}
    trace_parts(student, card.temperature, list(plain.values()), opset=options.opset)
    if "onnx_int8" not in options.variants:
        return
    queries = encoder.encode_queries([well_formed(pair.query) for pair in calibration])
    products = encoder.encode_products([well_formed(encoder.template.render(pair)) for pair in calibration])
    _, reader = open_split(folder, "onnx_fp32", threads=1)
    encoded = reader.encode(calibration)
    batches: dict[str, list[Batch]] = {
        "lower_query": _rows(queries, _SEGMENT),
        "lower_product": _rows(products, _SEGMENT),
        "upper": [reader.batch(encoded, [row], 0) for row in range(len(calibration))],
    }
    for part, source in plain.items():
        quantise_onnx(source, batches[part], folder / part_file(part, "onnx_int8"))


def _batches(encoder: PairEncoder, pairs: Sequence[Pair], inputs: Sequence[str]) -> list[Batch]:
    """Return the inputs of one pair at a time, which needs no padding."""
    return _rows(encoder.encode(pairs), inputs) if pairs else []


def _rows(encoded: Mapping[str, list[list[int]]], inputs: Sequence[str]) -> list[Batch]:
    """Return a batch of one row for each row of token columns."""
    columns = zip(*(encoded[name] for name in inputs), strict=True)
    return [{name: np.array([ids]) for name, ids in zip(inputs, row, strict=True)} for row in columns]


def _sample(pairs: Pairs, count: int, seed: int) -> list[Pair]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:count])
    return list(Pairs(pairs.table.take(rows)))


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
