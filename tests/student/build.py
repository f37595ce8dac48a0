"""A tokenizer with a vocabulary that fits on a page, tiny backbones and tiny data."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from manylens.config import StudentConfig
from manylens.records import ESCI, Pair
from manylens.student import LatentReasoningConfig, LatentReasoningForSequenceClassification
from manylens.student.encoding import PairEncoder
from manylens.student.targets import Targets

PAD, UNK, CLS, SEP = range(4)
WORDS = ("red", "blue", "green", "shoe", "hat", "sofa", "cup", "lamp", "|", "acme", "size", ":", "10", "?")
VOCABULARY = {
    word: index
    for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *map(chr, range(ord("a"), ord("z") + 1))))
}
TEMPLATE = "{{ title }}{% if brand %} | {{ brand }}{% endif %}"
DIM = 5

_SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "num_attention_heads": 2, "pad_token_id": PAD}
_LAYERS = {"num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 64}
BACKBONES: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_SIZES, **_LAYERS),
    "distilbert": DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=32, n_heads=2, n_layers=2, hidden_dim=48, max_position_embeddings=64
    ),
    "xlm-roberta": XLMRobertaConfig(**_SIZES, **_LAYERS, type_vocab_size=1),
    "electra": ElectraConfig(**_SIZES, **_LAYERS, embedding_size=16),
    "modernbert": ModernBertConfig(
        **_SIZES, **_LAYERS, cls_token_id=CLS, sep_token_id=SEP, bos_token_id=CLS, eos_token_id=SEP
    ),
}


def make_tokenizer(*, token_types: bool = True, double_separator: bool = False) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer; XLM-R and its kin separate the two texts with two [SEP]."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0" + (" [SEP]:0 $B:0 [SEP]:0" if double_separator else " $B:1 [SEP]:1"),
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if token_types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=names,
    )


def save_backbone(folder: Path, kind: str = "bert", dtype: torch.dtype = torch.float32) -> str:
    """Write a random backbone and its tokenizer into `folder`."""
    torch.manual_seed(0)
    AutoModel.from_config(deepcopy(BACKBONES[kind])).to(dtype).save_pretrained(folder)
    make_tokenizer(token_types=kind in ("bert", "electra"), double_separator=kind == "xlm-roberta").save_pretrained(
        folder
    )
    return str(folder)


def make_model(seed: int = 0, **options: object) -> LatentReasoningForSequenceClassification:
    """Return a random student on a tiny BERT, in evaluation mode."""
    torch.manual_seed(seed)
    config = LatentReasoningConfig(
        **{
            "backbone_config": BACKBONES["bert"].to_dict(),
            "gains": ESCI.gain_vector(),
            "id2label": dict(enumerate(ESCI.names)),
            "label2id": {name: index for index, name in enumerate(ESCI.names)},
            "latent_dim": DIM,
            "separator_token_id": SEP,
            **options,
        }
    )
    return LatentReasoningForSequenceClassification(config).eval()


def make_pair(query: str = "red shoe", title: str = "blue shoe", **fields: object) -> Pair:
    return Pair(
        **{"pair_id": f"{query}:{title}", "query_id": query, "product_id": title, **fields}, query=query, title=title
    )


def make_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Return pairs of various lengths, whose label is told by what the product is: an easy task."""
    random = np.random.default_rng(seed)
    colours, things = WORDS[:3], WORDS[3:7]
    pairs = []
    for index in range(count):
        query = f"{random.choice(colours)} {random.choice(things)}"
        kind = int(random.integers(len(things)))
        title = f"{random.choice(colours)} {things[kind]}" + " | acme" * int(random.integers(0, 4))
        pairs.append(make_pair(query, title, pair_id=f"p{index}", query_id=f"q{index}", label=ESCI.names[kind]))
    return pairs


def make_targets(pairs: list[Pair], names: tuple[str, ...] = ("rationale",)) -> Targets:
    """Return random targets of all pairs but the first, with four votes a pair and a text."""
    random = np.random.default_rng(7)
    shape = (len(pairs) - 1, len(names))
    vectors = random.normal(size=(*shape, DIM)).astype(np.float32)
    votes = random.multinomial(4, [1 / len(ESCI.names)] * len(ESCI.names), size=shape[0])
    return Targets(
        pair_ids=tuple(pair.pair_id for pair in pairs[1:]),
        names=names,
        vectors=vectors,
        mask=np.ones(shape, dtype=bool),
        votes=(votes / 4).astype(np.float32),
        texts=tuple(f"a {pair.label} of {pair.query}" for pair in pairs[1:]),
    )


def make_config(backbone: str, **fields: object) -> StudentConfig:
    """Return a student's section that trains in about a second."""
    training = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "bf16": False,
        **fields.pop("training", {}),
    }
    return StudentConfig(backbone=backbone, product_template=TEMPLATE, max_length=24, training=training, **fields)


def make_encoder(max_length: int = 12, template: str = TEMPLATE) -> PairEncoder:
    return PairEncoder(make_tokenizer(), template, max_length)
