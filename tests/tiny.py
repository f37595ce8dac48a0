"""A shop, a backbone and a sentence encoder so small that a whole recipe runs in seconds."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.records import ESCI
from manylens.teacher import PERSPECTIVES

COLOURS = ("red", "blue", "green", "white", "black")
THINGS = ("mug", "lamp", "shelf", "kettle", "chair")
#: One product of a query for each label: the colour and the thing that it has of the query's.
OFFERS = {"exact": (0, 0), "substitute": (1, 0), "complement": (0, 1), "irrelevant": (2, 2)}


@dataclass(frozen=True, kw_only=True)
class TinyShop:
    """A table of pairs, recorded judgements of the train and dev pairs, and models of random weights."""

    folder: Path
    models: Path

    @classmethod
    def make(cls, folder: Path, models: Path, *, queries: int = 20, samples: int = 2) -> TinyShop:
        """Write `queries` queries of four pairs each: three fifths train, a fifth dev, a fifth test."""
        folder.mkdir(exist_ok=True)
        rows = [row for number in range(queries) for row in _pairs(number)]
        with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        with (folder / "judgements.jsonl").open("w", encoding="utf-8") as stream:
            for row in rows:
                if row["split"] != "test":
                    stream.writelines(json.dumps(line) + "\n" for line in _judgements(row, samples))
        return cls(folder=folder, models=models)

    @property
    def pairs(self) -> Path:
        """The table of pairs."""
        return self.folder / "pairs.csv"

    def recipe(self, **student: object) -> dict[str, Any]:
        """Return the recipe, with keys of its student section changed."""
        return {
            "name": "tiny",
            "data": {"loader": "table", "path": str(self.pairs)},
            "labels": {"scale": "esci"},
            "embed": {"encoder": str(self.models / "encoder"), "batch_size": 4},
            "student": {
                "backbone": str(self.models / "backbone"),
                "baselines": ["bert"],
                "max_length": 32,
                "training": {
                    "num_train_epochs": 2,
                    "per_device_train_batch_size": 8,
                    "learning_rate": 1e-3,
                    "train_sampling_strategy": "group_by_length",
                },
                **student,
            },
            "evaluate": {"bootstrap_samples": 100},
        }


def _pairs(number: int) -> list[dict[str, str]]:
    colour, thing = number % len(COLOURS), number // len(COLOURS)
    rows = []
    for label, (other_colour, other_thing) in OFFERS.items():
        has = COLOURS[(colour + other_colour) % len(COLOURS)], THINGS[(thing + other_thing) % len(THINGS)]
        rows.append(
            {
                "query_id": f"q{number}",
                "product_id": f"p{number}-{label[0]}",
                "query": f"{COLOURS[colour]} {THINGS[thing % len(THINGS)]} {number}",
                "title": f"{has[0]} {has[1]}" + " for the home" * (number % 3),
                "brand": "Orvel",
                "locale": "us" if number % 2 else "es",
                "label": label,
                "split": ("train", "train", "train", "dev", "test")[number % 5],
            }
        )
    return rows


def _judgements(row: dict[str, str], samples: int) -> list[dict[str, object]]:
    """Return what a teacher says: business_rules takes each substitute for exact, the others are right."""
    lines = []
    for perspective in PERSPECTIVES:
        wrong = perspective == "business_rules" and row["label"] == "substitute"
        for sample in range(samples):
            lines.append(
                {
                    "query_id": row["query_id"],
                    "product_id": row["product_id"],
                    "perspective": perspective,
                    "sample": sample,
                    "rationale": f"{perspective} {sample}: {row['title']} against {row['query']}, {row['label']}",
                    "label": "exact" if wrong else row["label"],
                }
            )
    return lines


def make_models(folder: Path) -> Path:
    """Save a BERT of one layer with a WordPiece tokenizer, and a sentence-transformers model on top of one."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    # Written down, because a trained vocabulary's order is another one in each process.
    words = [*COLOURS, *THINGS, *PERSPECTIVES, *ESCI.names, "orvel", "for", "the", "home", "against"]
    letters = sorted({*"".join(words), *"0123456789"})
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = dict.fromkeys([*known, *(part for word in words for part in word.split("_"))])
    made = BertWordPieceTokenizer({token: number for number, token in enumerate(vocabulary)})
    tokenizer = BertTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=64)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    modules = [Transformer(str(folder / "backbone")), Pooling(config.hidden_size)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "encoder"))
    return folder
