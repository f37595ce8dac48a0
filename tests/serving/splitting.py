"""A split student, and the products that its store has."""

from __future__ import annotations

import torch
from torch import nn

from manylens.student import Student
from manylens.student.encoding import PairEncoder
from student.build import TEMPLATE, WORDS, make_model, make_pair, make_tokenizer

TITLES = {
    f"p{number}": " ".join(WORDS[(number + place) % 9] for place in range(1 + number % 17)) for number in range(40)
}
QUERIES = ["red", "blue shoe", "hat ? 10", " ".join(WORDS[:9] * 3)]
#: Products that are stored, some of them cut, with every query; the last is cut too.
PAIRS = [make_pair(query, title, product_id=name) for name, title in TITLES.items() for query in QUERIES]
#: Those of its export.
SPLIT_VARIANTS = ("onnx_fp32", "onnx_int8")


def make_student(seed: int = 0) -> Student:
    """Return a split student whose positions matter, and whose classes depend on the pair."""
    model = make_model(seed, split_layers=1, extractor="poly", extractor_options={"codes": 3})
    with torch.no_grad():
        for name in ("position_embeddings", "token_type_embeddings"):
            nn.init.normal_(getattr(model.backbone.embeddings, name).weight)
        model.classifier.weight.mul_(12)
    student = Student(model, PairEncoder(make_tokenizer(), TEMPLATE, 24, 12))
    with torch.no_grad():
        model.classifier.bias -= torch.from_numpy(student.logits(PAIRS).mean(axis=0))
    return student
