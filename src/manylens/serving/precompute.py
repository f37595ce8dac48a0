"""Computing the lower states of a catalogue with a split student, in constant memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from manylens.data import iter_products
from manylens.errors import StudentError
from manylens.progress import meter
from manylens.records import Pair
from manylens.serving.filling import Entry, StateWriter
from manylens.serving.states import Precision, StateStore, StoreCard
from manylens.student.predict import Student
from manylens.student.split import LowerProduct
from manylens.text import text_digest, well_formed

#: Products that are read, computed and made safe at a time.
_ROWS = 1024
#: Fields of a backbone's configuration that its weights do not tell.
_SHAPING = ("model_type", "num_attention_heads", "hidden_act", "layer_norm_eps", "pad_token_id")


@dataclass(frozen=True, kw_only=True)
class PrecomputeReport:
    """What a pass over a catalogue did.

    Attributes:
        rows: Rows of the table.
        computed: Products that were new, or had another text.
        products: Products in the store.
        bytes_per_product: Mean size of a product's states, in bytes.
    """

    rows: int
    computed: int
    products: int
    bytes_per_product: float


def precompute(
    student: Student,
    source: Path,
    folder: Path,
    *,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    precision: Precision = "fp16",
    batch_size: int = 64,
) -> PrecomputeReport:
    """Store the lower states of every product of a table.

    A pass that was killed goes on where it was, and a later one computes only the products that are new or whose text
    has changed; products that the table has no more stay.

    Args:
        student: A student that was trained with `split_layers`.
        source: CSV, TSV, Parquet or JSONL with at least a product_id and a title; it may be a table of pairs.
        folder: The store.
        columns: From our field to the table's column, as ``data.columns`` of a recipe.
        precision: ``fp16``, or ``int8`` with a scale a token.
        batch_size: Products in one forward pass; they are sorted by length first.

    Raises:
        DataError: If the table cannot be read, a row is bad, or a product has two texts.
        StudentError: If the student is not split, or `folder` holds other states.
    """
    config = student.model.config
    if not config.split_layers:
        raise StudentError(
            "this student's states of a product depend on the query; train one with student.split_layers to store them"
        )
    card = StoreCard(
        student=lower_fingerprint(student),
        split_layers=config.split_layers,
        dim=config.backbone_config.hidden_size,
        precision=precision,
    )
    rows = computed = 0
    with StateWriter(folder, card) as writer, meter(f"precompute {source.name}", None) as bar:
        for products in _products(source, columns):
            texts = [well_formed(student.encoder.template.render(product)) for product in products]
            entries = [
                Entry(product.product_id, product.locale, text_digest(text))
                for product, text in zip(products, texts, strict=True)
            ]
            lacking = writer.lacking(entries)
            if lacking:
                states = lower_states(student, [texts[place] for place in lacking], batch_size)
                writer.add(
                    [entries[place] for place in lacking], np.concatenate(states), [len(each) for each in states]
                )
            rows, computed = rows + len(products), computed + len(lacking)
            bar.advance(len(products))
            bar.note(f"{computed:,} computed")
    with StateStore.open(folder) as store:
        return PrecomputeReport(
            rows=rows, computed=computed, products=len(store), bytes_per_product=store.bytes_per_product
        )


def lower_states(student: Student, texts: Sequence[str], batch_size: int = 64) -> list[NDArray[np.float32]]:
    """Return the states of rendered products after the split layers, (tokens, dim) each, in their order."""
    lower = LowerProduct(student.model).eval()
    encoded = student.encoder.encode_products(texts)
    order = np.argsort([len(ids) for ids in encoded["input_ids"]], kind="stable")
    found: dict[int, NDArray[np.float32]] = {}
    for start in range(0, len(texts), batch_size):
        chosen = order[start : start + batch_size].tolist()
        rows = [{key: column[place] for key, column in encoded.items()} for place in chosen]
        batch = student.encoder.pad(rows).to(student.model.device)
        with torch.inference_mode():
            states = lower(batch["input_ids"], batch["attention_mask"]).float().cpu().numpy()
        for place, row, each in zip(chosen, rows, states, strict=True):
            found[place] = each[: len(row["input_ids"])]
    return [found[place] for place in range(len(texts))]


def lower_fingerprint(student: Student) -> str:
    """Return the SHA-256 of all that a product's lower states follow from: weights, tokenizer, template and lengths."""
    config, encoder = student.model.config, student.encoder
    settings = [
        config.split_layers,
        *(getattr(config.backbone_config, name) for name in _SHAPING),
        encoder.template.source,
        encoder.product_length,
        json.loads(encoder.tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None},
    ]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode("utf-8"))
    backbone = student.model.backbone
    lower = chain(
        (item for item in backbone.state_dict().items() if not item[0].startswith("encoder.")),
        backbone.encoder.layer[: config.split_layers].state_dict().items(),
    )
    for name, tensor in sorted(lower):
        digest.update(name.encode("utf-8"))
        digest.update(np.ascontiguousarray(tensor.float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _products(source: Path, columns: Mapping[str, str | Sequence[str]] | None) -> Iterator[list[Pair]]:
    """Yield the table's products as pairs without a query, some at a time."""
    for batch in iter_products(source, columns):
        for start in range(0, batch.num_rows, _ROWS):
            part: pa.RecordBatch = batch.slice(start, _ROWS)
            yield [
                Pair(pair_id="", query_id="", query="", **fields | {"attributes": dict(fields["attributes"])})
                for fields in part.to_pylist()
            ]
