"""The one model that every system computes: MiniLM's encoder and a steep, random head."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.serving.workload import TextPair
from torch import nn
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

from manylens.records import ESCI
from manylens.student.pretrained import resolve_pretrained

#: The spread of each logit over the pairs: steep, so that what a system rounds away moves labels.
SPREAD = 3.0
_SEED = 13


@dataclass(frozen=True, kw_only=True)
class Master:
    """Two plain Hugging Face folders with the same encoder.

    Attributes:
        labels: With a logit for each label of the ESCI scale.
        one: With the first of them alone, less the mean of all four, for systems that take one logit.
    """

    labels: Path
    one: Path


@torch.inference_mode()
def make_master(folder: Path, pairs: Sequence[TextPair], backbone: str = "minilm") -> Master:
    """Save the master, unless it is there.

    The head's directions are random; each logit is then shifted and scaled to a mean of 0 and a standard deviation
    of `SPREAD` over `pairs`, so that all labels occur.

    Args:
        folder: Where to.
        pairs: Other pairs than those that systems are compared on.
        backbone: A name for `resolve_pretrained`.
    """
    master = Master(labels=folder / "labels", one=folder / "one")
    if folder.exists():
        return master
    source = resolve_pretrained(backbone)
    encoder = BertModel.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source, model_max_length=encoder.config.max_position_embeddings)
    tokenizer.init_kwargs.pop("max_length", None)  # MiniLM's own, 128, to which fastembed would cut.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    model = _classifier(encoder, ESCI.names)
    head = model.classifier
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(_SEED))
    nn.init.zeros_(head.bias)
    logits = torch.cat(
        [
            model(**tokenizer([query], [product], truncation=True, return_tensors="pt")).logits
            for query, product in pairs
        ]
    )
    scale = SPREAD / logits.std(dim=0)
    head.weight.mul_(scale[:, None])
    head.bias.copy_(-logits.mean(dim=0) * scale)
    one = _classifier(encoder, ("relevance",))
    one.classifier.weight.copy_(head.weight[:1] - head.weight.mean(dim=0))
    one.classifier.bias.copy_(head.bias[:1] - head.bias.mean())

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        made = Path(unfinished) / "master"
        for name, each in (("labels", model), ("one", one)):
            each.save_pretrained(str(made / name))
            tokenizer.save_pretrained(str(made / name))
            tokens = json.dumps(tokenizer.special_tokens_map)
            (made / name / "special_tokens_map.json").write_text(tokens, encoding="utf-8")  # FlashRank reads it.
        made.rename(folder)
    return master


def _classifier(encoder: BertModel, labels: Sequence[str]) -> BertForSequenceClassification:
    config = copy.deepcopy(encoder.config)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: index for index, name in enumerate(labels)}
    config.position_embedding_type = "absolute"  # CTranslate2 asks for it.
    model = BertForSequenceClassification(config).eval()
    model.bert.load_state_dict(encoder.state_dict())
    return model
